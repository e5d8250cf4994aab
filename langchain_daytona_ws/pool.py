"""`WorkspacePool`: one session for each thread or user of a server, behind one set of tools."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.jobs.models import Job
from langchain_daytona_ws._core.ports import SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._pool.run_key import RunKey, check_key, key_of
from langchain_daytona_ws._pool.slots import Slot, Slots, Step
from langchain_daytona_ws._session.sandbox_manager import CLOSE_WAITS_S
from langchain_daytona_ws._session.single_flight import (
    Wait,
    WouldDeadlock,
    running_loop,
    wait_blocking,
    wait_on_loop,
)
from langchain_daytona_ws.config import SandboxConfig, namespace_of
from langchain_daytona_ws.errors import ConfigError, SandboxUnavailable, WorkspaceError
from langchain_daytona_ws.permissions import Approver
from langchain_daytona_ws.session import WorkspaceSession, weak_method

logger = logging.getLogger("langchain_daytona_ws")

IDLE_CLOSE_S = 900.0
MAX_SESSIONS = 100
WAIT_S = 60.0
CLOSE_WORKERS = 32

_Slot: TypeAlias = Slot[WorkspaceSession]


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """A change in a `WorkspacePool`, for logs and metrics.

    Args:
        kind: ``open``: a session was opened; no sandbox is needed yet. ``create``: a sandbox was created for it.
            ``close``: a session was closed or released. ``wait``: a call has waited for a session. ``refuse``: a call
            got no session.
        key: The key of the workspace.
        namespace: Its namespace.
        duration_s: Seconds that the creation, the closing or the wait took; 0 for ``open``.
        sandbox_id: The sandbox; None if there is none.
        sessions: How many sessions are open now.
        in_use: How many of them are in use now.
        error: Why closing failed, or why the call was refused; else None.
    """

    kind: Literal["open", "create", "close", "wait", "refuse"]
    key: str
    namespace: str
    duration_s: float
    sandbox_id: str | None
    sessions: int
    in_use: int
    error: WorkspaceError | None = None


class WorkspacePool:
    """A session for each thread or user, for a graph that is compiled once and serves all of them.

    ``WorkspaceToolkit(pool=pool)``, the tools and `WorkspaceBackend` use it in place of a session: each call uses the
    session of its run. A session is opened at the first use. A pool may be shared between threads and event loops.

    Any string is a key: `namespace_of` returns its namespace. A client that runs a graph with a key can read and
    change the files of that workspace. So a key must come from what your server has authenticated: ``"thread"`` if the
    server allows each client its own threads only, ``"user"`` for the user of LangGraph's authentication. Other values
    of ``configurable`` may be set by the client.

    Put `lifespan` into the app of your server, or use the pool as a context manager, sync or async. It closes all
    sessions at the end; entering it again reopens it.

    Args:
        config: A `SandboxConfig`, or its JSON as a dict, for all sessions.
        key: ``"thread"``, the graph's thread id; ``"user"``, the ``identity`` of the user that a LangGraph server has
            authenticated; or a function that takes the `RunnableConfig` and returns the key. It must not block. A run
            without a key is refused: the model gets an error, and the log a warning. Default: ``"thread"``.
        approver: As in `WorkspaceSession`, for each session. The request has the namespace of the workspace.
        approval_timeout_s: As in `WorkspaceSession`.
        on_job_done: As in `WorkspaceSession`, for each session.
        idle_close_s: Seconds after which an unused session is closed; its ephemeral sandbox is deleted. The pool checks
            this at each use of a session, without a background thread; Daytona's auto-stop ends the sandboxes of an
            idle process. A session whose ephemeral sandbox runs a background job is not closed before the job's time is
            over. None for no limit. Default: 15 minutes.
        max_sessions: Limit of open sessions. If it is reached, the least recently used session is closed. If all are
            in use, a call waits for ``wait_s``. Default: 100.
        wait_s: Seconds that a call waits for a session, also while the earlier session of its key is being closed; then
            the call is refused with `SandboxUnavailable`. Default: 60.
        on_event: Called with a `PoolEvent`, in the thread where it happens. It must not block; its errors are logged.
        clock: The time of the pool and its sessions. Default: this machine's.

    Raises:
        ConfigError: The configuration or an argument is invalid.
    """

    def __init__(
        self,
        config: SandboxConfig | dict[str, Any],
        *,
        key: RunKey = "thread",
        approver: Approver | None = None,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
        on_job_done: Callable[[Job], object] | None = None,
        idle_close_s: float | None = IDLE_CLOSE_S,
        max_sessions: int = MAX_SESSIONS,
        wait_s: float = WAIT_S,
        on_event: Callable[[PoolEvent], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_key(key)
        _check_number("idle_close_s", idle_close_s, may_be_none=True)
        _check_number("max_sessions", max_sessions, least=1)
        _check_number("wait_s", wait_s)
        self.config = config if isinstance(config, SandboxConfig) else SandboxConfig.model_validate(config)
        self._key = key
        self._session_arguments: dict[str, Any] = {
            "approver": approver,
            "approval_timeout_s": approval_timeout_s,
            "on_job_done": on_job_done,
            "clock": clock,
        }
        self._arguments = {
            **self._session_arguments,
            "key": key,
            "idle_close_s": idle_close_s,
            "max_sessions": max_sessions,
            "wait_s": wait_s,
            "on_event": on_event,
        }
        self._wait_s = wait_s
        self._on_event = on_event
        # This session gets no sandbox. Making it validates the configuration now, and it has the facts that are the
        # same for all sessions.
        self._example = self._new_session("example", "example")
        self._slots: Slots[WorkspaceSession] = Slots(
            self._new_session,
            most=max_sessions,
            idle_s=idle_close_s,
            now=clock.monotonic,
            is_ended=lambda session: session._is_closed,
            is_busy=lambda session: session._runs_jobs(),
        )
        # Slots whose closing has failed: the sandbox could not be deleted, or the files could not be saved.
        self._unclosed: list[_Slot] = []
        self._closing: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"WorkspacePool(sessions={len(self._slots)}, in_use={self._slots.in_use})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a pool over persistent sandboxes: unpickled elsewhere, it finds the same sandboxes.

        The same holds as for a `WorkspaceSession`. Open sessions are not pickled.
        """
        if not self.config.persistent:
            raise TypeError(
                "a WorkspacePool over ephemeral sandboxes cannot be pickled: the copy would have other sandboxes for "
                "the same keys; set persistent: true in the configuration"
            )
        return _rebuilt, (self.config, self._arguments)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same pool: copies of a tool share its sessions."""
        return self

    def session(self, key: str) -> SessionLease:
        """Return a context manager, sync and async, for the session of a key.

        The session is opened if necessary. Inside the block it is in use, and is not closed for other keys. Do not
        close it yourself.

        Args:
            key: Any string that is not empty.

        Raises:
            ConfigError: The key is empty, or is not a string.
            SandboxUnavailable: After ``wait_s``, all sessions are still in use (``pool_full``), or the earlier session
                of this key is still being closed (``pool_closing``); raised on entering.
            SessionClosed: The pool is closed; raised on entering.
        """
        return SessionLease(self, key, namespace_of(key))

    def _lease(self, run: Mapping[str, Any] | None) -> SessionLease:
        """Return the lease of a run's session."""
        return self.session(key_of(self._key, run))

    def _namespace_of(self, run: Mapping[str, Any] | None) -> str:
        """Return the namespace for a run."""
        return namespace_of(key_of(self._key, run))

    def guidance(self) -> str:
        """Return a short list of facts about the workspaces, for an agent's system prompt."""
        return self._example.guidance()

    def interrupt_on(self) -> dict[str, Any]:
        """Return the calls that LangChain's ``HumanInTheLoopMiddleware`` must ask about.

        See `WorkspaceSession.interrupt_on`. The pool needs ``approver=MiddlewareApprover()``.

        Raises:
            ConfigError: The pool has another approver, or none.
        """
        if self.config.permission_mode == "bypass":
            return {}
        approver = self._example._middleware_approver()
        return approver.interrupt_on(self.config.permission_mode, self._current_namespace)

    def _current_namespace(self) -> str:
        """Return the namespace of the run that the caller is part of; empty for a run without a key."""
        from langchain_core.runnables.config import ensure_config

        try:
            return self._namespace_of(ensure_config())
        except ConfigError:
            return ""  # the tool refuses the call

    def release(self, key: str, *, discard_unpushed: bool = False) -> None:
        """Delete the sandbox of a key, also a persistent sandbox that this process has not used, and close its session.

        Call it when a thread or user was deleted. The files on the sandbox's own disk are lost; the files of an S3
        workspace stay in the bucket. Calls that use the session are waited for.

        Args:
            key: The key.
            discard_unpushed: As in `WorkspaceSession.release`.

        Raises:
            SandboxUnavailable: The session is still in use after ``wait_s`` (``pool_in_use``), or the sandbox could not
                be deleted.
            ProvisionError, UnpushedFiles: As `WorkspaceSession.release` raises.
            SessionClosed: The pool is closed.
        """
        slot = run_sync(self._reserve(key, wait_blocking))
        failures = []
        for ended in [slot, *self._take_unclosed(slot.namespace)]:
            try:
                with self._ending(ended):
                    ended.value.release(discard_unpushed=discard_unpushed)
            except WorkspaceError as error:
                failures.append(error)
        _raise_first(failures)

    async def arelease(self, key: str, *, discard_unpushed: bool = False) -> None:
        """Delete the sandbox of a key as `release` does. If this call is cancelled, the deletion goes on."""
        slot = await self._reserve(key, wait_on_loop)

        async def work() -> list[WorkspaceError]:
            failures = []
            for ended in [slot, *self._take_unclosed(slot.namespace)]:
                try:
                    with self._ending(ended):
                        await ended.value.arelease(discard_unpushed=discard_unpushed)
                except WorkspaceError as error:
                    failures.append(error)
            return failures

        _raise_first(await self._shielded(work()))

    def close(self) -> None:
        """Close all sessions in parallel, also those in use; later calls are refused.

        Raises:
            WorkspaceError: The first failure, see `WorkspaceSession.close`; all are logged. This method may be called
                again.
        """
        to_close, closing = self._slots.close()
        to_close += self._take_unclosed()
        failures: list[WorkspaceError | None] = []
        if to_close:
            with ThreadPoolExecutor(min(len(to_close), CLOSE_WORKERS)) as workers:
                failures += workers.map(self._close, to_close)
        futures.wait([slot.closed for slot in closing], timeout=CLOSE_WAITS_S)
        _raise_first(failures)

    async def aclose(self) -> None:
        """Close all sessions as `close` does. If this call is cancelled, the closing goes on."""
        to_close, closing = self._slots.close()
        to_close += self._take_unclosed()
        failures = await self._shielded(_gather([self._aclose(slot) for slot in to_close]))
        for slot in closing:
            await wait_on_loop(slot.closed, CLOSE_WAITS_S)
        _raise_first(failures)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Close all sessions when a server ends: ``Starlette(lifespan=pool.lifespan)``, or FastAPI, or `http.app`.

        Args:
            app: Ignored; servers pass their app.
        """
        async with self:
            yield

    def __enter__(self) -> Self:
        self._slots.reopen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except WorkspaceError:  # `close` has logged it
            if error is None:
                raise

    async def __aenter__(self) -> Self:
        self._slots.reopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except WorkspaceError:  # `aclose` has logged it
            if error is None:
                raise

    # --- leases ---

    async def _acquire(self, key: str, namespace: str, wait: Wait) -> _Slot:
        """Return the slot of a key, leased."""
        ticket, began = object(), time.monotonic()
        waited = False
        try:
            while True:
                step = self._slots.lease(key, namespace, ticket)
                self._close_soon(step)
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
            self._end(step.slot)
            raise
        return step.slot

    async def _reserve(self, key: str, wait: Wait) -> _Slot:
        """Return the slot of a key for closing, after all its leases have ended."""
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

    async def _wait(
        self, step: Step[WorkspaceSession], wait: Wait, began: float, key: str, namespace: str
    ) -> None:
        """Wait until another attempt may succeed.

        Raises:
            SandboxUnavailable: The time is over, or waiting would block the event loop that must end the wait.
        """
        left_s = began + self._wait_s - time.monotonic()
        error: SandboxUnavailable | None = None
        if left_s <= 0:
            error = self._refusal(step.reason)
        elif wait is wait_blocking and self._needs_this_loop(step):
            doing = "closing the session" if step.reason == "closing" else "using all sessions of the pool"
            error = WouldDeadlock(doing, "lease")
        if error is not None:
            self._report("refuse", key, namespace, duration_s=time.monotonic() - began, error=error)
            raise error
        await wait(step.changed, left_s)

    def _needs_this_loop(self, step: Step[WorkspaceSession]) -> bool:
        """Return whether the event loop of this thread may have to run before the caller can get a slot."""
        loop = running_loop()
        if step.reason != "closing":
            return loop is not None
        return any(task.get_loop() is loop for task in list(self._closing))

    def _refusal(self, reason: str) -> SandboxUnavailable:
        waited = f"after {self._wait_s:g} s"
        code, message, for_model = {
            "full": (
                "pool_full",
                f"All {len(self._slots)} sessions of the pool are in use {waited}, by calls or by background jobs. "
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

    def _end(self, slot: _Slot) -> None:
        """End a lease."""
        self._close_soon(Step(to_close=self._slots.end(slot)))

    # --- opening and closing ---

    def _new_session(self, key: str, namespace: str) -> WorkspaceSession:
        session = WorkspaceSession(self.config, namespace=namespace, **self._session_arguments)
        session._state.sandboxes.on_created = partial(weak_method(self._report_created), key, namespace)
        return session

    def _report_created(self, key: str, namespace: str, info: SandboxInfo, duration_s: float) -> None:
        self._report("create", key, namespace, duration_s=duration_s, sandbox_id=info.id)

    def _close_soon(self, step: Step[WorkspaceSession]) -> None:
        """Close slots in threads of their own, so that no call waits for the deletion of another's sandbox."""
        for slot in step.to_close:
            thread = threading.Thread(target=self._close, args=(slot,), name="langchain-daytona-ws-close")
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter exits
                self._close(slot)

    def _close(self, slot: _Slot) -> WorkspaceError | None:
        """Close a session; return the failure, which is logged."""
        try:
            with self._ending(slot):
                slot.value.close()
        except WorkspaceError as error:
            return error
        return None

    async def _aclose(self, slot: _Slot) -> WorkspaceError | None:
        try:
            with self._ending(slot):
                await slot.value.aclose()
        except WorkspaceError as error:
            return error
        return None

    @contextmanager
    def _ending(self, slot: _Slot) -> Iterator[None]:
        """Record that the block has closed a slot, with its failure if it has one."""
        began, sandbox_id = time.monotonic(), slot.value.sandbox_id
        failure: WorkspaceError | None = None
        try:
            yield
        except WorkspaceError as error:
            failure = error
            self._unclosed.append(slot)
            logger.warning("closing the session of workspace %s: %s", slot.namespace, error.message)
            raise
        except BaseException:  # the event loop ended, or Ctrl-C
            self._unclosed.append(slot)
            raise
        finally:
            self._slots.done(slot)
            self._report(
                "close",
                slot.key,
                slot.namespace,
                duration_s=time.monotonic() - began,
                sandbox_id=sandbox_id,
                error=failure,
            )

    def _take_unclosed(self, namespace: str | None = None) -> list[_Slot]:
        """Return the sessions whose closing has failed, of all namespaces or of one, to try again."""
        taken = [slot for slot in list(self._unclosed) if namespace in (None, slot.namespace)]
        for slot in taken:
            with suppress(ValueError):  # another thread has taken it
                self._unclosed.remove(slot)
        return taken

    async def _shielded(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run work to its end, even if this call is cancelled."""
        task = asyncio.create_task(work)
        self._closing.add(task)  # an event loop holds only weak references to its tasks
        task.add_done_callback(self._closing.discard)
        return await asyncio.shield(task)

    # --- reports ---

    def _report(
        self,
        kind: Literal["open", "create", "close", "wait", "refuse"],
        key: str,
        namespace: str,
        *,
        duration_s: float = 0.0,
        sandbox_id: str | None = None,
        error: WorkspaceError | None = None,
    ) -> None:
        if self._on_event is None:
            return
        event = PoolEvent(
            kind, key, namespace, duration_s, sandbox_id, len(self._slots), self._slots.in_use, error
        )
        try:
            self._on_event(event)
        except Exception:
            logger.exception("on_event of the WorkspacePool failed for %s", kind)


class SessionLease:
    """The use of a pool's session, as a sync or async context manager; returned by `WorkspacePool.session`."""

    def __init__(self, pool: WorkspacePool, key: str, namespace: str) -> None:
        self._pool = pool
        self._key = key
        self._namespace = namespace
        self._slots: list[_Slot] = []

    def __enter__(self) -> WorkspaceSession:
        slot = run_sync(self._pool._acquire(self._key, self._namespace, wait_blocking))
        self._slots.append(slot)
        return slot.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool._end(self._slots.pop())

    async def __aenter__(self) -> WorkspaceSession:
        slot = await self._pool._acquire(self._key, self._namespace, wait_on_loop)
        self._slots.append(slot)
        return slot.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool._end(self._slots.pop())


async def _gather(work: list[Coroutine[Any, Any, WorkspaceError | None]]) -> list[WorkspaceError | None]:
    return list(await asyncio.gather(*work))


def _rebuilt(config: SandboxConfig, arguments: dict[str, Any]) -> WorkspacePool:
    return WorkspacePool(config, **arguments)


def _raise_first(failures: Sequence[WorkspaceError | None]) -> None:
    failed = [failure for failure in failures if failure is not None]
    if failed:
        for other in failed[1:]:
            failed[0].add_note(f"Also: {other.message}")
        raise failed[0]


def _check_number(name: str, value: object, *, least: float = 0, may_be_none: bool = False) -> None:
    if value is None and may_be_none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf
    if not is_number:
        none = ", or None for no limit" if may_be_none else ""
        raise ConfigError(f"{name} must be a number of at least {least:g}{none}, not {value!r}")
