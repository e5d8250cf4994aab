"""The session's machine: provisioned once for all threads and loops, never left behind."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from typing import Any

from langchain_daytona_ws._core import lifecycle
from langchain_daytona_ws._core.claim import RESTARTED_NOTICE, claim, find
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.sources import Clock
from langchain_daytona_ws._session.once import SingleFlight, WouldDeadlock, on_a_loop
from langchain_daytona_ws._session.ports import Ports
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import SandboxUnavailable, SessionClosed, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

# Longer than a deletion is tried for, request time-outs included.
CLOSE_WAITS_S = 120.0
# How often the hooks are begun again since the machine was stopped or lost in their midst.
SET_UPS_MAX = 4

Work = Callable[[], Coroutine[Any, Any, None]]


class Handle:
    """The machine as one kind of caller sees it; see `_core.calls.Machine`."""

    def __init__(
        self,
        acquire: Callable[[], Awaitable[SandboxInfo]],
        set_up: Callable[[Work], Awaitable[None]],
        machine: Machine,
    ) -> None:
        self._acquire = acquire
        self.set_up = set_up
        self.lost = machine.lost
        self.failed = machine.failed
        self.starts = machine.starts
        self.restarted = machine.restarted
        self.check_open = machine.check_open
        self.is_persistent = machine.is_persistent
        self.is_there = machine.is_there
        self.may_exist = machine.may_exist

    async def acquire(self) -> SandboxInfo:
        return await self._acquire()


class Machine:
    """The one sandbox of a session, and the two ways to talk to it.

    Args:
        config: Where and how to create it.
        spec: What to create. That of a persistent one has the name by which it is found.
        on_lost: Called when it was lost, or a new one stands in its place.
        tell: Is told what the next result should say about the machine.
        clock: The session's time.
    """

    def __init__(
        self,
        config: SandboxConfig,
        spec: Callable[[], SandboxSpec],
        *,
        on_lost: Callable[[], None],
        tell: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._config = config
        self.is_persistent = config.persistent
        self._spec = spec
        self._on_lost = on_lost
        self._tell = tell
        self._last_id = ""
        self._reached = False  # whether Daytona has ever answered this session
        self._left: list[str] = []  # ids and names of what is still to be deleted
        self._set_up: SingleFlight[int] = SingleFlight()
        self._starts = 0  # of the machine, as far as this session knows
        self._flight: SingleFlight[SandboxInfo] = SingleFlight()
        self._closed = False
        self._released = False
        self._lock = threading.Lock()
        self.ports = Ports(config, clock)
        self.sync_handle = Handle(self._acquire_here, self._set_up_here, self)
        self.async_handle = Handle(self.aacquire, self._aset_up, self)

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

    def acquire(self) -> SandboxInfo:
        self.check_open()
        try:
            return self._flight.get(lambda: drive(self._provision(self.ports.sync())))
        except WouldDeadlock:
            raise _would_deadlock() from None

    async def _acquire_here(self) -> SandboxInfo:
        return self.acquire()

    async def aacquire(self) -> SandboxInfo:
        self.check_open()
        port = await self.ports.on_loop()
        return await self._flight.aget(lambda: self._provision(port))

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
        had = await claim(port, self._spec(), reached_before=self._reached)
        self._reached = True
        await lifecycle.check_organization(port, had.info, organization_id, made_here=had.created)
        if self._released:
            # The release, on the thread of an event loop, could not wait for this.
            await port.finish(lifecycle.discard_quietly(port, had.info.id), within_s=CLOSE_WAITS_S)
            self.check_open()
        if self._last_id not in ("", had.info.id):
            self._on_lost()  # also where another session has replaced it
        elif had.notice is not None:
            self._tell(had.notice)
        self._last_id = had.info.id
        return had.info

    async def _set_up_here(self, work: Work) -> None:
        try:
            self._set_up.get(lambda: drive(self._worked(work)))
        except WouldDeadlock:
            raise _would_deadlock() from None

    async def _aset_up(self, work: Work) -> None:
        await self._set_up.aget(lambda: self._worked(work))

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
            self._tell(RESTARTED_NOTICE)

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
                drive(self._delete(self.ports.sync(), info.id))
            if self._left:
                drive(self._clear_away(self.ports.sync()))
        finally:
            self.ports.close()

    async def aclose(self) -> None:
        """Do as `close` does, and close this loop's connections."""
        self._closed = True
        await self._flight.settled(CLOSE_WAITS_S)
        info = self.info
        try:
            if info is not None and self._is_ours_to_delete():
                port = await self.ports.on_loop()
                await self._finish(port, self._delete(port, info.id), info.id)
            if self._left:
                port = await self.ports.on_loop()
                await port.finish(self._clear_away(port), within_s=CLOSE_WAITS_S)
        finally:
            await self.ports.aclose()

    def release(self) -> None:
        """Delete the sandbox, persistent or not, also one that this session has not used; and end the session."""
        self._released = True
        self.close()
        if self._config.persistent:
            try:
                drive(self._release(self.ports.sync()))
            finally:
                self.ports.close()

    async def arelease(self) -> None:
        """Do as `release` does, and close this loop's connections."""
        self._closed = self._released = True
        await self._flight.settled(CLOSE_WAITS_S)
        try:
            if self._config.persistent:
                port = await self.ports.on_loop()
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


def _would_deadlock() -> SandboxUnavailable:
    return SandboxUnavailable(
        "A sync call from the thread of an event loop that is just provisioning the sandbox, or setting it up, would "
        "block both for ever. Use the a-form of this method, or call it from another thread.",
        code="would_deadlock",
        op="create",
        retryable=True,
        for_model="The machine is being prepared. Nothing ran. Try again.",
    )


# Machine → process that made it. A forked child must not delete what is its parent's, neither at its exit nor where
# it leaves a ``with`` block that it was forked in; if the parent is gone, auto-stop ends it.
_open_machines: dict[Machine, int] = {}


def _close_at_exit() -> None:
    for machine, pid in list(_open_machines.items()):
        if pid != os.getpid():
            continue
        try:
            machine.close()
        except WorkspaceError as error:
            logger.warning("at exit: %s", error)


def _delete_at_exit(machine: Machine) -> None:
    # Registered only now, when there are connections: what is registered last runs first, so that those who close
    # connections at exit find also the one that the deletion used.
    atexit.unregister(_close_at_exit)
    atexit.register(_close_at_exit)
    _open_machines[machine] = os.getpid()
