"""How a command ends when it cannot do what was asked: one clear message and an exit code, no traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.text import Text

FAILED = 1
WRONG_CALL = 2
# Of `run` and `jobs wait`, beside the exit codes of commands; 124 and 125 as env and timeout use them (GNU coreutils).
OUTCOME_UNKNOWN = 123
TIMED_OUT = 124
NOT_RUN = LOST = 125


def ended(message: str, *, code: int = FAILED) -> typer.Exit:
    """Print the message on standard error; raise what this returns.

    Args:
        message: What happened, and every remedy.
        code: 1 for a failure, 2 for a wrong call.
    """
    Console(stderr=True, soft_wrap=True).print(
        Text("Error: ", style="bold red").append(message, style="default")
    )
    return typer.Exit(code)


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, unwind the program as Ctrl-C does, so that sandboxes are deleted.

    Once: another one while that is under way is ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # nohup

    def end(number: int, frame: FrameType | None) -> None:
        for one in heeded:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
