"""`WorkspacePool`: one session for each thread or user of a server. Tools take a pool or a single session alike."""

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
    """A session for each thread or user, for a graph that is compiled once and serves all of them.

    ``WorkspaceToolkit(pool=pool)``, the tools and `WorkspaceBackend` use it in place of a session: each call uses the
    session of its run. A session is opened at the first use. A pool may be shared between threads and event loops.

    Any string that is not empty is a key: `namespace_of` returns its namespace. A client that runs a graph with a key
    can read and change the files of that workspace. So a key must come from what your server has authenticated:
    ``"thread"`` if the server allows each client its own threads only, ``"user"`` for the user of LangGraph's
    authentication. Other values of ``configurable`` may be set by the client.

    Put `lifespan` into the app of your server, or use the pool as a context manager, sync or async. Both close all
    sessions at the end; entering the pool again reopens it.

    Args:
        config: A `SandboxConfig`, or its JSON as a dict, for all sessions.
        key: ``"thread"``, the graph's thread id; ``"user"``, the ``identity`` of the user that a LangGraph server has
            authenticated; or a function that takes the `RunnableConfig` and returns the key. The function must not
            block. A run without a key is refused: the model gets an error, and a warning is logged. Default:
            ``"thread"``.
        approver: As in `WorkspaceSession`, for each session. The request has the namespace of the workspace.
        approval_timeout_s: As in `WorkspaceSession`.
        on_job_done: As in `WorkspaceSession`, for each session.
        idle_close_s: Seconds after which an unused session is closed; its ephemeral sandbox is deleted. There is no
            background thread: the pool checks all sessions whenever one is used. If none is used, Daytona's auto-stop
            ends the sandboxes. If a background job runs in an ephemeral sandbox, the session is not closed before a
            call has found the job's end or the job's maximum duration has passed. None for no limit. Default: 15
            minutes.
        max_sessions: Maximum number of open sessions; a call of `release` may open one more. If another call needs one
            more session, the least recently used session without a call and without such a job is closed. If there
            is no such session, the call waits, at most ``wait_s``. Default: 100.
        wait_s: Maximum number of seconds that a call waits for a session, or until the earlier session of its key is
            closed. Then the call is refused with `SandboxUnavailable`. Default: 60.
        on_event: Called with each `PoolEvent`, in the thread that causes the event. It must not block; its errors are
            logged.
        clock: The time of the pool and its sessions; ``wait_s`` is measured by this machine's clock. Default: this
            machine's.

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
        # This session never creates a sandbox. Making it validates the configuration now. It has the settings that all
        # sessions share.
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
        """Pickle a pool with persistent sandboxes: a pool that is unpickled elsewhere finds the same sandboxes.

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
        """Return a context manager, sync and async, for the session of a key.

        The session is opened if necessary. Inside the block, the session is in use: only `close` of the pool closes it.
        Do not close it yourself.

        Args:
            key: Any string that is not empty.

        Raises:
            ConfigError: The key is empty, or is not a string.
            SandboxUnavailable: After ``wait_s``, all sessions are still in use (``pool_full``), or the earlier session
                of this key is still being closed (``pool_closing``). Or a sync call would wait for work of the
                event loop that it blocks (``would_deadlock``). Raised on entering.
            SessionClosed: The pool is closed; raised on entering.
        """
        return SessionLease(self._sessions, key)

    def guidance(self) -> str:
        """Return a short list of facts about the workspaces, for an agent's system prompt."""
        return self._example.guidance()

    def interrupt_on(self) -> dict[str, Any]:
        """Return for which calls LangChain's ``HumanInTheLoopMiddleware`` must ask.

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

        Call it when a thread or user was deleted. The files on the sandbox's own disk are lost; the files of an S3
        workspace stay in the bucket. This method first waits until no call uses the session.

        Args:
            key: The key.
            discard_unpushed: As in `WorkspaceSession.release`.

        Raises:
            ConfigError: The key is empty, or is not a string.
            SandboxUnavailable: The session is still in use (``pool_in_use``) or being closed (``pool_closing``) after
                ``wait_s``, a sync call would wait for work of the event loop that it blocks (``would_deadlock``), or
                the sandbox could not be deleted.
            ProvisionError, UnpushedFiles: As `WorkspaceSession.release` raises.
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
    """Return the namespace for the run that the caller is part of; empty for a run without a key."""
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
