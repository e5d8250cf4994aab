"""End a command with an error message and an exit code, without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.text import Text

from langchain_daytona_ws.cli.output import printable

FAILED = 1
USAGE_ERROR = 2
# Exit codes of `run` and `jobs wait` that are not the exit code of the command or job. 124 and 125 are as in GNU
# timeout and env.
OUTCOME_UNKNOWN = 123
TIMED_OUT = 124
NOT_RUN = LOST = 125


def error_exit(message: str, *, code: int = FAILED) -> typer.Exit:
    """Print an error on standard error, and return the exception for the caller to raise."""
    Console(stderr=True, soft_wrap=True).print(
        Text("Error: ", style="bold red").append(printable(message), style="default")
    )
    return typer.Exit(code)


@contextmanager
def cleaning_up() -> Iterator[None]:
    """On SIGTERM or SIGHUP, unwind the program as Ctrl-C does, so that sandboxes are deleted.

    A second SIGTERM or SIGHUP during the clean-up is ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # A signal that is ignored stays ignored: nohup ignores SIGHUP.
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
