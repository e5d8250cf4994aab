"""Commands in a pseudo-terminal, with the guest program on this host."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.commands.run import CommandResult, run_command, terminal_size
from langchain_daytona_ws._core.jobs.models import Job
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.errors import CommandRefused
from tests.unit_tests.daemon import Workspace
from tests.unit_tests.test_jobs import Jobs

SOON_S = 20.0
LIMIT_S = 60.0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace("bash", tmp_path)


def run(workspace: Workspace, command: str, **settings: Any) -> CommandResult:
    settings = {"timeout_s": LIMIT_S, "limit_bytes": 65_536, "key": None, "pty": (80, 24), **settings}
    return run_sync(run_command(workspace.guest_client, str(workspace.root), command, **settings))


def screen(workspace: Workspace, command: str, **settings: Any) -> str:
    return str(run(workspace, command, **settings).screen)


def test_all_three_descriptors_are_a_terminal_of_the_given_size(workspace: Workspace) -> None:
    command = "for fd in 0 1 2; do test -t $fd && echo $fd; done; stty size; echo $TERM; tput cols"
    assert screen(workspace, command) == "0\n1\n2\n24 80\nxterm-256color\n80"
    assert screen(workspace, "stty size", pty=(132, 50)) == "50 132"
    result = run(workspace, "test -t 1 || echo none", pty=False)
    assert (result.screen, result.output) == (None, "none\n")


def test_control_codes_are_in_the_output_and_not_on_the_screen(workspace: Workspace) -> None:
    result = run(workspace, r"printf '\033[31mred\033[0m\n10%%\r100%%\n'; exit 3")
    assert (result.exit_code, result.screen) == (3, "red\n100%")
    assert result.output == "\x1b[31mred\x1b[0m\r\n10%\r100%\r\n"
    assert "[exit code 3]" in result.text
    assert "red\n100%" in result.text


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("cat; echo $?; cat; echo again $?", "0\nagain 0"),
        ("read -r x; echo $?", "1"),
        ("read -r x < /dev/tty; echo $?", "1"),
        ("python3 -c 'input()' 2>&1 | tail -1", "EOFError: EOF when reading a line"),
        ("python3 -c 'import getpass; getpass.getpass()' 2>&1 | tail -1", "EOFError"),
        ("bash -i -c 'read x; echo $?' 2>/dev/null", "1"),
        ("seq 500 > f; less f; echo $?", "500\n0"),
        ("seq 50 > f; PAGER=less; $PAGER f | tail -1", "50"),
    ],
)
def test_a_program_that_reads_the_terminal_gets_the_end_of_input(
    workspace: Workspace, command: str, ending: str
) -> None:
    if "less" in command and shutil.which("less") is None:
        pytest.skip("less is not installed")
    began = time.monotonic()
    result = run(workspace, command)
    assert not result.timed_out
    assert str(result.screen).endswith(ending)
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_an_editor_is_ended_with_a_notice(workspace: Workspace) -> None:
    # At an end of input vim would scroll, without end.
    result = run(workspace, "seq 300000 > file; vim -u NONE file; echo $?")
    assert not result.timed_out
    assert result.output_bytes < 10_000
    assert result.notices[0].startswith("vim was ended, since no key can be pressed here")


def test_exit_codes_signals_and_pipelines_are_as_without(workspace: Workspace) -> None:
    assert run(workspace, "kill -9 $$").exit_code == 137
    assert run(workspace, "false | true").pipeline == (1, 0)
    failed = run(workspace, "echo a\nif")
    assert (failed.exit_code, "syntax error" in str(failed.screen)) == (2, True)


def test_a_long_output_is_whole_at_its_ends(workspace: Workspace) -> None:
    result = run(workspace, "seq 1 200000; exit 4")
    assert (result.exit_code, result.truncated, result.output_bytes) == (4, True, 1_488_895)
    text = str(result.screen)
    assert text.startswith("1\n2\n3\n")
    assert text.endswith("199999\n200000")
    assert "bytes left out; all of it is in /tmp/" in text.replace(str(workspace.port.tmp), "/tmp")
    assert len(text.encode()) <= 65_536 + 200


def test_a_time_out_kills_everything(workspace: Workspace) -> None:
    result = run(workspace, "echo begun; setsid sleep 987 & sleep 987", timeout_s=1)
    assert (result.exit_code, result.timed_out, result.screen) == (124, True, "begun")
    assert "987" not in workspace.run("ps axo args | grep '[s]leep 98'").output


def test_processes_in_the_background_get_a_hang_up(workspace: Workspace) -> None:
    result = run(workspace, "sleep 986 & echo x")
    assert (result.screen, result.background) == ("x", False)
    deadline = time.monotonic() + SOON_S
    while "986" in workspace.run("ps axo args | grep '[s]leep 98'").output:
        assert time.monotonic() < deadline
    ignoring = run(workspace, "(trap '' HUP; sleep 1; echo late; echo $? > late) & sleep 0.2; echo now")
    assert (ignoring.screen, ignoring.background) == ("now", False)


def test_a_call_runs_once(workspace: Workspace) -> None:
    first, again = (run(workspace, "echo x >> ran; cat ran", key="k") for _ in range(2))
    assert (first.from_record, again.from_record) == (False, True)
    assert first.screen == again.screen == "x"


def test_hostile_output_is_bounded(workspace: Workspace) -> None:
    began = time.monotonic()
    result = run(workspace, r"yes $'\e[9999;9999H\e[2J\e[99S\e]0;' | head -c 3000000; printf '\e[12;'")
    assert result.output_bytes >= 3_000_000
    assert len(str(result.screen)) <= 65_536 + 500
    assert time.monotonic() - began < LIMIT_S


def test_a_command_in_a_terminal_becomes_a_job(tmp_path: Path) -> None:
    jobs = Jobs("bash", tmp_path)
    go = "until [ -e go ]; do sleep 0.02; done"
    from langchain_daytona_ws._core.jobs.operations import job_request

    command = f"echo begun; {go}; test -t 0 && echo terminal; cat; exit 5"
    result = run_sync(
        run_command(
            jobs.guest_client,
            str(jobs.root),
            command,
            timeout_s=1,
            limit_bytes=65_536,
            key=None,
            job=job_request(command, 600, jobs.tracker, at_once=False),
            pty=(80, 24),
        )
    )
    assert (result.screen, result.job_id is None) == ("begun", False)
    (jobs.root / "go").touch()
    ended: Job = jobs.jobs.join(str(result.job_id))
    assert (ended.state, ended.exit_code) == ("finished", 5)
    assert jobs.log(ended.id) == "begun\r\nterminal\r\n"


@pytest.mark.parametrize(
    "size",
    [
        (19, 24),
        (501, 24),
        (80, 4),
        (80, 201),
        (80,),
        (80, 24, 1),
        (80.0, 24),
        (True, 24),
        ("80", "24"),
        80,
        None,
        "80x24",
    ],
)
def test_sizes_are_checked(size: Any) -> None:
    with pytest.raises(CommandRefused, match="columns"):
        terminal_size(size)


def test_the_usual_size() -> None:
    assert (terminal_size(pty=True), terminal_size(pty=False)) == ((80, 24), None)
