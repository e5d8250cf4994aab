"""Keep the sandbox running for its background jobs, and report the jobs that have ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import GuestRequest, Send
from langchain_daytona_ws._core.limits import JOB_MAX_S
from langchain_daytona_ws._core.ports import PortFault, SandboxPort

if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs.models import Job

logger = logging.getLogger("langchain_daytona_ws")

WATCHED_MAX = 20  # maximum number of running jobs whose end one request checks
TRIES = 4
FIRST_PAUSE_S = 0.3


class JobTracker:
    """The `Attachment` to calls that raises the sandbox's auto-stop interval while jobs run.

    A sandbox that receives no requests stops after its auto-stop interval, even if commands run in it (Daytona API).
    When a job starts, the session raises the interval, and the guest records this on the sandbox's disk. After the last
    job has ended, the next call of a session that knows of the record restores the interval. A session learns of the
    record by its first call.

    Args:
        idle_minutes: The interval while no job runs.
        most_minutes: Upper limit of the interval: the age at which the sandbox is destroyed; None for no limit.
        on_end: Called once for the end of each job that this session saw running, with two arguments: the job, and True
            if no notice is needed, because the result of the present call shows the end, or the loss of the sandbox is
            reported.
        add_notice: Adds a notice to the next result.
    """

    margin_s = 0.0

    def __init__(
        self,
        idle_minutes: int,
        most_minutes: int | None,
        on_end: Callable[[Job, bool], None],
        add_notice: Callable[[str], None],
    ) -> None:
        self._idle_minutes = idle_minutes
        self._most_minutes = most_minutes
        self._on_end = on_end
        self._add_notice = add_notice
        self._running: dict[str, dict[str, Job]] = {}  # running jobs, by sandbox and id
        # Sandbox → raised interval in minutes; 0 if another session raised it.
        self._raised: dict[str, int] = {}
        # Sandboxes with a restored interval; the disk still has the record of the raised interval.
        self._restored: set[str] = set()
        # Sandboxes whose interval was raised because of the recorded answer of a repeated call. The job in this answer
        # may have ended, and the record of the raised interval may be gone from the disk.
        self._doubted: set[str] = set()
        self._raises = 0  # number of raises so far, in all sandboxes
        self._ended: set[str] = set()  # ids of the jobs whose end was reported

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Send a request, which also asks for ended jobs if there may be jobs; then set the interval if necessary."""
        sandbox_id = request.sandbox_id
        for gone in [known for known in list(self._running) if known != sandbox_id]:
            for job in list(self._running.pop(gone, {}).values()):
                # No notice for each job: the model gets the notice about the lost sandbox.
                self._on_end(replace(job, state="lost", reason="the machine is gone"), True)
        if sandbox_id in self._raised or self._running.get(sandbox_id):
            watched = list(self._running.get(sandbox_id, ()))[:WATCHED_MAX]
            state = {"restored": sandbox_id in self._restored, "watched": watched}
            request = request.extended({"keep_alive": state})
        answer = await send(request)
        if answer.get("job") is not None or answer.get("keep_alive") is not None:
            await self._apply(request, answer)
        return answer

    async def _apply(self, request: GuestRequest, answer: Answer) -> None:
        """Set the auto-stop interval, and record the jobs that have started or ended according to the answer."""
        port, sandbox_id = request.port, request.sandbox_id
        started, state, job = answer.get("job"), answer.get("keep_alive"), request.fields.get("job")
        # Imported here, because most sessions start no job.
        from langchain_daytona_ws._core.jobs.models import read_job, read_started

        minutes = _minutes(started, "awake_minutes")
        if isinstance(job, dict) and minutes:
            self.record(read_started(started, str(job["command"]), sandbox_id))
            self._raised[sandbox_id] = minutes
            if answer.get("from_record") is True:
                self._doubted.add(sandbox_id)
            await self._raise(port, sandbox_id, minutes)
        elif isinstance(state, dict):
            await self._adjust(port, sandbox_id, state)
            ended = state.get("ended")
            for row in ended[:WATCHED_MAX] if isinstance(ended, list) else ():
                found = read_job(row, sandbox_id)
                # The result of an operation on one job does not show the end of another job.
                is_shown = request.entry == "jobs" and request.fields.get("id", found.id) == found.id
                self.record(found, is_shown=is_shown)

    async def _adjust(self, port: SandboxPort, sandbox_id: str, state: Mapping[str, object]) -> None:
        """Restore or raise the interval according to the reported state.

        ``minutes`` is the raised interval in the record on the disk, 0 without a record. ``over`` is True if there is a
        record, but no job runs any more. Without being asked for the state, the guest reports an empty state if there
        is a record. It also reports an empty state if it could not read the state.
        """
        minutes = _minutes(state, "minutes")
        if "over" not in state:
            self._raised.setdefault(sandbox_id, 0)  # makes the next call ask for the state
        elif state["over"] is True or (not minutes and sandbox_id in self._doubted):
            raises = self._raises
            if await self._set(port, sandbox_id, self._idle_minutes):
                self._restored.add(sandbox_id)
                self._doubted.discard(sandbox_id)
            if self._raises != raises and self._raised.get(sandbox_id):
                # A job has started during this request to Daytona. The request may have overwritten the job's interval.
                await self._raise(port, sandbox_id, self._raised[sandbox_id])
        elif not minutes:
            self._raised.pop(sandbox_id, None)
            self._restored.discard(sandbox_id)
        elif sandbox_id in self._restored:
            # Another session has started a job after this session restored the interval.
            await self._raise(port, sandbox_id, minutes)

    async def _raise(self, port: SandboxPort, sandbox_id: str, minutes: int) -> None:
        self._raises += 1
        self._restored.discard(sandbox_id)
        longest = self.minutes_for(JOB_MAX_S)  # a hostile sandbox may report any number
        if not await self._set(port, sandbox_id, min(minutes, longest)):
            self._add_notice(
                f"the machine's auto-stop could not be postponed: it may be stopped {self._idle_minutes} minutes after "
                "the last call, and its jobs with it"
            )

    async def _set(self, port: SandboxPort, sandbox_id: str, minutes: int) -> bool:
        pause_s, last = FIRST_PAUSE_S, None
        for _ in range(TRIES):
            try:
                await port.set_autostop(sandbox_id, minutes)
            except PortFault as fault:
                last = fault
                if not fault.passing:
                    break
                await port.sleep(max(pause_s, min(fault.retry_after_s or 0.0, 5.0)))
                pause_s *= 2
            else:
                return True
        logger.warning(
            "could not set the auto-stop interval of sandbox %s to %d min: %s", sandbox_id, minutes, last
        )
        return False

    def error(self, code: str, detail: str) -> None:
        """Return None, because this attachment has no set-up that can fail."""

    def record(self, job: Job, *, is_shown: bool = True) -> None:
        """Record the present state of a job; if a running job has ended, call ``on_end``.

        ``is_shown`` is True if the result of the present call shows this state.
        """
        if job.id in self._ended:
            return  # the answer of a repeated call may be older than the reported end
        if job.is_running:
            self._running.setdefault(job.sandbox_id, {})[job.id] = job
        elif self._running.get(job.sandbox_id, {}).pop(job.id, None) is not None:
            self._ended.add(job.id)
            self._on_end(job, is_shown)

    def command_of(self, job_id: str) -> str | None:
        """Return the command of a running job; None if the session knows no running job of this id."""
        return next((jobs[job_id].command for jobs in list(self._running.values()) if job_id in jobs), None)

    def latest_end(self) -> float:
        """Return the latest time at which a known running job ends, in Unix seconds; 0 if there are no jobs."""
        return max(
            (job.ends_at for jobs in list(self._running.values()) for job in list(jobs.values())), default=0.0
        )

    def minutes_for(self, duration_s: float) -> int:
        """Return the interval in minutes for a job: its duration and the idle interval, up to the limit."""
        minutes = math.ceil(duration_s / 60) + self._idle_minutes
        return (
            minutes
            if self._most_minutes is None
            else max(self._idle_minutes, min(minutes, self._most_minutes))
        )


def _minutes(record: object, name: str) -> int:
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31 else 0
