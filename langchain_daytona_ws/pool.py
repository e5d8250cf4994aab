"""`WorkspacePool`: one session for each thread (conversation) or user of a server. Tools use a session or a pool."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._lazy import LazyModule
from langchain_daytona_ws._pool.run_key import check_key, key_of
from langchain_daytona_ws._pool.sessions import Lease, PoolEvent, PoolSessions
from langchain_daytona_ws._pool.slots import Slots
from langchain_daytona_ws._session.state import weak_method
from langchain_daytona_ws.config import SandboxConfig, namespace_of
from langchain_daytona_ws.errors import ConfigError, WorkspaceError
from langchain_daytona_ws.permissions import Approver
from langchain_daytona_ws.session import WorkspaceSession

# Imported on first use: most programs never evaluate the annotations.
if TYPE_CHECKING:
    from langchain_core import runnables

    from langchain_daytona_ws._core.jobs import models as job_models
else:
    runnables = LazyModule("langchain_core.runnables")
    job_models = LazyModule("langchain_daytona_ws._core.jobs.models")

IDLE_CLOSE_S = 900.0
MAX_SESSIONS = 100
WAIT_S = 60.0


class SessionLease(Lease[WorkspaceSession]):
    """The use of a pool's session, as a sync or async context manager; returned by `WorkspacePool.session`."""


class WorkspacePool:
    """One session for each thread (conversation) or user, for a graph that is compiled once and serves all of them.

    `WorkspaceToolkit`, the tools and `WorkspaceBackend` accept a pool instead of a session: each call uses the session
    of its run. A session is opened at its first use. A pool may be shared between threads and event loops.

    Each run has a key, any string that is not empty. `namespace_of` returns the namespace of a key. A client that runs
    the graph with a key can read and change the files of the key's workspace. So a key must come from what your server
    has authenticated: ``"thread"`` if the server allows a client only its own threads, ``"user"`` with LangGraph's
    authentication. Clients may set other values of ``configurable`` themselves.

    Put `lifespan` into the app of your server, or use the pool as a context manager, sync or async. Both close all
    sessions at the end; entering the pool again reopens it.

    Args:
        config: A `SandboxConfig`, or its JSON as a dict, for all sessions.
        key: ``"thread"``: the graph's thread id. ``"user"``: the ``identity`` of the user that a LangGraph server has
            authenticated. Or a function that takes the `RunnableConfig` and returns the key, without blocking. A run
            without a key is refused: the model gets an error, and a warning is logged. Default: ``"thread"``.
        approver: As in `WorkspaceSession`, for each session. Its request has the workspace's ``namespace``.
        approval_timeout_s: As in `WorkspaceSession`.
        on_job_done: As in `WorkspaceSession`, for each session.
        idle_close_s: Seconds after which an unused session is closed, and its ephemeral sandbox deleted. None: no
            limit. Default: 15 minutes. There is no background thread: the pool checks all sessions whenever a session
            is used. If no session is used, Daytona's auto-stop ends the sandboxes. A session is not closed while a
            background job runs in its ephemeral sandbox: until a call has found the end of the job, or the job's
            maximum duration has passed.
        max_sessions: Maximum number of open sessions; each call of `release` may open one more. At the limit, the pool
            closes the least recently used session without a call and without such a job. If all sessions have calls or
            jobs, a call that needs a new session waits. Default: 100.
        wait_s: Maximum number of seconds that a call waits for a free session, or until the earlier session of its key
            is closed. Then the call fails with `SandboxUnavailable`. Default: 60.
        on_event: Called with each `PoolEvent`, in the thread that causes the event. It must not block; its errors are
            logged.
        clock: The time of the pool and its sessions, except for ``wait_s``. Default: this machine's clock.

    Raises:
        ConfigError: The configuration or an argument is invalid.
    """

    def __init__(
        self,
        config: SandboxConfig | dict[str, Any],
        *,
        key: Literal["thread", "user"] | Callable[[runnables.RunnableConfig], str] = "thread",
        approver: Approver | None = None,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
        on_job_done: Callable[[job_models.Job], object] | None = None,
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
        # Validates the configuration now, and provides the settings that all sessions share. It never creates a
        # sandbox.
        self._example = self._new_session("example")
        slots: Slots[WorkspaceSession] = Slots(
            self._open,
            max_slots=max_sessions,
            idle_s=idle_close_s,
            now=clock.monotonic,
            is_ended=lambda session: session._state.sandboxes.is_closed,
            is_busy=lambda session: session._state.runs_jobs(),
        )
        self._sessions = PoolSessions(slots, wait_s=wait_s, on_event=on_event)

    def __repr__(self) -> str:
        return f"WorkspacePool(sessions={len(self._sessions)}, in_use={self._sessions.in_use})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a pool with persistent sandboxes. Unpickled elsewhere, it finds the same sandboxes.

        The pickle contains what the pickle of a `WorkspaceSession` contains. Open sessions are not pickled.
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
        """Return a sync and async context manager for the session of a key.

        Entering it opens the session if necessary. Inside the block, only `close` of the pool closes the session; do
        not close the session yourself.

        Args:
            key: Any string that is not empty.

        Raises:
            ConfigError: The key is empty, or is not a string.
            SandboxUnavailable: Raised on entering. After ``wait_s``, all sessions are still in use (``pool_full``), or
                the earlier session of this key is still being closed (``pool_closing``). Or a sync call on an
                event loop's thread would wait for work of this loop (``would_deadlock``).
            SessionClosed: Raised on entering: the pool is closed.
        """
        return SessionLease(self._sessions, key)

    def guidance(self) -> str:
        """Return a short list of facts about the workspaces, for an agent's system prompt."""
        return self._example.guidance()

    def interrupt_on(self) -> dict[str, Any]:
        """Return the calls about which LangChain's ``HumanInTheLoopMiddleware`` must ask.

        See `WorkspaceSession.interrupt_on`. The pool needs ``approver=MiddlewareApprover()``.

        Raises:
            ConfigError: The pool has another approver, or none; not raised in mode ``bypass``.
        """
        if self.config.permission_mode == "bypass":
            return {}
        from langchain_daytona_ws.approvers import middleware_approver

        approver = middleware_approver(self._example._gate.approver)
        return approver.interrupt_on(self.config.permission_mode, partial(current_namespace, self))

    def release(self, key: str, *, discard_unpushed: bool = False) -> None:
        """Delete the sandbox of a key, even if this process has not used it, and close its session.

        Call it when a thread or user is deleted. It first waits, at most ``wait_s``, until no call uses the session.
        The files on the sandbox's own disk are lost; the files of an S3 workspace stay in the bucket.

        Args:
            key: The key of the workspace.
            discard_unpushed: As in `WorkspaceSession.release`.

        Raises:
            ConfigError: The key is empty, or is not a string.
            SandboxUnavailable: After ``wait_s``, the session is still in use (``pool_in_use``) or being closed
                (``pool_closing``). Or a sync call on an event loop's thread would wait for work of this loop
                (``would_deadlock``). Or the sandbox could not be deleted.
            ProvisionError, UnpushedFiles, ConfigError: As `WorkspaceSession.release` raises.
            SessionClosed: The pool is closed.
        """
        self._sessions.release(key, discard_unpushed=discard_unpushed)

    async def arelease(self, key: str, *, discard_unpushed: bool = False) -> None:
        """Delete the sandbox of a key as `release` does. Cancelling this call does not stop a begun deletion."""
        await self._sessions.arelease(key, discard_unpushed=discard_unpushed)

    def close(self) -> None:
        """Close all sessions in parallel, also those in use; later calls are refused.

        Raises:
            WorkspaceError: The first failure, see `WorkspaceSession.close`; all failures are logged. Call this method
                again to try again.
        """
        self._sessions.close()

    async def aclose(self) -> None:
        """Close all sessions as `close` does. If this call is cancelled, the closing goes on."""
        await self._sessions.aclose()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Close all sessions when a server ends.

        Pass it to the app of the server: ``Starlette(lifespan=pool.lifespan)``, ``FastAPI(lifespan=pool.lifespan)``, or
        the app that a LangGraph server loads as ``http.app``.

        Args:
            app: Ignored; servers pass their app.
        """
        async with self:
            yield

    def __enter__(self) -> Self:
        self._sessions.reopen()
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
        self._sessions.reopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except WorkspaceError:  # `aclose` has logged it
            if error is None:
                raise

    def _open(self, key: str, namespace: str) -> WorkspaceSession:
        session = self._new_session(namespace)
        report = partial(weak_method(self._sessions.report_created), key, namespace)
        session._state.sandboxes.on_created = report
        return session

    def _new_session(self, namespace: str) -> WorkspaceSession:
        return WorkspaceSession(self.config, namespace=namespace, **self._session_arguments)


SessionSource: TypeAlias = WorkspaceSession | WorkspacePool
"""The source of each call's session, for the tools and the Deep Agents backend."""


def source_of(session: WorkspaceSession | None, pool: WorkspacePool | None) -> SessionSource:
    """Return the session or the pool, of which exactly one must be given.

    Raises:
        ValueError: Both are given, or neither.
    """
    source = pool if session is None else session
    if source is None or (session is not None and pool is not None):
        raise ValueError("give either session=WorkspaceSession(…) or pool=WorkspacePool(…)")
    return source


def example_of(source: SessionSource) -> WorkspaceSession:
    """Return a session with the settings that all sessions of the source share."""
    return source if isinstance(source, WorkspaceSession) else source._example


def lease_for(
    source: SessionSource, run: Mapping[str, Any] | None
) -> nullcontext[WorkspaceSession] | SessionLease:
    """Return a sync and async context manager that leases the session for a run."""
    if isinstance(source, WorkspaceSession):
        return nullcontext(source)
    return source.session(key_of(source._key, run))


def namespace_for(source: SessionSource, run: Mapping[str, Any] | None) -> str:
    """Return the namespace for a run.

    Raises:
        ConfigError: The run has no key, or the pool's key function failed.
    """
    return (
        source.namespace if isinstance(source, WorkspaceSession) else namespace_of(key_of(source._key, run))
    )


def current_namespace(source: SessionSource) -> str:
    """Return the namespace for the present run; ``""`` for a run without a key."""
    from langchain_core.runnables.config import ensure_config

    try:
        return namespace_for(source, ensure_config())
    except ConfigError:
        return ""  # the tool refuses the call


def _rebuilt(config: SandboxConfig, arguments: dict[str, Any]) -> WorkspacePool:
    return WorkspacePool(config, **arguments)


def _check_number(name: str, value: object, *, least: float = 0, may_be_none: bool = False) -> None:
    if value is None and may_be_none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf
    if not is_number:
        none = ", or None for no limit" if may_be_none else ""
        raise ConfigError(f"{name} must be a number of at least {least:g}{none}, not {value!r}")
