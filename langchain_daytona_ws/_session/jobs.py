"""The public API for background jobs, ``session.jobs``: pairs of sync and async methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from langchain_daytona_ws._core.jobs.follow import LogFollower
from langchain_daytona_ws._core.jobs.models import Job, JobLine, JobLog
from langchain_daytona_ws._core.jobs.operations import JobOps
from langchain_daytona_ws._core.run_sync import run_sync


class WorkspaceJobs:
    """Start, poll and stop background jobs: commands that go on after the call, and after the end of this process.

    A job ends when its command has ended and no process of the job has the output open, or after ``max_duration_s``. At
    most 10 jobs run at once. A job's log keeps the first 4 MiB and the last 8 to 12 MiB of output. Ended jobs are
    listed for 7 days: the latest 50, with logs of at most 256 MiB together. Jobs and logs are on the sandbox's own
    disk: if the sandbox is ephemeral, they end with the session.

    While jobs run, the sandbox's auto-stop interval is raised. There is no background thread: each call that uses the
    sandbox renews the credentials of an S3 workspace, and calls ``on_job_done`` for ended jobs. The first call after
    the end of the last job restores the interval. `join` makes such calls until a job has ended.

    Methods with a ``job_id`` raise `JobError` for an unknown job; `stop` also if the job's record is damaged. All
    methods raise the errors of `WorkspaceSession.run`.
    """

    def __init__(self, sync_ops: JobOps, async_ops: JobOps, *, session: object) -> None:
        self._session = session  # keeps the session alive: a session without references is closed
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
            CommandRefused: As `WorkspaceSession.run` raises. Also: the command has a syntax error, or an earlier call
                with this key started no job. Nothing ran.
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
            offset: Position of the first byte in the whole output. To continue, pass the ``next_offset`` of the last
                result.
            limit_bytes: Maximum number of bytes to return. Default and maximum: the configuration's
                ``outputLimitBytes``.

        Raises:
            CommandRefused: A number is out of range, or ``tail_lines`` and ``offset`` are both given.
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
        """Return an iterator over the lines of a job's output. It waits for new lines until the job has ended.

        Each request waits up to 20 seconds in the sandbox and returns when there is output. A line is yielded when it
        is complete; a line of more than 65,536 bytes is split. The last item has the kind ``"end"`` and states how the
        job has ended; a job is ``lost`` if the sandbox was stopped. An item of the kind ``"notice"`` reports a restart
        of the sandbox, or bytes that the log has not kept. The requests keep the sandbox running.

        Args:
            job_id: The job.
            offset: Position of the first byte, see `logs`. Default: the beginning of the output.
            tail_lines: Begin with the last lines instead: their number, at most 10,000.
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
        """Stop a job and all its processes: SIGTERM, and SIGKILL a second later. An ended job is not changed."""
        return run_sync(self._sync_ops.stop(job_id))[0]

    async def astop(self, job_id: str) -> Job:
        """Stop a job, as `stop` does."""
        return (await self._async_ops.stop(job_id))[0]

    def list(self) -> tuple[Job, ...]:
        """Return all known jobs, the latest first."""
        return run_sync(self._sync_ops.list())

    async def alist(self) -> tuple[Job, ...]:
        """Return all known jobs, as `list` does."""
        return await self._async_ops.list()

    def join(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended or ``timeout_s`` has passed, and return its state.

        Each request waits up to 20 seconds in the sandbox, and returns when the job ends.

        Args:
            job_id: The job.
            timeout_s: Maximum number of seconds to wait. Default: wait until the job has ended, at the latest after its
                ``max_duration_s``.
        """
        return run_sync(self._sync_ops.join(job_id, timeout_s=timeout_s))

    async def ajoin(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait as `join` does, without blocking the event loop."""
        return await self._async_ops.join(job_id, timeout_s=timeout_s)
