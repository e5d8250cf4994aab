"""Manage the session's sandbox: provision it once for all threads and loops, and delete it at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent import futures
from contextlib import suppress
from typing import Any, Protocol

from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.ports import PortFault, SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._core.sandbox.get_or_create import RESTARTED_NOTICE, find, get_or_create
from langchain_daytona_ws._core.sandbox.specification import EPHEMERAL_STOP_MINUTES, SYNC_LABEL
from langchain_daytona_ws._core.sync.push import PUSH_LIMIT_S, unpushed_error
from langchain_daytona_ws._core.sync.report import SyncReport
from langchain_daytona_ws._session import process_end
from langchain_daytona_ws._session.clients import DaytonaClients
from langchain_daytona_ws._session.single_flight import RunOnce, SingleFlight, on_a_loop
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import (
    ProvisionError,
    SandboxUnavailable,
    SessionClosed,
    UnpushedFiles,
    WorkspaceError,
)

logger = logging.getLogger("langchain_daytona_ws")

# Maximum wait at the close: longer than all attempts to delete one sandbox, including their request time-outs.
CLOSE_WAITS_S = 120.0
# Maximum number of times that the hooks run: they run again if the sandbox was stopped or lost meanwhile.
SET_UPS_MAX = 4

# At the end of the process: maximum wait for another thread that creates the sandbox.
END_CREATION_S = 2.0
# At the end of the process: seconds that the last push leaves for the requests after it.
END_AFTER_PUSH_S = 3.0
# Auto-delete interval of a sandbox with unpushed files. Its time to live may be shorter.
KEEP_MINUTES = 24 * 60

Work = Callable[[], Coroutine[Any, Any, None]]


class LastPush(Protocol):
    """Push (save to S3) the files of a sandbox that may be deleted afterwards; see `_Runtime.last_push`."""

    async def __call__(
        self, info: SandboxInfo, *, limit_s: float, starts_if_stopped: bool
    ) -> SyncReport | None: ...


class SandboxManager:
    """The one sandbox of a session, with a sync and an async client.

    Args:
        spec: Returns the specification of the sandbox. A persistent sandbox is found by the specification's name.
        on_lost: Called when the sandbox was lost or replaced.
        add_notice: Adds a notice to the next result.
    """

    def __init__(
        self,
        config: SandboxConfig,
        spec: Callable[[], SandboxSpec],
        *,
        on_lost: Callable[[], None],
        add_notice: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._config = config
        self._spec = spec
        self._on_lost = on_lost
        self._add_notice = add_notice
        self._flight: SingleFlight[SandboxInfo] = SingleFlight("provisioning the sandbox", "create")
        self._set_up: SingleFlight[int] = SingleFlight("setting up the sandbox", "create")
        self.starts = 0  # number of known restarts and losses of the sandbox
        self._reached = False  # Daytona has returned a sandbox to this session before
        self._last_id = ""  # id of the persistent sandbox that was acquired last
        self._namespace = ""  # set when an ephemeral sandbox is created
        self._name = ""  # name of the ephemeral sandbox that is being created or used
        self._undeleted: list[str] = []  # ids and names of sandboxes that must still be deleted
        self._closed = False
        self._released = False
        self._push: LastPush | None = None  # None unless the workspace is synchronised
        self._apush: LastPush | None = None
        self._is_saved = False  # the last push has succeeded, or none is needed
        self.is_persistent = config.persistent
        self.is_kept = False  # the sandbox has unpushed files, and the caller got `UnpushedFiles`
        self._lock = threading.RLock()  # reentrant, for the garbage collector: see `SingleFlight`
        # Gets the sandbox and the seconds that its creation took.
        self.on_created: Callable[[SandboxInfo, float], object] | None = None
        self.clients = DaytonaClients(config, clock)

    def set_last_pushes(self, push: LastPush, apush: LastPush) -> None:
        """Set the functions that push files before the sandbox is deleted, for sync and for async calls."""
        self._push, self._apush = push, apush

    @property
    def info(self) -> SandboxInfo | None:
        """The sandbox; None before it is provisioned, and after it was lost or deleted."""
        return self._flight.value

    @property
    def sandbox_id(self) -> str | None:
        info = self._flight.value
        return info.id if info else None

    @property
    def name(self) -> str:
        """For the log: the sandbox's name, even before it is created; otherwise the sandboxes to delete."""
        return self._name or ", ".join(self._undeleted)

    @property
    def is_closed(self) -> bool:
        """Whether the session was closed or garbage-collected."""
        return self._closed

    @property
    def workspace(self) -> tuple[str, object]:
        """The namespace and the account, which together identify a workspace that is not in S3."""
        return self._namespace, self.clients.account()

    def may_exist(self) -> bool:
        return self.info is not None or self.is_persistent

    async def acquire(self, run_once: RunOnce, api: Callable[[], Awaitable[SandboxPort]]) -> SandboxInfo:
        """Return the sandbox; create, find or start it first if necessary."""
        self.check_open()
        ready = self._flight.value  # if it is set, no client is needed
        return await run_once(self._flight, lambda: self._provision(api)) if ready is None else ready

    async def set_up(self, run_once: RunOnce, work: Work) -> None:
        """Run work once after each start of the sandbox."""
        await run_once(self._set_up, lambda: self._run_set_up(work))

    async def _provision(self, api: Callable[[], Awaitable[SandboxPort]]) -> SandboxInfo:
        port = await api()
        organization_id, began = self._config.options.organization_id, port.now()
        if self.is_persistent:
            return await self._get_or_create(port, organization_id)
        spec = self._spec()
        self._namespace = spec.labels["namespace"]
        self._record_abandoned()
        with self._lock:
            self._name = spec.name
            process_end.add(self)
        try:
            info = await lifecycle.provision(
                port,
                spec,
                organization_id=organization_id,
                on_left=self._record_left,
                on_gone=self._record_gone,
                reached_before=self._reached,
            )
            self._reached = True
            if not self._closed:
                await self._end_creation(port, info, port.now() - began)
            if self._closed:
                self._delete_later(info.id)
                await port.finish(self._discard_quietly(port, info.id), within_s=CLOSE_WAITS_S)
                self.check_open()
        except BaseException:
            self._unregister(spec.name)
            raise
        return info

    def _record_left(self, name: str) -> None:
        """Record the sandbox of a failed creation, which may exist. `_record_abandoned` may have recorded it."""
        if name == self._name:
            self._delete_later(name)

    def _record_abandoned(self) -> None:
        """Record the sandbox of a creation that never ends, because its event loop was closed: it must be deleted."""
        if process_end.is_owned_here(self) and (name := self._name):
            self._delete_later(name)
            self._unregister(name)

    async def _end_creation(self, port: SandboxPort, info: SandboxInfo, duration_s: float) -> None:
        """Report a new sandbox, and delete recorded sandboxes. No caller has the new sandbox yet."""
        try:
            self._warn_of_another()
            self._report_created(info, duration_s)
            for error in await self._delete_recorded(port):
                logger.warning("%s", error)
        except BaseException:  # for example, the call was cancelled: the next call creates another sandbox
            self._delete_later(info.id)
            raise

    def _warn_of_another(self) -> None:
        """Warn if another session of this process has a sandbox for the same workspace, and the two share no files."""
        if self._config.options.workspace_bucket_name is not None:
            return
        others = [
            other for other in process_end.to_delete_here() if other is not self and not other.is_closed
        ]
        if any(other.workspace == self.workspace for other in others):
            logger.warning(
                "The workspace %s is open in two sessions of this process. Each has its own sandbox and its own files. "
                "Use one session for both, set persistent: true, or close the first session.",
                self._namespace,
            )

    async def _get_or_create(self, port: SandboxPort, organization_id: str | None) -> SandboxInfo:
        began = port.now()
        acquired = await get_or_create(port, self._spec(), reached_before=self._reached)
        self._reached = True
        try:
            lifecycle.check_organization(acquired.info, organization_id)
        except ProvisionError:
            if acquired.created:
                await lifecycle.discard_quietly(port, acquired.info.id)
            raise
        if self._released:
            # A sync `release` on the thread of an event loop did not wait for this sandbox.
            await port.finish(lifecycle.discard_quietly(port, acquired.info.id), within_s=CLOSE_WAITS_S)
            self.check_open()
        if self._last_id not in ("", acquired.info.id):
            self._on_lost()  # it was replaced, here or by another session
        elif acquired.notice is not None:
            self._add_notice(acquired.notice)
        self._last_id = acquired.info.id
        if acquired.created:
            self._report_created(acquired.info, port.now() - began)
        return acquired.info

    def _report_created(self, info: SandboxInfo, duration_s: float) -> None:
        if self.on_created is not None:
            self.on_created(info, duration_s)

    async def _run_set_up(self, work: Work) -> int:
        """Run the work, and run it again if the sandbox was restarted or lost meanwhile; return `starts`."""
        for _ in range(SET_UPS_MAX):
            starts = self.starts
            await work()
            if starts == self.starts:
                return starts
        raise SandboxUnavailable(
            f"The sandbox was stopped or lost {SET_UPS_MAX} times while onCreate and onResume ran in it; the agent's "
            "command was not run. See whether they end it, and Daytona's status, then try again.",
            code="set_up_interrupted",
            op="execute",
            retryable=True,
            for_model="The machine could not be set up. Nothing ran. Try again later, or tell the user.",
        )

    def _record_start(self) -> None:
        self.starts += 1
        done = self._set_up.value
        if done is not None:
            self._set_up.forget(done)

    def record_loss(self, info: SandboxInfo) -> None:
        """Record that the sandbox is gone; the next `acquire` creates or finds another sandbox."""
        if self._flight.forget(info):
            self._record_start()
            self._unregister(info.name)
            # A persistent sandbox may be recovered. The next `acquire` reports whether it was replaced.
            if not self.is_persistent:
                self._on_lost()

    def record_failure(self, info: SandboxInfo) -> None:
        """Record that the sandbox is unusable.

        An ephemeral sandbox is deleted when the next sandbox is created, or when the session closes: Daytona's
        auto-delete applies only to stopped sandboxes. A persistent sandbox is repaired by the next `acquire`.
        """
        self.record_loss(info)
        if not self.is_persistent:
            self._delete_later(info.id)

    def _delete_later(self, id_or_name: str) -> None:
        with self._lock:
            if id_or_name not in self._undeleted:
                self._undeleted.append(id_or_name)
            process_end.add(self)

    async def _delete_recorded(
        self, port: SandboxPort, *, within_s: float = lifecycle.DELETE_WITHIN_S
    ) -> list[SandboxUnavailable]:
        """Delete recorded sandboxes; return the failures, which the next creation or close repeats.

        Args:
            port: The API.
            within_s: Seconds for which requests are repeated, for all sandboxes together. Each is tried once at least.
        """
        failures, until = [], port.now() + within_s
        for id_or_name in list(self._undeleted):
            try:
                await lifecycle.discard(port, id_or_name, within_s=until - port.now())
            except SandboxUnavailable as error:
                failures.append(error)
                continue
            self._record_gone(id_or_name)
        return failures

    async def _discard_quietly(self, port: SandboxPort, sandbox_id: str) -> None:
        if await lifecycle.discard_quietly(port, sandbox_id):
            self._record_gone(sandbox_id)

    def _record_gone(self, id_or_name: str) -> None:
        with self._lock, suppress(ValueError):  # the other runtime may have removed it
            self._undeleted.remove(id_or_name)
        self._unregister()

    def record_restart(self, since: int) -> None:
        """Record a restart once, even if several calls detect it.

        Args:
            since: `starts` before the call that detected the restart.
        """
        with self._lock:
            is_new = self.starts == since
            if is_new:
                self._record_start()
        if is_new:
            self._add_notice(RESTARTED_NOTICE)

    def check_open(self) -> None:
        """Raise `SessionClosed` if the session was closed."""
        if self._closed:
            raise SessionClosed(
                "This session was closed. Make a new WorkspaceSession.",
                for_model="The workspace session has ended; no more commands or files. Tell the user.",
            )

    def close(self, *, discard_unpushed: bool = False) -> None:
        """Delete an ephemeral sandbox, even if another thread is creating it, and close the sync connections.

        Files of a synchronised workspace are pushed first. This method can be called again after a failure. A forked
        child does not delete its parent's sandbox.

        Args:
            discard_unpushed: True: delete without a push.

        Raises:
            UnpushedFiles: Files are not in S3; the sandbox was not deleted.
            SandboxUnavailable: The sandbox could not be deleted; its auto-stop or its TTL (time to live) will end it.
        """
        self._closed = True
        pending = self._flight.pending
        if pending is not None and not on_a_loop():
            # The thread that creates an ephemeral sandbox finds `_closed` set, and deletes the sandbox.
            futures.wait([pending], timeout=CLOSE_WAITS_S)
        push = None if discard_unpushed else self._push
        try:
            info = self._sandbox_to_close(push)
            if info is not None or self._undeleted:
                run_sync(self._end(self.clients.sync_port(), info, push))
        finally:
            self.clients.close()

    async def aclose(self, *, discard_unpushed: bool = False) -> None:
        """Close as `close` does, and close this loop's connections."""
        self._closed = True
        await self._flight.settled(CLOSE_WAITS_S)
        push = None if discard_unpushed else self._apush
        await self._aclose(push, within_s=CLOSE_WAITS_S, push_s=0.0 if push is None else PUSH_LIMIT_S)

    def abandon(self) -> None:
        """Delete an ephemeral sandbox soon. The garbage collector calls this when it removes the session."""
        self._closed = True
        process_end.end_unreferenced(self)

    async def close_within(self, within_s: float) -> None:
        """Close as `aclose` does, within ``within_s`` seconds, even if another thread creates the sandbox and hangs."""
        until = time.monotonic() + within_s
        self._closed = True
        await self._flight.settled(min(END_CREATION_S, within_s))
        port = await self.clients.async_port()  # may import the SDK, which takes seconds on a busy machine
        if self.info is None and (name := self._name):
            self._delete_later(name)
            sweep = lifecycle.sweep(port, name, self._record_gone)
            await self._finish(port, sweep, name, until - time.monotonic())
        left_s = until - time.monotonic()
        push_s = 0.0 if self._apush is None else max(left_s - END_AFTER_PUSH_S, 0.0)
        await self._aclose(self._apush, within_s=left_s - push_s, push_s=push_s)
        process_end.remove(self)

    async def _aclose(self, push: LastPush | None, *, within_s: float, push_s: float) -> None:
        """Push within ``push_s`` seconds, delete within ``within_s`` seconds; then close this loop's connections."""
        # The deletion ends a second early, so that the error names the cause instead of "no answer".
        delete_s = min(lifecycle.DELETE_WITHIN_S, max(within_s - 1, 0.0))
        try:
            info = self._sandbox_to_close(push)
            names = ([] if info is None else [info.id]) + self._undeleted
            if names:
                port = await self.clients.async_port()
                work = self._end(port, info, push, limit_s=push_s, delete_s=delete_s)
                await self._finish(port, work, ", ".join(names), within_s + push_s)
        finally:
            await self.clients.aclose()

    def release(self, *, discard_unpushed: bool = False) -> None:
        """Delete the sandbox, even if it is persistent or this session has not used it, and close the session."""
        self._released = True
        self.close(discard_unpushed=discard_unpushed or self.is_persistent)
        if self.is_persistent:
            try:
                run_sync(self._release(self.clients.sync_port(), None if discard_unpushed else self._push))
            finally:
                self.clients.close()

    async def arelease(self, *, discard_unpushed: bool = False) -> None:
        """Release as `release` does, and close this loop's connections."""
        self._closed = self._released = True
        await self._flight.settled(CLOSE_WAITS_S)
        try:
            if self.is_persistent:
                push = None if discard_unpushed else self._apush
                port = await self.clients.async_port()
                name = self._last_id or self._spec().name
                within_s = CLOSE_WAITS_S + (0.0 if push is None else PUSH_LIMIT_S)
                await self._finish(port, self._release(port, push), name, within_s)
        finally:
            await self.aclose(discard_unpushed=discard_unpushed or self.is_persistent)

    def recover(self, info: SandboxInfo, *, deletes: bool) -> SyncReport | None:
        """Push the files of another session's sandbox; start the sandbox first if it is stopped.

        Args:
            info: The sandbox.
            deletes: True: delete the sandbox if all files are in S3.

        Returns:
            The report; None if the sandbox is gone.

        Raises:
            UnpushedFiles: Files are not in S3; the sandbox was not deleted.
            SandboxUnavailable: The sandbox could not be deleted.
        """
        return run_sync(
            self._push_and_delete(
                self.clients.sync_port(), info, self._push, deletes=deletes, starts_if_stopped=True
            )
        )

    def _sandbox_to_close(self, push: LastPush | None) -> SandboxInfo | None:
        """Return the sandbox if closing must push its files or delete it; otherwise None."""
        if self.is_persistent:
            return None if push is None or self._is_saved else self.info
        if self._flight.pending is None and self.info is None:
            self._record_abandoned()
        return self.info if process_end.is_owned_here(self) else None

    async def _end(
        self,
        port: SandboxPort,
        info: SandboxInfo | None,
        push: LastPush | None,
        *,
        limit_s: float = PUSH_LIMIT_S,
        delete_s: float = lifecycle.DELETE_WITHIN_S,
    ) -> None:
        """Push and delete the sandbox, and delete the recorded sandboxes; raise the first failure at the end."""
        failures, until = list[WorkspaceError](), port.now() + delete_s + (0 if push is None else limit_s)
        try:
            if info is not None:
                await self._push_and_delete(port, info, push, limit_s=limit_s, delete_s=delete_s)
        except WorkspaceError as error:
            failures.append(error)
        failures += await self._delete_recorded(port, within_s=until - port.now())
        raise_first(failures)

    async def _push_and_delete(
        self,
        port: SandboxPort,
        info: SandboxInfo,
        push: LastPush | None,
        *,
        deletes: bool | None = None,
        starts_if_stopped: bool | None = None,
        limit_s: float = PUSH_LIMIT_S,
        delete_s: float = lifecycle.DELETE_WITHIN_S,
    ) -> SyncReport | None:
        """Push, then delete the sandbox; keep the sandbox if files are not in S3.

        By default, only an ephemeral sandbox is deleted. A stopped sandbox is started for the push if it is deleted
        afterwards. A failed deletion is repeated for ``delete_s`` seconds.

        Returns:
            The report of the push; None if `push` is None or returned None, see `_Runtime.last_push`.

        Raises:
            UnpushedFiles: Files are not in S3.
            SandboxUnavailable: The sandbox could not be deleted.
        """
        deletes = not self.is_persistent if deletes is None else deletes
        starts_if_stopped = deletes if starts_if_stopped is None else starts_if_stopped
        report = (
            None if push is None else await push(info, limit_s=limit_s, starts_if_stopped=starts_if_stopped)
        )
        if report is not None:
            if not report.is_saved:
                raise await self._keep_unpushed(port, info, report)
            for notice in report.notices:
                logger.warning("last synchronisation of sandbox %s: %s", info.name, notice)
        self._is_saved, self.is_kept = True, False
        if deletes:
            await lifecycle.discard(port, info.id, within_s=delete_s)
            self._record_deletion()
        return report

    async def _keep_unpushed(self, port: SandboxPort, info: SandboxInfo, report: SyncReport) -> UnpushedFiles:
        """Delay the auto-deletion of an ephemeral sandbox with unpushed files; return the error to raise."""
        self.is_kept = True
        fate = "It stays, and the next session saves the files."
        if not self.is_persistent:
            fate = f"It stops {EPHEMERAL_STOP_MINUTES} minutes after its last request, and is deleted within a day."
            try:
                await port.set_autodelete(info.id, KEEP_MINUTES)
            except PortFault as fault:
                fate = (
                    f"It will be deleted {EPHEMERAL_STOP_MINUTES} minutes after its last request, since its "
                    f"auto-delete interval could not be changed: {fault.message}."
                )
        return unpushed_error(
            info,
            report,
            fate=fate,
            for_model="Some files of the workspace could not be saved to its storage. Tell the user.",
        )

    async def _release(self, port: SandboxPort, push: LastPush | None) -> None:
        spec = self._spec()
        found = await find(port, spec)
        if found is None:
            self._record_deletion()
            return
        label = found.labels.get(SYNC_LABEL)
        if push is not None and label is not None and label != spec.labels[SYNC_LABEL]:
            report = SyncReport(failure="configuration", unpushed_count=-1)
            raise await self._keep_unpushed(port, found, report)
        await self._push_and_delete(port, found, None if label is None else push, deletes=True)

    async def _finish(
        self, port: SandboxPort, work: Coroutine[Any, Any, object], id_or_name: str, within_s: float
    ) -> None:
        """Run a push or a deletion, even if this call is cancelled. Raise an error after ``within_s``."""
        within_s = max(within_s, 0.0)
        if not await port.finish(work, within_s=within_s):
            raise lifecycle.not_deleted(id_or_name, f"no answer within {within_s:.0f} s")

    def _record_deletion(self) -> None:
        if (info := self.info) is not None and self._flight.forget(info):
            self._unregister(info.name)

    def _unregister(self, gone: str = "") -> None:
        """Remove this session from the exit handler, unless a sandbox other than ``gone`` must still be deleted."""
        with self._lock:
            if self._name == gone:
                self._name = ""
            if not (self._name or self._undeleted):
                process_end.remove(self)


def raise_first(failures: Sequence[WorkspaceError]) -> None:
    """Raise the first failure, if there is one; add the other failures as notes."""
    for other in failures[1:]:
        failures[0].add_note(f"Also: {other.message}")
    if failures:
        raise failures[0]
