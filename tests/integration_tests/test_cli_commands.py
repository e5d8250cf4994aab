"""All commands agree with docs/cli.md, and their help loads no large package."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from langchain_daytona_ws._session.diagnosis.storage import PROBE
from langchain_daytona_ws.cli import exits, jobs, run
from langchain_daytona_ws.cli.app import app
from tests.integration_tests.test_cli import environment

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
LINES = re.findall(r"^langchain-daytona-ws (.*?)(?: +#.*)?$", PAGE, re.MULTILINE)
COMMANDS = [
    ("cp",), ("doctor",), ("run",), ("serve",), ("s3-snapshot",), ("sandboxes", "list"), ("sandboxes", "release"),
    ("sandboxes", "prune"), ("sandboxes", "recover"),
    *(("jobs", name) for name in ("start", "list", "status", "logs", "stop", "wait")),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize("line", LINES)
def test_the_readmes_calls_are_calls(line: str) -> None:
    message = shlex.split(line)
    command = next(item for item in COMMANDS if message[: len(item)] == list(item))
    given = message[: message.index("--")] if "--" in message else message
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
    assert all(word in shown for word in given if word.startswith("--"))


def test_there_are_calls() -> None:
    assert len(LINES) == 9


def test_the_exit_codes_of_the_page_are_those_of_the_code() -> None:
    assert (exits.FAILED, exits.USAGE_ERROR) == (1, 2)
    assert "124 (time is up), 125 (the command did not run) and 123 (the command may have run" in " ".join(
        PAGE.split()
    )
    assert (exits.TIMED_OUT, exits.NOT_RUN, exits.OUTCOME_UNKNOWN, exits.LOST) == (124, 125, 123, 125)
    assert "256 KiB" in PAGE
    assert run.OUTPUT_LIMIT_BYTES == 256 * 1024
    assert f"`{PROBE}…`" in PAGE
    named = {item.name or item.callback.__name__ for item in jobs.jobs.registered_commands if item.callback}
    assert {name for name in named if f"`{name}`" in PAGE} == named


def test_help_loads_neither_the_sdk_nor_boto3() -> None:
    code = (
        "import sys; from langchain_daytona_ws.cli.app import app\n"
        f"for words in {[list(item) for item in COMMANDS]!r}:\n"
        "    try: app([*words, '--help'])\n    except SystemExit: pass\n"
        "print([name for name in ('daytona', 'boto3', 'starlette', 'langchain_core') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(COLUMNS="200"),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_once_and_its_handler_is_put_back(number: signal.Signals) -> None:
    outside = signal.signal(number, signal.SIG_DFL)  # the parent of the tests may ignore it, like nohup
    cleaned = []

    @exits.cleaning_up()
    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    try:
        with pytest.raises(SystemExit) as caught:
            work()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    assert caught.value.code == 128 + number
    assert cleaned == [True]


def test_a_program_that_hangups_do_not_concern_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exits.cleaning_up():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_table_that_does_not_fit_is_printed_as_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langchain_daytona_ws.cli.output import print_table

    rows = [("ldw-demo-1", "started", "two  words"), ("ldw-demo-2", "", "x" * 50)]
    monkeypatch.setenv("COLUMNS", "25")
    print_table(("name", "state", "command"), rows)
    assert capsys.readouterr().out == (
        "name:    ldw-demo-1\nstate:   started\ncommand: two  words\n\n"
        "name:    ldw-demo-2\nstate:   \ncommand: " + "x" * 50 + "\n"
    )
    monkeypatch.setenv("COLUMNS", "40")  # long words alone are wrapped in the table
    print_table(("name", "state", "command"), rows)
    assert "ldw-demo-2 │" in capsys.readouterr().out


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from langchain_daytona_ws.cli.output import print_table

    print_table(("a", "b"), [("\x1b[2J[bold]x[/bold]\u202e", "one\ntwo")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]x[/bold]" in shown
    assert isinstance(exits.error_exit("x"), typer.Exit)


def test_an_error_message_does_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    exits.error_exit("it said \x1b]0;title\x07\u202e\nsecond line")
    assert capsys.readouterr().err == "Error: it said  ]0;title  \nsecond line\n"
