"""Delete the ephemeral sandboxes of unclosed sessions: at exit, at garbage collection, and optionally at SIGTERM."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, TypeVar, TypeVarTuple

from langchain_daytona_ws.errors import WorkspaceError

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

logger = logging.getLogger("langchain_daytona_ws")

EXIT_WITHIN_S = 30.0  # for all deletions at exit, or of unreferenced sessions; includes last pushes
SIGTERM_WITHIN_S = 8.0  # Docker kills a container 10 s after SIGTERM
PARALLEL_DELETIONS = 20


class OpenSandbox(Protocol):
    """A sandbox that must be deleted before the process ends: a `SandboxManager`."""

    @property
    def name(self) -> str: ...

    @property
    def workspace(self) -> tuple[str, object]:
        """The namespace and the account."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def is_kept(self) -> bool:
        """True if the sandbox must not be deleted, because it has files that could not be saved."""

    async def close_within(self, within_s: float) -> None:
        """Save the files of a synchronised workspace, and delete the sandbox."""


# Sandbox → id of the process that created it. A forked child must not delete its parent's sandbox. If the parent is
# gone, auto-stop ends the sandbox.
_open: dict[OpenSandbox, int] = {}
_unreferenced: queue.SimpleQueue[OpenSandbox] = queue.SimpleQueue()


def add(sandbox: OpenSandbox) -> None:
    """Record a sandbox that must be deleted before this process ends."""
    # Registered again for each sandbox: exit handlers run in the reverse order of their registration, and the deletion
    # must run before handlers that close connections.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    _open[sandbox] = os.getpid()


def remove(sandbox: OpenSandbox) -> None:
    _open.pop(sandbox, None)


def is_owned_here(sandbox: OpenSandbox) -> bool:
    """Return True if this process, not its parent process, has recorded the sandbox and not deleted it."""
    return _open.get(sandbox) == os.getpid()


def to_delete_here() -> list[OpenSandbox]:
    return [sandbox for sandbox in list(_open) if is_owned_here(sandbox) and not sandbox.is_kept]


def _at_exit() -> None:
    end_all(to_delete_here(), within_s=EXIT_WITHIN_S, when="at exit")


# --- a session without references ---


def end_unreferenced(sandbox: OpenSandbox) -> None:
    """Start a thread that deletes the sandbox of a session that was garbage-collected.

    The collector may run in any thread at any time, also while that thread holds locks. So this function must not take
    a lock or wait. It cannot use ``Thread.start``, which does both.
    """
    if not is_owned_here(sandbox) or sandbox.is_kept:
        return
    _unreferenced.put(sandbox)
    with suppress(RuntimeError):  # the interpreter is exiting: the exit handler deletes the sandbox
        _thread.start_new_thread(_start_ending_unreferenced, ())


def _start_ending_unreferenced() -> None:
    with suppress(RuntimeError):
        # Not a daemon thread: the interpreter waits for it before it exits.
        threading.Thread(target=_end_unreferenced, name="langchain-daytona-ws-unreferenced").start()


def _end_unreferenced() -> None:
    """Delete all sandboxes in the queue. It is empty if another thread has taken them."""
    sandboxes = []
    with suppress(queue.Empty):
        while True:
            sandboxes.append(_unreferenced.get_nowait())
    # A forked child inherits the queue of its parent.
    sandboxes = [sandbox for sandbox in sandboxes if is_owned_here(sandbox)]
    end_all(sandboxes, within_s=EXIT_WITHIN_S, when="after the last reference to its session")


# --- SIGTERM ---


def close_on_sigterm(*, within_s: float = SIGTERM_WITHIN_S) -> None:
    """Delete this process's ephemeral sandboxes at SIGTERM; then run the earlier signal handler.

    By default SIGTERM ends a process without running exit handlers: its ephemeral sandboxes stay until their auto-stop.
    After a call of this function, SIGTERM deletes the sandboxes in parallel and closes their sessions. Then the earlier
    handler is called; without an earlier handler, SIGTERM ends the process, as its parent expects. During the deletion,
    a second SIGTERM goes directly to the earlier handler, or ends the process. An ignored SIGTERM stays ignored.

    A handler that is installed later replaces this handler. Servers such as uvicorn install one. There, close the
    sessions in the server's lifespan, which ends after the running requests.

    Args:
        within_s: Maximum number of seconds for all deletions, including the last pushes of synchronised workspaces. The
            remaining sandboxes are ended by their auto-stop. Default: 8, because Docker kills a container 10 seconds
            after SIGTERM.

    Raises:
        RuntimeError: This is not the main thread, or SIGTERM has a handler that was not installed by Python.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "close_on_sigterm() must be called in the main thread, where Python handles signals. Call it where the "
            "program starts, or close the sessions in the lifespan of the server."
        )
    earlier = signal.getsignal(signal.SIGTERM)
    if earlier is None:
        raise RuntimeError(
            "close_on_sigterm() cannot call the present handler of SIGTERM, which was not installed by Python. Close "
            "the sessions where that handler ends the program."
        )
    if isinstance(earlier, _SigtermHandler):
        earlier.within_s = within_s
    elif earlier is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _SigtermHandler(earlier, within_s))


class _SigtermHandler:
    def __init__(self, earlier: Callable[[int, FrameType | None], Any] | int, within_s: float) -> None:
        self.earlier = earlier
        self.within_s = within_s

    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, self.earlier)  # for a second SIGTERM
        if not _end_all_in_a_thread(self.within_s):
            return
        if callable(self.earlier):
            self.earlier(number, frame)
            if signal.getsignal(number) is self.earlier:  # the earlier handler did not end the program
                signal.signal(number, self)
        else:
            signal.raise_signal(number)


def _end_all_in_a_thread(within_s: float) -> bool:
    """Delete all sandboxes. Return False if the interpreter is exiting: then the exit handler deletes them.

    The signal may have interrupted the main thread in an event loop, or while it held a lock. So another thread does
    the work, and this thread waits for a limited time.
    """
    sandboxes = to_delete_here()
    if not sandboxes:
        return True
    ended = _thread.allocate_lock()
    ended.acquire()

    def work() -> None:
        try:
            end_all(sandboxes, within_s=within_s, when="at SIGTERM")
        finally:
            ended.release()

    try:
        _thread.start_new_thread(work, ())  # not `Thread.start`, see `end_unreferenced`
    except RuntimeError:
        return False
    ended.acquire(timeout=within_s + 1)
    return True


# --- the deletion ---


def end_all(sandboxes: Iterable[OpenSandbox], *, within_s: float, when: str) -> None:
    """Delete sandboxes in parallel, all within ``within_s`` seconds. Log each failure with ``when``, the occasion."""
    if sandboxes := list(sandboxes):
        with asyncio.Runner(loop_factory=_LoopWithoutThreads) as runner:
            runner.run(_end_in_parallel(sandboxes, within_s, when))


async def _end_in_parallel(sandboxes: list[OpenSandbox], within_s: float, when: str) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    slots = asyncio.Semaphore(PARALLEL_DELETIONS)

    async def end_one(sandbox: OpenSandbox) -> None:
        name = sandbox.name
        async with slots:
            try:
                await sandbox.close_within(max(until - loop.time(), 0.0))
            except WorkspaceError as error:
                logger.warning("%s, sandbox %s: %s", when, name, error.message)
            except Exception:
                # The other sandboxes must still be deleted.
                logger.exception("%s, sandbox %s was not deleted", when, name)

    await asyncio.gather(*map(end_one, sandboxes))


class _LoopWithoutThreads(asyncio.SelectorEventLoop):
    """An event loop that runs blocking functions itself: at exit, Python 3.12 and later refuse to start threads."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - raised in the coroutine that waits for the function
            future.set_exception(error)
        return future
