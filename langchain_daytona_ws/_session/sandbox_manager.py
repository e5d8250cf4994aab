"""The session's machine: provisioned once for all threads and loops, never left behind."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from typing import Any

from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._core.sandbox.get_or_create import RESTARTED_NOTICE, find, get_or_create
from langchain_daytona_ws._session.clients import DaytonaClients
from langchain_daytona_ws._session.single_flight import Once, SingleFlight, on_a_loop
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import SandboxUnavailable, SessionClosed, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

# Longer than a deletion is tried for, request time-outs included.
CLOSE_WAITS_S = 120.0
# How often the hooks are begun again since the machine was stopped or lost in their midst.
SET_UPS_MAX = 4

Work = Callable[[], Coroutine[Any, Any, None]]


class SandboxManager:
    """The one sandbox of a session, and the two ways to talk to it.

    Args:
        config: Where and how to create it.
        spec: What to create. That of a persistent one has the name by which it is found.
        on_lost: Called when it was lost, or a new one stands in its place.
        add_notice: Adds a notice to the next result.
        clock: The session's time.
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
        self.is_persistent = config.persistent
        self._spec = spec
        self._on_lost = on_lost
        self._add_notice = add_notice
        self._last_id = ""
        self._reached = False  # whether Daytona has ever answered this session
        self._left: list[str] = []  # ids and names of what is still to be deleted
        self._set_up: SingleFlight[int] = SingleFlight("setting up the sandbox", "create")
        self._starts = 0  # of the machine, as far as this session knows
        self._flight: SingleFlight[SandboxInfo] = SingleFlight("provisioning the sandbox", "create")
        self._closed = False
        self._released = False
        self._lock = threading.Lock()
        self.clients = DaytonaClients(config, clock)

    @property
    def info(self) -> SandboxInfo | None:
        """The sandbox, if there is one now."""
        return self._flight.value

    def is_there(self) -> bool:
        """Tell whether this session has a sandbox now."""
        return self.info is not None

    def may_exist(self) -> bool:
        """Tell whether there can be a sandbox without making one."""
        return self.is_there() or self._config.persistent

    async def acquire(self, once: Once, port: SandboxPort) -> SandboxInfo:
        """Return the sandbox; create, find or start it first if there is none.

        Args:
            once: How the runtime waits.
            port: The runtime's Daytona API.
        """
        self.check_open()
        return await once(self._flight, lambda: self._provision(port))

    async def set_up(self, once: Once, work: Work) -> None:
        """Run work once after each start of the sandbox."""
        await once(self._set_up, lambda: self._worked(work))

    async def _provision(self, port: SandboxPort) -> SandboxInfo:
        organization_id = self._config.options.organization_id
        if self._config.persistent:
            return await self._claim(port, organization_id)
        info = await lifecycle.provision(
            port,
            self._spec(),
            organization_id=organization_id,
            left=self._leave,
            reached_before=self._reached,
        )
        self._reached = True
        if self._closed:
            await port.finish(lifecycle.discard_quietly(port, info.id), within_s=CLOSE_WAITS_S)
            self.check_open()
        _delete_at_exit(self)
        try:
            await self._clear_away(port)
        except SandboxUnavailable as error:
            logger.warning("%s", error)
        return info

    async def _claim(self, port: SandboxPort, organization_id: str | None) -> SandboxInfo:
        had = await get_or_create(port, self._spec(), reached_before=self._reached)
        self._reached = True
        await lifecycle.check_organization(port, had.info, organization_id, made_here=had.created)
        if self._released:
            # The release, on the thread of an event loop, could not wait for this.
            await port.finish(lifecycle.discard_quietly(port, had.info.id), within_s=CLOSE_WAITS_S)
            self.check_open()
        if self._last_id not in ("", had.info.id):
            self._on_lost()  # also where another session has replaced it
        elif had.notice is not None:
            self._add_notice(had.notice)
        self._last_id = had.info.id
        return had.info

    async def _worked(self, work: Work) -> int:
        """Do what is to be done once after each start; again when it was started in the midst of that."""
        for _ in range(SET_UPS_MAX):
            starts = self._starts
            await work()
            if starts == self._starts:
                return starts
        raise SandboxUnavailable(
            f"The sandbox was stopped or lost {SET_UPS_MAX} times while onCreate and onResume ran in it; the agent's "
            "command was not run. See whether they end it, and Daytona's status, then try again.",
            code="set_up_interrupted",
            op="execute",
            retryable=True,
            for_model="The machine could not be set up. Nothing ran. Try again later, or tell the user.",
        )

    def _started_anew(self) -> None:
        self._starts += 1
        done = self._set_up.value
        if done is not None:
            self._set_up.forget(done)

    def lost(self, info: SandboxInfo) -> None:
        """Take note that the sandbox is gone; whoever acquires next makes a new one."""
        if self._flight.forget(info):
            self._started_anew()
            _open_machines.pop(self, None)
            if not self._config.persistent:  # of one that may yet be brought back, the claim knows more
                self._on_lost()

    def failed(self, info: SandboxInfo) -> None:
        """Take note that the sandbox is of no use any more; whoever makes a new one deletes it, or who closes.

        Nobody else would: Daytona's auto-delete is for what is stopped. A persistent one is mended by the next claim.
        """
        self.lost(info)
        if not self._config.persistent:
            self._leave(info.id)

    def _leave(self, id_or_name: str) -> None:
        """Take note of what has to be deleted later."""
        with self._lock:
            if id_or_name not in self._left:
                self._left.append(id_or_name)
        _delete_at_exit(self)

    async def _clear_away(self, port: SandboxPort) -> None:
        """Delete what was left; what cannot be deleted now is tried again when the session is closed."""
        for one in list(self._left):
            await lifecycle.discard(port, one)
            with self._lock, suppress(ValueError):  # another face does the same
                self._left.remove(one)

    def starts(self) -> int:
        """Count the starts of the machine that this session knows of."""
        return self._starts

    def restarted(self, since: int) -> None:
        """Take note that the sandbox had been stopped, and runs again, whichever of several calls finds it so.

        Args:
            since: What `starts` was before the call that found it out.
        """
        with self._lock:
            is_news = self._starts == since
            if is_news:
                self._started_anew()
        if is_news:
            self._add_notice(RESTARTED_NOTICE)

    def check_open(self) -> None:
        """Refuse to go on after the session was closed."""
        if self._closed:
            raise SessionClosed(
                "This session was closed. Make a new WorkspaceSession.",
                for_model="The workspace session has ended; no more commands or files. Tell the user.",
            )

    def close(self) -> None:
        """Delete an ephemeral sandbox, whichever thread is making it, and close the sync face's connections.

        May be called again after a failure. In a forked child it leaves the sandbox to the process that made it.

        Raises:
            SandboxUnavailable: It could not be deleted; its auto-stop and TTL will end it.
        """
        self._closed = True
        pending = self._flight.pending
        if pending is not None and not on_a_loop():
            # Its maker sees the flag and deletes it itself.
            futures.wait([pending], timeout=CLOSE_WAITS_S)
        info = self.info
        try:
            if info is not None and self._is_ours_to_delete():
                run_sync(self._delete(self.clients.sync(), info.id))
            if self._left:
                run_sync(self._clear_away(self.clients.sync()))
        finally:
            self.clients.close()

    async def aclose(self) -> None:
        """Do as `close` does, and close this loop's connections."""
        self._closed = True
        await self._flight.settled(CLOSE_WAITS_S)
        info = self.info
        try:
            if info is not None and self._is_ours_to_delete():
                port = await self.clients.on_loop()
                await self._finish(port, self._delete(port, info.id), info.id)
            if self._left:
                port = await self.clients.on_loop()
                await port.finish(self._clear_away(port), within_s=CLOSE_WAITS_S)
        finally:
            await self.clients.aclose()

    def release(self) -> None:
        """Delete the sandbox, persistent or not, also one that this session has not used; and end the session."""
        self._released = True
        self.close()
        if self._config.persistent:
            try:
                run_sync(self._release(self.clients.sync()))
            finally:
                self.clients.close()

    async def arelease(self) -> None:
        """Do as `release` does, and close this loop's connections."""
        self._closed = self._released = True
        await self._flight.settled(CLOSE_WAITS_S)
        try:
            if self._config.persistent:
                port = await self.clients.on_loop()
                await self._finish(port, self._release(port), self._last_id or self._spec().name)
        finally:
            await self.aclose()

    async def _release(self, port: SandboxPort) -> None:
        spec = self._spec()
        found = await find(port, spec)
        if found is not None:
            await lifecycle.discard(port, found.id)
        self._deleted()

    async def _delete(self, port: SandboxPort, sandbox_id: str) -> None:
        await lifecycle.discard(port, sandbox_id)
        self._deleted()

    async def _finish(self, port: SandboxPort, work: Coroutine[Any, Any, None], id_or_name: str) -> None:
        """Delete it to the end, also when whoever waits here is cancelled."""
        if not await port.finish(work, within_s=CLOSE_WAITS_S):
            raise lifecycle.not_deleted(id_or_name, f"no answer within {CLOSE_WAITS_S:.0f} s")

    def _is_ours_to_delete(self) -> bool:
        return not self._config.persistent and _open_machines.get(self) == os.getpid()

    def _deleted(self) -> None:
        if (info := self.info) is not None:
            self._flight.forget(info)
        _open_machines.pop(self, None)


# SandboxManager → process that made the sandbox. A forked child must not delete its parent's sandbox, neither at exit
# nor when it leaves a ``with`` block that it was forked in. If the parent is gone, auto-stop ends the sandbox.
_open_machines: dict[SandboxManager, int] = {}


def _close_at_exit() -> None:
    for machine, pid in list(_open_machines.items()):
        if pid != os.getpid():
            continue
        try:
            machine.close()
        except WorkspaceError as error:
            logger.warning("at exit: %s", error)


def _delete_at_exit(machine: SandboxManager) -> None:
    # Registered only now, when there are connections: what is registered last runs first, so that those who close
    # connections at exit find also the one that the deletion used.
    atexit.unregister(_close_at_exit)
    atexit.register(_close_at_exit)
    _open_machines[machine] = os.getpid()
