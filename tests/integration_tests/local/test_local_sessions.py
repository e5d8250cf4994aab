"""Sessions through the sync SDK."""

from __future__ import annotations

import threading
import time

import pytest
from daytona import Sandbox, SessionExecuteRequest
from daytona.common.errors import DaytonaConflictError, DaytonaError, DaytonaNotFoundError

from .conftest import eventually


def run(sandbox: Sandbox, command: str, *, run_async: bool = False):
    return sandbox.process.execute_session_command(
        "s", SessionExecuteRequest(command=command, run_async=run_async)
    )


@pytest.fixture
def session(sandbox: Sandbox) -> Sandbox:
    sandbox.process.create_session("s")
    return sandbox


def test_state_stays_and_streams_are_apart(session: Sandbox) -> None:
    assert run(session, "cd /tmp; X=kept").exit_code == 0
    response = run(session, "pwd; echo $X; echo bad >&2; false")
    assert (response.exit_code, response.stdout, response.stderr) == (1, "/tmp\nkept\n", "bad\n")
    logs = session.process.get_session_command_logs("s", response.cmd_id)
    assert (logs.stdout, logs.stderr) == ("/tmp\nkept\n", "bad\n")


def test_an_asynchronous_command_is_followed(session: Sandbox) -> None:
    response = run(session, "echo first; sleep 0.4; echo last", run_async=True)
    assert session.process.get_session_command("s", response.cmd_id).exit_code is None
    deadline = time.monotonic() + 60
    while session.process.get_session_command("s", response.cmd_id).exit_code is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert session.process.get_session_command("s", response.cmd_id).exit_code == 0
    assert session.process.get_session_command_logs("s", response.cmd_id).stdout == "first\nlast\n"


def test_sessions_are_listed_and_unique(session: Sandbox) -> None:
    run(session, "echo x")
    with pytest.raises(DaytonaConflictError):
        session.process.create_session("s")
    (listed,) = session.process.list_sessions()
    assert (listed.session_id, [item.command for item in listed.commands]) == ("s", ["echo x"])
    with pytest.raises(DaytonaNotFoundError):
        session.process.get_session("other")


def test_exit_kills_the_shell_and_its_code_is_never_written(session: Sandbox) -> None:
    response = run(session, "exit 3", run_async=True)
    time.sleep(0.3)
    assert session.process.get_session_command("s", response.cmd_id).exit_code is None
    # A synchronous call hangs from here on, until the session is deleted.
    timer = threading.Timer(0.5, session.process.delete_session, ("s",))
    timer.start()
    with pytest.raises(DaytonaError):
        run(session, "echo never")
    timer.join()


def test_deleting_a_session_kills_all_that_it_started(session: Sandbox) -> None:
    run(session, "nohup sleep 600 >/dev/null 2>&1 & (setsid sleep 700 >/dev/null 2>&1 &)", run_async=True)
    run(session, "sleep 800", run_async=True)
    poll = "ps axo args"
    assert eventually(
        lambda: all(f"sleep {number}" in session.process.exec(poll).result for number in (600, 800))
    )
    session.process.delete_session("s")
    after = session.process.exec("ps axo args").result
    assert "sleep 600" not in after
    assert "sleep 800" not in after
    assert session.process.list_sessions() == []
