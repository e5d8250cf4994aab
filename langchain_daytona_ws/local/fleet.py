"""All sandboxes of the server and their state changes. Its coroutines run on the server's event loop."""

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
from .faults import Fault, find_fault
from .isolation import Bubblewrap, NoIsolation, ProcessTree
from .record import SandboxRecord

# Users in the sandboxes; they share one uid.
USERS = ("daytona", "root")
CHANGE_IN_PROGRESS = "Sandbox state change in progress"
ARCHIVE_MAX_MINUTES = 30 * 24 * 60

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Deferred:
    """The end of a state change that a fault delays."""

    due: float
    finish: Callable[[], Awaitable[None]]


class Fleet:
    """Creates, starts, stops and destroys sandboxes, on request and when their intervals are over."""

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

    # --- look-up ---

    def get(self, id_or_name: str) -> SandboxRecord:
        record = self._records.get(id_or_name)
        if record is None:
            record = next((other for other in self._records.values() if other.name == id_or_name), None)
        if record is None:
            raise ApiError(404, f"Sandbox with ID or name {id_or_name} not found")
        return record

    def all(self) -> list[SandboxRecord]:
        """Return every sandbox that is not destroyed, oldest first."""
        return list(self._records.values())

    # --- state changes ---

    async def create(self, fields: dict[str, Any], faults: Iterable[Fault]) -> SandboxRecord:
        if self._closed:
            raise ApiError(503, "The server is shutting down")
        identifier = str(uuid.uuid4())
        name = fields.pop("name", None) or identifier
        if fields.get("network_block_all") and not self._isolation.blocks_network:
            raise ApiError(400, "networkBlockAll is not enforced by the local server without isolation")
        if any(other.name == name for other in self._records.values()):
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

        def action() -> ProcessTree:
            self._isolation.prepare(record.folder, _hostname(identifier))
            return self._start(record)

        await self._change(record, "creating", "started", action, faults)
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
        await self._change(record, "stopping", "stopped", lambda: _end_processes(record), faults)

    async def destroy(
        self, record: SandboxRecord, faults: Iterable[Fault] = (), *, force: bool = False
    ) -> None:
        """Destroy the sandbox and its disk; with `force` also during another state change."""
        if not force:
            self._require_settled(record)
        # Free the name for a new sandbox.
        if record.desired_state != "destroyed":
            record.name = f"DESTROYED_{record.name}_{secrets.token_hex(4)}"

        def action() -> None:
            _end_processes(record)
            scratch.remove(record.folder)

        await self._change(record, "destroying", "destroyed", action, faults)

    async def crash(self, record: SandboxRecord) -> None:
        if record.processes is not None:
            await asyncio.to_thread(record.processes.crash)

    async def fail(self, record: SandboxRecord) -> None:
        await asyncio.to_thread(_end_processes, record)
        record.state, record.error_reason, record.changing = "error", "failed on demand", False
        record.updated_at = self._clock.now()

    async def hold(self, record: SandboxRecord, state: str) -> None:
        await asyncio.to_thread(_end_processes, record)
        record.state, record.changing = state, True
        record.updated_at = self._clock.now()

    async def execute(self, record: SandboxRecord, script: str) -> tuple[int, bytes]:
        if record.processes is None:
            raise ApiError(400, "Sandbox is not started")
        header = {"op": "execute", "cwd": None, "env": None, "timeout_s": None}
        answer, output = await record.processes.link.call(header, script.encode())
        return int(answer["exitCode"]), output

    async def close(self) -> None:
        """Destroy all sandboxes, and refuse to create new sandboxes."""
        self._closed = True
        await self.clear()

    async def clear(self) -> None:
        """Destroy all sandboxes."""
        self._deferred.clear()
        for record in self.all():
            await self.destroy(record, force=True)

    # --- intervals ---

    async def sweep(self) -> None:
        """Carry out all due changes: delayed state changes, time-to-live, auto-stop, auto-delete, auto-archive."""
        async with self._sweeping:
            now = self._clock.now()
            due = [deferred for deferred in self._deferred if deferred.due <= now]
            self._deferred = [deferred for deferred in self._deferred if deferred.due > now]
            for deferred in due:
                await deferred.finish()
            for record in self.all():
                try:
                    if not record.changing or _is_due(record.destroy_at, now):
                        await self._sweep_record(record, now)
                except Exception:  # an error in one sandbox must not affect the others
                    logger.exception("sweeping sandbox %s failed", record.id)

    async def _sweep_record(self, record: SandboxRecord, now: float) -> None:
        if _is_due(record.destroy_at, now):
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
            elif now >= record.stopped_at + (record.auto_archive_interval or ARCHIVE_MAX_MINUTES) * 60:
                record.state = record.desired_state = "archived"
                record.updated_at = now

    # --- internals ---

    async def _change(
        self,
        record: SandboxRecord,
        interim: str,
        final: str,
        action: Callable[[], ProcessTree | None],
        faults: Iterable[Fault],
    ) -> None:
        """Set the state `interim`, run `action` in a thread, then set the state `final`, or `error` if `action` fails.

        The fault `pending` delays the end, `stuck` prevents it, and `fail` makes it fail.
        """
        record.changing = True
        record.state = interim
        record.desired_state = final
        record.updated_at = self._clock.now()

        async def finish() -> None:
            if record.state == interim:  # False if `destroy`, for example, has changed the state
                await self._finish(record, final, action, failing=find_fault(faults, "fail") is not None)

        if find_fault(faults, "stuck"):
            return
        pending = find_fault(faults, "pending")
        if pending:
            self._deferred.append(_Deferred(self._clock.now() + pending.delay_s, finish))
            return
        await finish()

    async def _finish(
        self, record: SandboxRecord, final: str, action: Callable[[], ProcessTree | None], *, failing: bool
    ) -> None:
        interim = record.state
        try:
            if failing:
                raise RuntimeError("failed on demand")
            processes = await asyncio.to_thread(action)
        except Exception as error:
            logger.debug("sandbox %s did not become %s", record.id, final, exc_info=True)
            record.state, record.error_reason = "error", str(error)
        else:
            if record.state != interim:
                # The state was changed meanwhile, for example by `destroy`: end the processes that have just started,
                # and remove the disk.
                await asyncio.to_thread(_discard, record, processes)
                return
            record.processes = processes
            record.state, record.error_reason = final, None
        now = self._clock.now()
        record.changing = False
        record.updated_at = now
        record.last_activity_at = now if final == "started" else record.last_activity_at
        record.stopped_at = now if final == "stopped" else None
        if record.state == "destroyed":
            self._records.pop(record.id, None)

    def _require_settled(self, record: SandboxRecord) -> None:
        if record.changing:
            raise ApiError(409, CHANGE_IN_PROGRESS)

    def _start(self, record: SandboxRecord) -> ProcessTree:
        if record.user not in USERS:  # assumed: Docker's message for a user that an image does not have
            raise RuntimeError(f"unable to find user {record.user}: no matching entries in passwd file")
        return self._isolation.start(
            record.folder, _hostname(record.id), self._env(record), offline=record.network_block_all
        )

    def _env(self, record: SandboxRecord) -> dict[str, str]:
        return {**record.env, "DAYTONA_SANDBOX_ID": record.id, "DAYTONA_SANDBOX_USER": record.user}


def _end_processes(record: SandboxRecord) -> None:
    if record.processes is not None:
        record.processes.end()


def _discard(record: SandboxRecord, processes: ProcessTree | None) -> None:
    if processes is not None:
        processes.end()
    scratch.remove(record.folder)


def _hostname(identifier: str) -> str:
    return identifier[:12]


def _is_due(due: float | None, now: float) -> bool:
    return due is not None and now >= due
