"""The sandboxes and their changes of state. All of it runs on the server's event loop."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import scratch
from .clock import Clock
from .errors import ApiError
from .faults import Fault, first
from .isolation import Bubblewrap, NoIsolation, Running
from .record import SandboxRecord

CHANGE_IN_PROGRESS = "Sandbox state change in progress"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Deferred:
    due: float
    finish: Callable[[], Awaitable[None]]


class Fleet:
    """Creates, starts, stops and destroys sandboxes, on request and as time passes."""

    def __init__(
        self, isolation: Bubblewrap | NoIsolation, root: Path, clock: Clock, organization_id: str
    ) -> None:
        self._isolation = isolation
        self._root = root
        self._clock = clock
        self._organization_id = organization_id
        self._records: dict[str, SandboxRecord] = {}
        self._deferred: list[_Deferred] = []
        self._sweeping = asyncio.Lock()
        self._closed = False

    # --- looking ---

    def get(self, id_or_name: str) -> SandboxRecord:
        record = self._records.get(id_or_name)
        if record is None:
            record = next((one for one in self._records.values() if one.name == id_or_name), None)
        if record is None:
            raise ApiError(404, f"Sandbox with ID or name {id_or_name} not found")
        return record

    def all(self) -> list[SandboxRecord]:
        """Return every sandbox that is not destroyed, oldest first."""
        return list(self._records.values())

    # --- changes of state ---

    async def create(self, fields: dict[str, Any], faults: Iterable[Fault]) -> SandboxRecord:
        if self._closed:
            raise ApiError(503, "The server is shutting down")
        identifier = str(uuid.uuid4())
        name = fields.pop("name", None) or identifier
        if fields.get("network_block_all") and not self._isolation.blocks_network:
            raise ApiError(400, "networkBlockAll is not enforced by the local server without isolation")
        if any(one.name == name for one in self._records.values()):
            raise ApiError(409, f"Sandbox with name {name} already exists")
        now = self._clock.now()
        record = SandboxRecord(
            id=identifier,
            organization_id=self._organization_id,
            name=name,
            folder=self._root / identifier,
            created_at=now,
            last_activity_at=now,
            updated_at=now,
            **fields,
        )
        self._records[identifier] = record

        def work() -> Running:
            self._isolation.prepare(record.folder, _hostname(identifier))
            return self._start(record)

        await self._change(record, "creating", "started", work, faults)
        return record

    async def start(self, record: SandboxRecord, faults: Iterable[Fault] = ()) -> None:
        self._require_settled(record)
        if record.state == "started":
            return
        if record.state in ("error", "build_failed"):
            raise ApiError(400, f"Sandbox is in an errored state: {record.error_reason or 'unknown reason'}")
        record.last_activity_at = self._clock.now()
        await self._change(
            record,
            "starting",
            "started",
            lambda: self._start(record),
            faults,
        )

    async def stop(self, record: SandboxRecord, faults: Iterable[Fault] = ()) -> None:
        self._require_settled(record)
        if record.state == "stopped":
            return
        if record.state != "started":
            raise ApiError(400, "Sandbox is not started")
        if record.auto_delete_interval == 0:
            await self.destroy(record, faults)
            return
        await self._change(record, "stopping", "stopped", _ending(record), faults)

    async def destroy(
        self, record: SandboxRecord, faults: Iterable[Fault] = (), *, force: bool = False
    ) -> None:
        """Destroy the sandbox with its disk; `force` does so in the midst of another change of state."""
        if not force:
            self._require_settled(record)
        # The name is free from now on, however long the rest takes, and changes once if that has to be repeated.
        if record.desired_state != "destroyed":
            record.name = f"DESTROYED_{record.name}_{secrets.token_hex(4)}"
        end = _ending(record)

        def work() -> None:
            end()
            scratch.remove(record.folder)

        await self._change(record, "destroying", "destroyed", work, faults)

    async def crash(self, record: SandboxRecord) -> None:
        """Kill everything in the sandbox while its record goes on saying `started`."""
        if record.running is not None:
            await asyncio.to_thread(record.running.crash)

    async def fail(self, record: SandboxRecord) -> None:
        """End everything in the sandbox and leave it in the state `error`, its disk as it is."""
        await asyncio.to_thread(_ending(record))
        record.state, record.error_reason, record.changing = "error", "failed on demand", False
        record.updated_at = self._clock.now()

    async def hold(self, record: SandboxRecord, during: str) -> None:
        """End everything in the sandbox and leave it in the midst of a change of state that never ends."""
        await asyncio.to_thread(_ending(record))
        record.state, record.changing = during, True
        record.updated_at = self._clock.now()

    async def execute(self, record: SandboxRecord, script: str) -> tuple[int, bytes]:
        """Run a script in the sandbox: a request that nobody sees, and no fault strikes."""
        if record.running is None:
            raise ApiError(400, "Sandbox is not started")
        header = {"op": "execute", "cwd": None, "env": None, "timeout_s": None}
        answer, output = await record.running.link.call(header, script.encode())
        return int(answer["exitCode"]), output

    async def close(self) -> None:
        """Destroy everything, and create nothing more."""
        self._closed = True
        await self.clear()

    async def clear(self) -> None:
        """Destroy everything."""
        self._deferred.clear()
        for record in self.all():
            await self.destroy(record, force=True)

    # --- time ---

    async def sweep(self) -> None:
        """Do what is due: pending changes, time-to-live, auto-stop, auto-delete, auto-archive."""
        async with self._sweeping:
            now = self._clock.now()
            due = [one for one in self._deferred if one.due <= now]
            self._deferred = [one for one in self._deferred if one.due > now]
            for deferred in due:
                await deferred.finish()
            for record in self.all():
                try:
                    if not record.changing or _past(record.destroy_at, now):
                        await self._sweep_one(record, now)
                except Exception:  # one sandbox's trouble must not keep the others from their due
                    logger.exception("sweeping sandbox %s failed", record.id)

    async def _sweep_one(self, record: SandboxRecord, now: float) -> None:
        if _past(record.destroy_at, now):
            await self.destroy(record, force=True)
        elif record.state == "started" and record.auto_stop_interval > 0 and record.open_requests == 0:
            if now >= record.last_activity_at + record.auto_stop_interval * 60:
                await self.stop(record)
        elif record.state == "stopped" and record.stopped_at is not None:
            if (
                record.auto_delete_interval > 0
                and now >= record.stopped_at + record.auto_delete_interval * 60
            ):
                await self.destroy(record)
            elif (
                record.auto_archive_interval > 0
                and now >= record.stopped_at + record.auto_archive_interval * 60
            ):
                record.state = record.desired_state = "archived"
                record.updated_at = now

    # --- inside ---

    async def _change(
        self,
        record: SandboxRecord,
        during: str,
        after: str,
        work: Callable[[], Running | None],
        faults: Iterable[Fault],
    ) -> None:
        """Take the record from `during` to `after` by `work`, which blocks and so runs in a thread."""
        record.changing = True
        record.state = during
        record.desired_state = after
        record.updated_at = self._clock.now()

        async def finish() -> None:
            if record.state == during:  # and not destroyed meanwhile
                await self._finish(record, after, work, failing=first(faults, "fail") is not None)

        if first(faults, "stuck"):
            return
        pending = first(faults, "pending")
        if pending:
            self._deferred.append(_Deferred(self._clock.now() + pending.delay_s, finish))
            return
        await finish()

    async def _finish(
        self, record: SandboxRecord, after: str, work: Callable[[], Running | None], *, failing: bool
    ) -> None:
        during = record.state
        try:
            if failing:
                raise RuntimeError("failed on demand")
            running = await asyncio.to_thread(work)
        except Exception as error:
            logger.debug("sandbox %s did not become %s", record.id, after, exc_info=True)
            record.state, record.error_reason = "error", str(error)
        else:
            if record.state != during:
                # Destroyed while this was under way: what has just started must not stay.
                await asyncio.to_thread(_discard, record, running)
                return
            record.running = running
            record.state, record.error_reason = after, None
        now = self._clock.now()
        record.changing = False
        record.updated_at = now
        record.last_activity_at = now if after == "started" else record.last_activity_at
        record.stopped_at = now if after == "stopped" else None
        if record.state == "destroyed":
            self._records.pop(record.id, None)

    def _require_settled(self, record: SandboxRecord) -> None:
        if record.changing:
            raise ApiError(409, CHANGE_IN_PROGRESS)

    def _start(self, record: SandboxRecord) -> Running:
        return self._isolation.start(
            record.folder, _hostname(record.id), self._env(record), offline=record.network_block_all
        )

    def _env(self, record: SandboxRecord) -> dict[str, str]:
        return {**record.env, "DAYTONA_SANDBOX_ID": record.id, "DAYTONA_SANDBOX_USER": record.user}


def _ending(record: SandboxRecord) -> Callable[[], None]:
    """Return what ends the processes that run now."""

    def end() -> None:
        if record.running is not None:
            record.running.end()

    return end


def _discard(record: SandboxRecord, running: Running | None) -> None:
    if running is not None:
        running.end()
    scratch.remove(record.folder)


def _hostname(identifier: str) -> str:
    return identifier[:12]


def _past(moment: float | None, now: float) -> bool:
    return moment is not None and now >= moment
