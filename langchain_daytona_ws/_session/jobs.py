"""``session.jobs``: background jobs as pairs of sync and async methods."""

from __future__ import annotations

from langchain_daytona_ws._core.jobs.models import Job, JobLog
from langchain_daytona_ws._core.jobs.operations import JobOps
from langchain_daytona_ws._core.run_sync import run_sync


class WorkspaceJobs:
    """Start, watch and stop background jobs: commands that outlive the call, and this process.

    A job runs until its command has ended and nothing that it started holds its output any more, at most for its
    ``max_duration_s``. At most 10 run at once. Its log keeps the first 4 MiB and the last 8 to 12. Ended jobs are known
    for 7 days, the latest 50 of them. All of this is on the sandbox's own disk: in an ephemeral session it ends with
    the session.

    While jobs run the sandbox's auto-stop interval covers them; the session's next call after the last one has ended
    puts it back. A call may be any command or file operation in the sandbox: each also renews an S3 workspace's
    credentials, and tells ``on_job_done`` of jobs that have ended. Nothing happens between calls: `wait` is one that
    goes on until a job has ended.

    All raise `JobError` for a job that is not there, and what `WorkspaceSession.run` raises.
    """

    def __init__(self, sync_ops: JobOps, async_ops: JobOps) -> None:
        self.sync_ops = sync_ops  # coroutines that do not suspend
        self.async_ops = async_ops

    def command_of(self, job_id: str) -> str | None:
        """Return the command of a job that this session knows to run; asks nobody."""
        return self.sync_ops.command_of(job_id)

    def start(
        self, command: str, *, max_duration_s: float | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Start a bash command in the workspace directory and return at once.

        Args:
            command: Given to bash exactly as it is; standard input is empty.
            max_duration_s: Seconds until it is stopped with all that it started, above 0 and at most 86,400. Default:
                an hour.
            idempotency_key: As in `WorkspaceSession.run`: called again with the same key, it returns the same job.

        Raises:
            CommandRefused: As `WorkspaceSession.run` does; also for what bash cannot parse. Nothing ran.
            JobError: 10 jobs are running already; nothing ran.
        """
        return run_sync(
            self.sync_ops.start(command, max_duration_s=max_duration_s, idempotency_key=idempotency_key)
        )

    async def astart(
        self, command: str, *, max_duration_s: float | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Start as `start` does. Cancelled before its answer, it may have started a job or not: see `alist`."""
        return await self.async_ops.start(
            command, max_duration_s=max_duration_s, idempotency_key=idempotency_key
        )

    def status(self, job_id: str) -> Job:
        """Tell what a job is doing."""
        return run_sync(self.sync_ops.status(job_id))

    async def astatus(self, job_id: str) -> Job:
        """Tell as `status` does."""
        return await self.async_ops.status(job_id)

    def logs(
        self,
        job_id: str,
        *,
        tail_lines: int | None = None,
        offset: int | None = None,
        limit_bytes: int | None = None,
    ) -> JobLog:
        """Return a piece of a job's output: its last lines, or what follows an offset.

        Args:
            job_id: The job.
            tail_lines: How many of the last lines, at most 10,000. Default, without an offset: 100.
            offset: From which byte of the whole output on; ``next_offset`` of the answer is where to go on.
            limit_bytes: Most bytes to return. Default and most: the configuration's ``outputLimitBytes``.
        """
        return run_sync(
            self.sync_ops.logs(job_id, tail_lines=tail_lines, offset=offset, limit_bytes=limit_bytes)
        )

    async def alogs(
        self,
        job_id: str,
        *,
        tail_lines: int | None = None,
        offset: int | None = None,
        limit_bytes: int | None = None,
    ) -> JobLog:
        """Return as `logs` does."""
        return await self.async_ops.logs(
            job_id, tail_lines=tail_lines, offset=offset, limit_bytes=limit_bytes
        )

    def stop(self, job_id: str) -> Job:
        """Stop a job with all that it started: TERM, a second to tidy up, KILL. One that has ended stays as it is."""
        return run_sync(self.sync_ops.stop(job_id))[0]

    async def astop(self, job_id: str) -> Job:
        """Stop as `stop` does."""
        return (await self.async_ops.stop(job_id))[0]

    def list(self) -> tuple[Job, ...]:
        """Return the jobs that are known, those that started last first."""
        return run_sync(self.sync_ops.list())

    async def alist(self) -> tuple[Job, ...]:
        """Return as `list` does."""
        return await self.async_ops.list()

    def join(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended, and return it; after ``timeout_s``, as it is then.

        A request waits 20 seconds in the sandbox and learns of the end at once; so there is no interval to choose.

        Args:
            job_id: The job.
            timeout_s: Most seconds to wait. Default: until it has ended, which it does after its ``max_duration_s``.
        """
        return run_sync(self.sync_ops.join(job_id, timeout_s=timeout_s))

    async def ajoin(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait as `join` does, without holding up the event loop."""
        return await self.async_ops.join(job_id, timeout_s=timeout_s)
