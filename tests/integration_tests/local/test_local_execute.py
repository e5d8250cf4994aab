"""`process.exec`, with the quirks of the real daemon."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable

import pytest
from daytona import Daytona, Sandbox
from daytona.common.errors import (
    DaytonaBadGatewayError,
    DaytonaTimeoutError,
    DaytonaValidationError,
)

from langchain_daytona_ws.local import LocalDaytona

SHELLS = ["zsh", "bash", "dash", "sh"]


@pytest.fixture(params=SHELLS)
def shell_sandbox(request: pytest.FixtureRequest, connect: Callable[[LocalDaytona], Daytona]):
    with LocalDaytona(shell=request.param) as server:
        yield connect(server).create()


@pytest.mark.one_in(2)
def test_output_and_errors_share_one_stream_in_order(shell_sandbox: Sandbox) -> None:
    response = shell_sandbox.process.exec("echo one; echo two >&2; echo three; exit 3")
    assert (response.exit_code, response.result) == (3, "one\ntwo\nthree\n")


@pytest.mark.one_in(2)
def test_the_script_is_stdin_so_reading_it_eats_the_rest(shell_sandbox: Sandbox) -> None:
    response = shell_sandbox.process.exec("echo before\ncat\necho after\n")
    # dash reads its script in blocks, so that `cat` finds nothing left, and dash itself never eats its own lines
    assert response.result.startswith("before\n")
    assert "echo after\n" in response.result or response.result == "before\nafter\n"


def test_a_read_eats_the_next_line(sandbox: Sandbox) -> None:
    assert sandbox.process.exec("read x\necho eaten\necho got: $x\n").result == "got: echo eaten\n"


def test_lines_before_a_syntax_error_run(sandbox: Sandbox) -> None:
    response = sandbox.process.exec("echo ran\n)\n")
    assert response.result.startswith("ran\n")
    assert response.exit_code != 0


def test_each_shell_identifies_itself(connect: Callable[[LocalDaytona], Daytona]) -> None:
    for shell in ("zsh", "bash", "dash"):
        assert shutil.which(shell), f"this test needs {shell}"
        with LocalDaytona(shell=shell) as server:
            result = connect(server).create().process.exec("cat /proc/$$/comm").result
        assert result == f"{shell}\n"
    with LocalDaytona() as server:
        assert connect(server).create().process.exec("cat /proc/$$/comm").result == "zsh\n"


def test_a_missing_folder_is_a_result(sandbox: Sandbox) -> None:
    response = sandbox.process.exec("true", cwd="/no/such")
    # The shell is blamed, not the directory.
    assert (response.exit_code, response.result) == (-1, "fork/exec /usr/bin/zsh: no such file or directory")


def test_a_relative_folder_is_below_home(sandbox: Sandbox) -> None:
    sandbox.process.exec("mkdir -p a/b")
    assert sandbox.process.exec("pwd", cwd="a/b").result == "/home/daytona/a/b\n"
    assert sandbox.process.exec("pwd").result == "/home/daytona\n"


def test_environment_variables_are_set_and_their_names_checked(sandbox: Sandbox) -> None:
    assert sandbox.process.exec("echo $A_1", env={"A_1": "x 'y'"}).result == "x 'y'\n"
    with pytest.raises(DaytonaValidationError, match="invalid environment variable key"):
        sandbox.process.exec("true", env={"no-good": "x"})


def test_undecodable_bytes_become_replacement_characters(sandbox: Sandbox) -> None:
    response = sandbox.process.exec(r"printf 'a\377\376b\342\202c\000d'")
    assert response.result == "a\ufffd\ufffdb\ufffd\ufffdc\0d"


def test_a_time_out_kills_the_group_and_discards_the_output(sandbox: Sandbox) -> None:
    script = "echo lost; (sleep 300; echo never) & setsid sleep 400 >/dev/null 2>&1 </dev/null & sleep 300"
    started = time.monotonic()
    with pytest.raises(DaytonaTimeoutError) as caught:
        sandbox.process.exec(script, timeout=1)
    assert caught.value.status_code == 408
    assert "lost" not in str(caught.value)
    assert time.monotonic() - started < 60  # and not 300
    left = sandbox.process.exec("ps axo args").result
    assert "sleep 300" not in left
    assert "sleep 400" in left  # what called setsid survives


def test_execute_waits_until_the_output_is_closed(sandbox: Sandbox) -> None:
    started = time.monotonic()
    response = sandbox.process.exec("(sleep 0.7; echo late) & echo early")
    assert response.result == "early\nlate\n"
    assert time.monotonic() - started >= 0.7
    started = time.monotonic()
    sandbox.process.exec("sleep 300 >/dev/null 2>&1 & echo done")
    assert time.monotonic() - started < 60


def test_a_time_out_also_ends_the_waiting_for_the_output(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaTimeoutError):
        sandbox.process.exec("sleep 60 & echo early", timeout=1)


def test_processes_of_one_call_are_seen_and_killed_by_another(sandbox: Sandbox) -> None:
    sandbox.process.exec("sleep 500 >/dev/null 2>&1 & echo $! > pid")
    assert sandbox.process.exec("cat /proc/$(cat pid)/comm").result == "sleep\n"
    assert sandbox.process.exec(
        "kill $(cat pid); sleep 0.1; ls /proc/$(cat pid) 2>&1 | head -1"
    ).result.endswith("No such file or directory\n")


def test_orphans_are_reaped(sandbox: Sandbox) -> None:
    sandbox.process.exec("for i in 1 2 3 4 5; do (sleep 0.05 & ) >/dev/null 2>&1; done; sleep 0.3")
    assert sandbox.process.exec("ps axo stat | grep -c Z").result == "0\n"


def test_killing_everything_does_not_kill_the_daemon(sandbox: Sandbox) -> None:
    sandbox.process.exec("pkill -9 python; pkill python; kill -9 1; true")
    assert sandbox.process.exec("echo alive").result == "alive\n"
    sandbox.process.exec("kill -9 -1")
    assert sandbox.process.exec("echo alive").result == "alive\n"


def test_a_signal_gives_exit_code_minus_one(sandbox: Sandbox) -> None:
    assert sandbox.process.exec("kill -9 $$").exit_code == -1


def test_large_scripts_and_large_output(sandbox: Sandbox) -> None:
    text = "x" * 4_000_000
    response = sandbox.process.exec(f"wc -c <<'END'\n{text}\nEND\n")
    assert response.result.strip() == "4000001"
    assert len(sandbox.process.exec("head -c 5000000 /dev/zero | tr '\\0' a").result) == 5_000_000


def test_a_single_argument_has_the_system_limit(sandbox: Sandbox) -> None:
    long = "y" * (200 * 1024)
    response = sandbox.process.exec(f"/bin/echo {long} | wc -c")
    assert "argument list too long" in response.result.lower()
    response = sandbox.process.exec("true", env={"BIG": long})
    assert (response.exit_code, response.result) == (-1, "fork/exec /usr/bin/zsh: argument list too long")


def test_an_empty_command_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaValidationError):
        sandbox.process.exec("")


def test_a_disconnected_client_cancels_nothing(server: LocalDaytona, sandbox: Sandbox) -> None:
    import http.client

    connection = http.client.HTTPConnection(
        *server.api_url.removeprefix("http://").removesuffix("/api").split(":")
    )
    command = "touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo finished > /tmp/outcome"
    body = json.dumps({"command": command})
    connection.request(
        "POST",
        f"/toolbox/{sandbox.id}/process/execute",
        body,
        {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"},
    )
    sandbox.process.exec("until [ -e /tmp/begun ]; do sleep 0.05; done", timeout=60)
    connection.close()
    poll = "touch /tmp/go; until [ -s /tmp/outcome ]; do sleep 0.05; done; cat /tmp/outcome"
    assert sandbox.process.exec(poll, timeout=60).result == "finished\n"


def test_calls_run_side_by_side(sandbox: Sandbox) -> None:
    # Each waits until all have come: one after the other they would wait for ever.
    wait = (
        "mkdir -p /tmp/here; touch /tmp/here/$$; until [ $(ls /tmp/here | wc -l) -ge 8 ]; do sleep 0.05; done"
    )
    threads = [threading.Thread(target=sandbox.process.exec, args=(wait,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_signal_that_asks_it_ends_the_daemon(connect: Callable[[LocalDaytona], Daytona]) -> None:
    with LocalDaytona() as server:
        sandboxes = [connect(server).create() for _ in range(2)]
        for sandbox, signal in zip(sandboxes, ("TERM", "INT"), strict=True):
            # What is under way is answered, if it does not take too long.
            assert sandbox.process.exec(f"kill -{signal} 1; sleep 0.3; echo done").result == "done\n"
            for _ in range(2):
                with pytest.raises(DaytonaBadGatewayError) as caught:
                    sandbox.process.exec("true")
                assert caught.value.message == "Failed to execute command: "
            assert server.sandboxes[0].state == "started"
        sandboxes[0].stop()
        sandboxes[0].start()
        assert sandboxes[0].process.exec("echo again").result == "again\n"


def test_a_dead_daemon_is_a_bare_502(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.crash_sandbox(sandbox.id)
    with pytest.raises(DaytonaBadGatewayError):
        sandbox.process.exec("true")
    sandbox.stop()
    sandbox.start()
    assert sandbox.process.exec("echo again").result == "again\n"


def test_destroying_a_sandbox_ends_its_calls(server: LocalDaytona, sandbox: Sandbox) -> None:
    timer = threading.Timer(0.3, server.destroy_sandbox, (sandbox.id,))
    timer.start()
    with pytest.raises(DaytonaBadGatewayError):
        sandbox.process.exec("sleep 60")
    timer.join()


def test_python_venv_git_and_node_work(sandbox: Sandbox) -> None:
    assert (
        sandbox.process.exec("python3 -m venv --without-pip v && v/bin/python -c 'print(1)'").result == "1\n"
    )
    commit = "git -c user.name=a -c user.email=b commit -q --allow-empty -m x"
    response = sandbox.process.exec(f"git init -q r && cd r && {commit} && git log --oneline | wc -l")
    assert response.result.strip() == "1", response.result
    assert sandbox.process.exec("whoami; echo $HOME").result == "daytona\n/home/daytona\n"
