"""The product on daemons that fail, and on those that answer in the words of another version."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.files.received import Received
from langchain_daytona_ws._core.guest_rpc import recovery
from langchain_daytona_ws._core.ports import BytesSource
from langchain_daytona_ws._core.run_sync import run_sync as run
from langchain_daytona_ws._core.sandbox.get_or_create import RESTARTED_NOTICE
from langchain_daytona_ws.errors import FileMissing, OutcomeUnknown, SandboxError
from langchain_daytona_ws.local import Fault, LocalDaytona

from .conftest import Driven, config_for

END_THE_DAEMON = "kill -TERM 1; sleep 0.2; echo sent"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a second of 502 as a dead daemon."""
    monkeypatch.setattr(recovery, "DEAD_AFTER_S", 1.0)


def names_of(server: LocalDaytona) -> list[str]:
    return [item.id for item in server.sandboxes]


def test_a_persistent_sandbox_with_a_dead_daemon_is_restarted_and_the_command_runs_once(
    server: LocalDaytona, open_session: Callable[..., Driven], soon: None
) -> None:
    workspace = open_session(server, persistent=True)
    assert workspace.run(END_THE_DAEMON).output == "sent\n"
    (before,) = names_of(server)
    server.clear_requests()
    result = workspace.run("echo ran >> runs.txt; cat runs.txt")
    assert (result.output, result.notices) == ("ran\n", (RESTARTED_NOTICE,))
    assert names_of(server) == [before]
    assert (server.count("stop"), server.count("start")) == (1, 1)
    assert workspace.run("cat runs.txt").notices == ()
    workspace.run(END_THE_DAEMON)
    assert "ran" in workspace.files("read", "runs.txt").body


def test_an_ephemeral_sandbox_with_a_dead_daemon_is_replaced_and_the_command_in_doubt(
    server: LocalDaytona, open_session: Callable[..., Driven], soon: None
) -> None:
    workspace = open_session(server)
    assert workspace.run(END_THE_DAEMON).output == "sent\n"
    (before,) = names_of(server)
    with pytest.raises(OutcomeUnknown, match="The next call gets a new one") as caught:
        workspace.run("echo ran >> runs.txt")
    assert caught.value.code == "lost_while_running"
    result = workspace.run("ls")
    assert result.output == ""
    assert "was replaced" in "".join(result.notices)
    (after,) = names_of(server)
    assert before != after
    workspace.run(END_THE_DAEMON)
    with pytest.raises(FileMissing):  # a poll may be repeated in the next test
        workspace.files("read", "runs.txt")


def test_a_gateway_that_fails_for_commands_only_costs_no_sandbox(
    server: LocalDaytona, open_session: Callable[..., Driven], soon: None
) -> None:
    workspace = open_session(server)
    workspace.run("echo kept > kept.txt")
    server.faults.add(Fault("status", action="execute", status=502, times=6))
    assert workspace.run("cat kept.txt").output == "kept\n"
    assert server.count("files.info") >= 1


@pytest.fixture(params=["0.190", "0.226"])
def of_each_kind(request: pytest.FixtureRequest) -> Iterator[LocalDaytona]:
    with LocalDaytona(daemon=request.param) as server:
        yield server


def test_the_main_job_on_each_kind_of_daemon(
    of_each_kind: LocalDaytona, open_session: Callable[..., Driven]
) -> None:
    workspace = open_session(of_each_kind, persistent=True)
    assert workspace.run("echo out; echo err >&2; exit 3").exit_code == 3
    assert workspace.run("sleep 60", timeout_s=1).timed_out
    large = b"0123456789abcde\n" * (20 << 10)
    workspace.files("write", "d/large.txt", large)
    assert workspace.files("download", "d/large.txt") == large
    workspace.files("edit", "d/large.txt", "0123456789abcde\n", "x\n", replace_all=True)
    assert workspace.run("sort -u d/large.txt").output == "x\n"
    with pytest.raises(FileMissing):
        workspace.files("download", "none.txt")
    boundary = b"\r\n--DAYTONA-FILE-BOUNDARY--\r\n"  # what 0.190 ends a download with
    for hostile in (boundary * 20_000, large + boundary):
        workspace.files("write", "hostile", hostile)
        assert workspace.files("download", "hostile") == hostile
    assert workspace.run("setsid sleep 100 > /proc/$PPID/fd/1 & sleep 0.3; echo done").output == "done\n"


def test_a_file_that_the_daemon_cannot_write_or_read_is_an_error_on_each_kind(
    of_each_kind: LocalDaytona,
) -> None:
    with WorkspaceSession(config_for(of_each_kind), namespace="demo") as session:
        session.run("mkdir -p /tmp/folder")
        client = run(session._sync.client())
        for directory in ("/etc/passwd", "/etc/passwd/x"):
            with pytest.raises(SandboxError, match="refused"):
                run(client.upload(directory, [BytesSource(b"x")]))
        for path in ("/tmp/none", "/tmp/folder", "/etc/passwd/x"):
            with pytest.raises(SandboxError):
                run(client.download(path, Received(10)))
