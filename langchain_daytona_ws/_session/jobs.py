"""The public API for background jobs, ``session.jobs``: pairs of sync and async methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from langchain_daytona_ws._core.jobs.follow import LogFollower
from langchain_daytona_ws._core.jobs.models import Job, JobLine, JobLog
from langchain_daytona_ws._core.jobs.operations import JobOps
from langchain_daytona_ws._core.run_sync import run_sync


class WorkspaceJobs:
    """Start, poll and stop background jobs: commands that outlive the call, and this process.

    A job runs until its command has ended and no process of the job holds its output, at most for its
    ``max_duration_s``. At most 10 jobs run at once. A job's log keeps the first 4 MiB and the last 8 to 12 MiB of
    output. Ended jobs are listed for 7 days, at most the latest 50. Jobs and logs are on the sandbox's own disk: in an
    ephemeral session, they end with the session.

    While jobs run, the sandbox's auto-stop interval covers them. The session's next call after the last job has ended
    restores the interval. Any command or file operation in the sandbox is such a call: each also renews an S3
    workspace's credentials, and calls ``on_job_done`` for jobs that have ended. There is no background thread; `join`
    makes calls until a job has ended.

    All methods raise `JobError` for an unknown job, and the errors of `WorkspaceSession.run`.
    """

    def __init__(self, sync_ops: JobOps, async_ops: JobOps, *, session: object) -> None:
        self._session = session  # kept alive: an unreferenced session ends
        self._sync_ops = sync_ops  # coroutines that do not suspend
        self._async_ops = async_ops

    def start(
        self, command: str, *, max_duration_s: float | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Start a bash command in the workspace directory and return at once.

        Args:
            command: Passed to bash unchanged; standard input is empty.
            max_duration_s: Seconds until the job is stopped with all its processes, above 0 and at most 86,400.
                Default: an hour.
            idempotency_key: As in `WorkspaceSession.run`: a second call with the same key returns the same job.

        Raises:
            CommandRefused: As `WorkspaceSession.run` raises, and for a syntax error. Nothing ran.
            JobError: 10 jobs are running already; nothing ran.
        """
        return run_sync(
            self._sync_ops.start(command, max_duration_s=max_duration_s, idempotency_key=idempotency_key)
        )

    async def astart(
        self, command: str, *, max_duration_s: float | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Start a job as `start` does. A cancelled call may have started a job: see `alist`."""
        return await self._async_ops.start(
            command, max_duration_s=max_duration_s, idempotency_key=idempotency_key
        )

    def status(self, job_id: str) -> Job:
        """Return the state of a job."""
        return run_sync(self._sync_ops.status(job_id))

    async def astatus(self, job_id: str) -> Job:
        """Return the state of a job, as `status` does."""
        return await self._async_ops.status(job_id)

    def logs(
        self,
        job_id: str,
        *,
        tail_lines: int | None = None,
        offset: int | None = None,
        limit_bytes: int | None = None,
    ) -> JobLog:
        """Return a piece of a job's output: its last lines, or the bytes from an offset.

        Args:
            job_id: The job.
            tail_lines: Number of last lines, at most 10,000. Default, without an offset: 100.
            offset: First byte, counted in the whole output; the result's ``next_offset`` is the next one.
            limit_bytes: Most bytes to return. Default and maximum: the configuration's ``outputLimitBytes``.
        """
        return run_sync(
            self._sync_ops.logs(job_id, tail_lines=tail_lines, offset=offset, limit_bytes=limit_bytes)
        )

    async def alogs(
        self,
        job_id: str,
        *,
        tail_lines: int | None = None,
        offset: int | None = None,
        limit_bytes: int | None = None,
    ) -> JobLog:
        """Return a piece of a job's output, as `logs` does."""
        return await self._async_ops.logs(
            job_id, tail_lines=tail_lines, offset=offset, limit_bytes=limit_bytes
        )

    def follow(
        self, job_id: str, *, offset: int | None = None, tail_lines: int | None = None
    ) -> Iterator[JobLine]:
        """Return an iterator over the lines of a job's output, which waits for each line, until the job's end.

        Each request waits up to 20 seconds in the sandbox and returns when there is output. A line is yielded when it
        is complete, or longer than 65,536 bytes. The last item has the kind ``"end"`` and states how the job has ended:
        it is ``lost`` if the sandbox was stopped. A restart of the sandbox and bytes that the log has not kept are
        items of the kind ``"notice"``. The requests keep the sandbox running.

        Args:
            job_id: The job.
            offset: First byte, see `logs`. Default: the beginning of the output.
            tail_lines: Begin with this number of last lines instead, at most 10,000.
        """
        follower = LogFollower(self._sync_ops, job_id, offset=offset, tail_lines=tail_lines)
        while (lines := run_sync(follower.lines())) is not None:
            yield from lines

    async def afollow(
        self, job_id: str, *, offset: int | None = None, tail_lines: int | None = None
    ) -> AsyncIterator[JobLine]:
        """Return an async iterator over the lines of a job's output, as `follow` does."""
        follower = LogFollower(self._async_ops, job_id, offset=offset, tail_lines=tail_lines)
        while (lines := await follower.lines()) is not None:
            for line in lines:
                yield line

    def stop(self, job_id: str) -> Job:
        """Stop a job and all its processes: TERM, and KILL a second later. An ended job is returned unchanged."""
        return run_sync(self._sync_ops.stop(job_id))[0]

    async def astop(self, job_id: str) -> Job:
        """Stop a job, as `stop` does."""
        return (await self._async_ops.stop(job_id))[0]

    def list(self) -> tuple[Job, ...]:
        """Return all known jobs, latest start first."""
        return run_sync(self._sync_ops.list())

    async def alist(self) -> tuple[Job, ...]:
        """Return all known jobs, as `list` does."""
        return await self._async_ops.list()

    def join(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended or ``timeout_s`` has passed, and return its state.

        Each request waits up to 20 seconds in the sandbox and returns when the job ends; there is no polling interval.

        Args:
            job_id: The job.
            timeout_s: Most seconds to wait. Default: until the job has ended, at the latest after its
                ``max_duration_s``.
        """
        return run_sync(self._sync_ops.join(job_id, timeout_s=timeout_s))

    async def ajoin(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait as `join` does, without blocking the event loop."""
        return await self._async_ops.join(job_id, timeout_s=timeout_s)
