"""Open the sessions of a pool, lease them to callers, close unused sessions, and report events."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from langchain_daytona_ws._adapters.running_loop import running_loop
from langchain_daytona_ws._core.ports import SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._pool.slots import Slot, Slots, Step
from langchain_daytona_ws._session.sandbox_manager import CLOSE_WAITS_S, raise_first
from langchain_daytona_ws._session.single_flight import (
    Wait,
    WouldDeadlock,
    wait_blocking,
    wait_on_loop,
)
from langchain_daytona_ws.config import namespace_of
from langchain_daytona_ws.errors import SandboxUnavailable, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

CLOSE_WORKERS = 32

EventKind: TypeAlias = Literal["open", "create", "close", "wait", "refuse"]


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """A change in a `WorkspacePool`, for logs and metrics.

    Args:
        kind: ``open``: a session was opened; no sandbox is needed yet. ``create``: a sandbox was created for a session.
            ``close``: a session was closed or released, or closing it failed. ``wait``: a call has waited for a session
            and got it. ``refuse``: a call got no session in time, or waiting would have blocked its event loop.
        key: The key of the workspace.
        namespace: The namespace of the key.
        duration_s: Seconds that the creation, the closing or the wait took; 0 for ``open``.
        sandbox_id: For ``create`` and ``close``: id of the sandbox, if there is one. Otherwise None.
        sessions: Number of sessions now, open or being closed.
        in_use: Number of sessions in use now.
        error: Why the closing failed, or the call was refused. Otherwise None.
    """

    kind: EventKind
    key: str
    namespace: str
    duration_s: float
    sandbox_id: str | None
    sessions: int
    in_use: int
    error: WorkspaceError | None = None


class PooledSession(Protocol):
    """The methods of `WorkspaceSession` that are used here."""

    @property
    def sandbox_id(self) -> str | None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    def release(self, *, discard_unpushed: bool) -> None: ...
    async def arelease(self, *, discard_unpushed: bool) -> None: ...


S = TypeVar("S", bound=PooledSession)
_Record: TypeAlias = Callable[[BaseException | None], None]


class PoolSessions(Generic[S]):
    """The sessions of a pool.

    Args:
        wait_s: Maximum number of seconds that a call waits for a session.
        on_event: Called with each `PoolEvent`; its errors are logged. None if no callback is wanted.
    """

    def __init__(
        self, slots: Slots[S], *, wait_s: float, on_event: Callable[[PoolEvent], object] | None
    ) -> None:
        self._slots = slots
        self._wait_s = wait_s
        self._on_event = on_event
        # Slots with a failed or interrupted closing: the sandbox may exist, or the files may not be saved.
        self._unclosed: list[Slot[S]] = []
        # The tasks that close slots, with the function that records the end. An event loop holds only weak references.
        self._closing_tasks: dict[asyncio.Task[None], _Record] = {}
        self._releasing_loops: list[asyncio.AbstractEventLoop] = []  # one for each `arelease` that waits

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def in_use(self) -> int:
        return self._slots.in_use

    def reopen(self) -> None:
        self._slots.reopen()

    async def acquire(self, key: str, namespace: str, wait: Wait) -> Slot[S]:
        """Lease the slot of a key and return it; wait if necessary. The caller ends the lease with `end_lease`."""
        ticket, began = object(), time.monotonic()
        waited = False
        try:
            while True:
                step = self._slots.try_lease(key, namespace, ticket)
                self._close_soon(step.to_close)
                if step.slot is not None:
                    break
                await self._wait(step, wait, began, key, namespace)
                waited = True
        finally:
            self._slots.forget(ticket)
        try:
            if step.opened:
                self._report("open", key, namespace)
            if waited:
                self._report("wait", key, namespace, duration_s=time.monotonic() - began)
        except BaseException:  # Ctrl-C during `on_event`
            self.end_lease(step.slot)
            raise
        return step.slot

    def end_lease(self, slot: Slot[S]) -> None:
        self._close_soon(self._slots.end_lease(slot))

    async def _wait(self, step: Step[S], wait: Wait, began: float, key: str, namespace: str) -> None:
        """Wait until another attempt may succeed.

        Raises:
            SandboxUnavailable: The time is over. Or only this thread's event loop can free a session, and waiting would
                block this loop (`WouldDeadlock`).
        """
        self._end_closings_of_closed_loops()
        left_s = began + self._wait_s - time.monotonic()
        error: SandboxUnavailable | None = None
        if left_s <= 0:
            error = self._refusal(step.reason)
        elif wait is wait_blocking and self._needs_this_loop(step):
            doing = {"closing": "closing the session", "in_use": "using the session"}
            error = WouldDeadlock(doing.get(step.reason, "using all sessions of the pool"), "lease")
        if error is not None:
            self._report("refuse", key, namespace, duration_s=time.monotonic() - began, error=error)
            raise error
        await wait(step.changed, left_s)

    def _needs_this_loop(self, step: Step[S]) -> bool:
        """Return True if a slot may become free only while the event loop of this thread runs."""
        return self._closes_on_this_loop() if step.reason == "closing" else running_loop() is not None

    def _closes_on_this_loop(self) -> bool:
        """Return True if a closing or a release goes on only while the event loop of this thread runs."""
        loop = running_loop()
        return loop in self._releasing_loops or any(
            task.get_loop() is loop for task in list(self._closing_tasks)
        )

    def _refusal(self, reason: str) -> SandboxUnavailable:
        waited = f"after {self._wait_s:g} s"
        code, message, for_model = {
            "full": (
                "pool_full",
                f"All {len(self)} sessions of the pool are in use {waited}, by calls or by background jobs. "
                "Raise max_sessions, as far as the Daytona account allows that many sandboxes, or wait_s, run fewer "
                "calls at a time, or stop jobs.",
                "All machines are in use. Nothing ran. Try again later, or tell the user.",
            ),
            "in_use": (
                "pool_in_use",
                f"The workspace is still in use {waited}, and was not released. Cancel its runs first, or try again.",
                "The workspace is in use.",
            ),
            "closing": (
                "pool_closing",
                f"The workspace's earlier session is still being closed {waited}. Try again, or raise wait_s; with "
                "s3Mode: sync, closing saves files.",
                "The workspace is being saved. Nothing ran. Try again later, or tell the user.",
            ),
        }[reason]
        return SandboxUnavailable(message, code=code, op="lease", retryable=True, for_model=for_model)

    # --- release and close ---

    def release(self, key: str, *, discard_unpushed: bool) -> None:
        """Wait, at most ``wait_s``, until no call uses a key's session; delete its sandbox and close the session."""
        slot = run_sync(self._reserve(key, wait_blocking))
        ended = chain([slot], self._take_unclosed(slot.namespace))
        failures = [
            self._end(old, lambda session: session.release(discard_unpushed=discard_unpushed))
            for old in ended
        ]
        raise_first(list(filter(None, failures)))

    async def arelease(self, key: str, *, discard_unpushed: bool) -> None:
        """Delete the sandbox of a key as `release` does. Cancelling this call does not stop a begun deletion."""
        loop = asyncio.get_running_loop()
        self._releasing_loops.append(loop)
        try:
            slot = await self._reserve(key, wait_on_loop)
        finally:
            self._releasing_loops.remove(loop)
        ended = [slot, *self._take_unclosed(slot.namespace)]
        raise_first(
            await self._aend(ended, lambda session: session.arelease(discard_unpushed=discard_unpushed))
        )

    async def _reserve(self, key: str, wait: Wait) -> Slot[S]:
        """Wait until no call uses the slot of a key; mark the slot as closing and return it."""
        namespace, began = namespace_of(key), time.monotonic()
        self._slots.hold(namespace)
        try:
            while True:
                step = self._slots.reserve(key, namespace)
                if step.slot is not None:
                    return step.slot
                await self._wait(step, wait, began, key, namespace)
        finally:
            self._slots.unhold(namespace)

    def close(self) -> None:
        """Close all sessions in parallel, also those in use; later leases are refused."""
        self._end_closings_of_closed_loops()
        to_close, closing = self._slots.close()
        self._unclosed += to_close  # Ctrl-C may come before a thread takes them
        failures: list[WorkspaceError | None] = []
        if unclosed := list(self._unclosed):
            with ThreadPoolExecutor(min(len(unclosed), CLOSE_WORKERS)) as workers:
                # Not `workers.map`: at Ctrl-C, it cancels the closings that have not begun.
                closings = [workers.submit(self._close_unclosed, slot) for slot in unclosed]
                failures = [closing.result() for closing in closings]
        if not self._closes_on_this_loop():
            futures.wait([slot.closed for slot in closing], timeout=CLOSE_WAITS_S)
        raise_first(list(filter(None, failures)))

    async def aclose(self) -> None:
        """Close all sessions as `close` does. If this call is cancelled, the closing goes on."""
        self._end_closings_of_closed_loops()
        to_close, closing = self._slots.close()
        to_close += self._take_unclosed()
        failures = await self._aend(to_close, lambda session: session.aclose())
        for slot in closing:
            await wait_on_loop(slot.closed, CLOSE_WAITS_S)
        raise_first(failures)

    def _close_soon(self, slots: Sequence[Slot[S]]) -> None:
        """Close each slot in a new thread, so that no call waits for the deletion of another workspace's sandbox."""
        for slot in slots:
            thread = threading.Thread(target=self._close, args=(slot,), name="langchain-daytona-ws-close")
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter exits
                self._close(slot)

    def _close(self, slot: Slot[S]) -> WorkspaceError | None:
        return self._end(slot, lambda session: session.close())

    def _close_unclosed(self, slot: Slot[S]) -> WorkspaceError | None:
        return self._close(slot) if self._take(slot) else None

    def _end(self, slot: Slot[S], end: Callable[[S], None]) -> WorkspaceError | None:
        """Close or release a session; return the failure, which is already logged."""
        record = self._recorder(slot)
        try:
            end(slot.value)
        except BaseException as error:
            record(error)
            if isinstance(error, WorkspaceError):
                return error
            raise
        record(None)
        return None

    async def _aend(
        self, slots: Sequence[Slot[S]], end: Callable[[S], Coroutine[Any, Any, None]]
    ) -> list[WorkspaceError]:
        """Close or release sessions in parallel, even if this call is cancelled; return the failures."""
        tasks = [self._start(slot, end(slot.value)) for slot in slots]
        if tasks:
            await asyncio.wait(tasks)
        failures = []
        for task in tasks:
            try:
                task.result()
            except WorkspaceError as error:
                failures.append(error)
        return failures

    def _start(self, slot: Slot[S], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        record = self._recorder(slot)
        task = asyncio.create_task(work)
        self._closing_tasks[task] = record
        # Not a part of `work`: the end of the event loop may cancel the task before its first step.
        task.add_done_callback(self._end_closing)
        return task

    def _end_closing(self, task: asyncio.Task[None]) -> None:
        record = self._closing_tasks.pop(task, None)
        if record is not None:
            ended = task.done() and not task.cancelled()
            record(task.exception() if ended else asyncio.CancelledError())

    def _end_closings_of_closed_loops(self) -> None:
        """Record the end of the closings whose event loop was closed without cancelling its tasks."""
        for task in list(self._closing_tasks):
            if task.get_loop().is_closed():
                self._end_closing(task)

    def _recorder(self, slot: Slot[S]) -> _Record:
        """Return a function that records and reports the end of a closing that begins now, with its error."""
        began, sandbox_id = time.monotonic(), slot.value.sandbox_id

        def record(error: BaseException | None) -> None:
            failure = error if isinstance(error, WorkspaceError) else None
            if error is not None:  # a failure, Ctrl-C, or the end of the event loop
                self._unclosed.append(slot)
            if isinstance(error, Exception):
                cause = failure.message if failure else type(error).__name__
                logger.warning("could not close the session of workspace %s: %s", slot.namespace, cause)
            self._slots.record_closed(slot)
            self._report(
                "close",
                slot.key,
                slot.namespace,
                duration_s=time.monotonic() - began,
                sandbox_id=sandbox_id,
                error=failure,
            )

        return record

    def _take_unclosed(self, namespace: str | None = None) -> Iterator[Slot[S]]:
        """Return the slots of a namespace (None: all slots) in `_unclosed`; remove each when the caller reaches it."""
        unclosed = [slot for slot in self._unclosed if namespace in (None, slot.namespace)]
        return (slot for slot in unclosed if self._take(slot))

    def _take(self, slot: Slot[S]) -> bool:
        """Remove a slot from `_unclosed`; return False if another thread has taken it."""
        try:
            self._unclosed.remove(slot)
        except ValueError:
            return False
        return True

    # --- reports ---

    def report_created(self, key: str, namespace: str, info: SandboxInfo, duration_s: float) -> None:
        self._report("create", key, namespace, duration_s=duration_s, sandbox_id=info.id)

    def _report(
        self,
        kind: EventKind,
        key: str,
        namespace: str,
        *,
        duration_s: float = 0.0,
        sandbox_id: str | None = None,
        error: WorkspaceError | None = None,
    ) -> None:
        if self._on_event is None:
            return
        event = PoolEvent(kind, key, namespace, duration_s, sandbox_id, len(self), self.in_use, error)
        try:
            self._on_event(event)
        except Exception:
            logger.exception("on_event of the WorkspacePool failed for %s", kind)


class Lease(Generic[S]):
    """The use of a pool's session, as a sync or async context manager.

    Raises:
        ConfigError: The key is empty, or is not a string.
    """

    def __init__(self, sessions: PoolSessions[S], key: str) -> None:
        self._sessions = sessions
        self._key = key
        self._namespace = namespace_of(key)
        self._slots: list[Slot[S]] = []

    def __enter__(self) -> S:
        slot = run_sync(self._sessions.acquire(self._key, self._namespace, wait_blocking))
        self._slots.append(slot)
        return slot.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.end_lease(self._slots.pop())

    async def __aenter__(self) -> S:
        slot = await self._sessions.acquire(self._key, self._namespace, wait_on_loop)
        self._slots.append(slot)
        return slot.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.end_lease(self._slots.pop())
