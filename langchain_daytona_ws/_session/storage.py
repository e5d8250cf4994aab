"""A session's S3 workspace: who gives credentials for it, its files, and what its sandboxes have of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from langchain_daytona_ws._adapters.aws import AssumedRole, AsyncAssumedRole, GivenKeys
from langchain_daytona_ws._adapters.s3 import AsyncS3Store, Bucket, SyncS3Store
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.mount import Mounting, Source
from langchain_daytona_ws._core.objects.guest import Made, ObjectFiles
from langchain_daytona_ws._core.renames import Probed, RenamePort, Renames, needs_probe, probe_renames
from langchain_daytona_ws._core.sources import Clock, Ids
from langchain_daytona_ws._core.store import Credentials, CredentialsPort, ObjectStorePort
from langchain_daytona_ws._core.workspace import S3Workspace
from langchain_daytona_ws._session.keyring import Keyring
from langchain_daytona_ws._session.once import SingleFlight, WouldDeadlock
from langchain_daytona_ws.errors import SandboxError

# A file operation takes seconds.
FILE_LIFE_S = 120.0

Probe = Callable[[], Awaitable[Probed]]


# An empty file is in S3 up to 60 ms after its close, which does not wait for it (mount-s3 1.24).
LATE_S = 0.1


class LateFiles:
    """Whether S3 may lack what a command has just written, for both faces.

    Args:
        now: Seconds on a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._complete_at = -math.inf

    def command_ended(self) -> None:
        self._complete_at = self._now() + LATE_S

    def left_s(self) -> float:
        """Return for how long S3 may still lack something."""
        return max(self._complete_at - self._now(), 0.0)


@dataclass(frozen=True, slots=True)
class Access:
    """How one face reaches the workspace: the mount that its calls need, and its files without a sandbox."""

    mounting: Mounting
    objects: ObjectFiles | None
    late: LateFiles
    sleep: Callable[[float], Awaitable[None]]


class Storage:
    """What both faces of a session share about its S3 workspace.

    Args:
        workspace: Where it is.
        direct: Whether file operations go straight to S3.
        tell: Is told what the model should know.
        caution: What the configuration says that may keep a sandbox from S3.
        clock: The session's time.
        ids: Names what is written to try a store.
    """

    def __init__(
        self,
        workspace: S3Workspace,
        *,
        direct: bool,
        tell: Callable[[str], None],
        caution: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.keyring = Keyring(*_ports(workspace, clock), now=clock.time)
        self._bucket = Bucket(workspace, clock)
        get, aget, forget = self.keyring.get_here, self.keyring.aget, self.keyring.forget
        delivered: dict[str, str] = {}

        async def current() -> Credentials:
            return await get(FILE_LIFE_S)

        async def acurrent() -> Credentials:
            return await aget(FILE_LIFE_S)

        late = LateFiles(clock.monotonic)
        made, where = Made(), f"s3://{workspace.workspace.bucket}/{workspace.workspace.prefix}"

        here = SyncS3Store(self._bucket, current, forget)
        there = AsyncS3Store(self._bucket, acurrent, forget)
        trial = StoreTrial(ids) if needs_probe(workspace.endpoint) else None

        def access(source: Source, port: ObjectStorePort, probe: Probe | None) -> Access:
            mounting = Mounting(
                workspace, source, forget, delivered=delivered, tell=tell, caution=caution, probe=probe
            )
            objects = ObjectFiles(port, where=where, made=made) if direct else None
            return Access(mounting, objects, late, port.sleep)

        self.sync_access = access(get, here, None if trial is None else partial(trial.get_here, here))
        self.async_access = access(aget, there, None if trial is None else partial(trial.aget, there))

    def close(self) -> None:
        """Close the connections to S3."""
        self._bucket.close()


class _NotRefused(Exception):
    """The store did not refuse to rename; the next caller probes it again."""

    def __init__(self, probed: Probed) -> None:
        super().__init__(probed.renames.value)
        self.probed = probed


class StoreTrial:
    """Try once for all threads and loops whether a store refuses renames, and remember that it does.

    Args:
        ids: Names the scratch keys.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._flight: SingleFlight[Probed] = SingleFlight()

    async def get_here(self, store: RenamePort) -> Probed:
        """Return what became of it, for the coroutines of the sync side; never suspends."""
        try:
            return self._flight.get(lambda: drive(self._tried(store)))
        except _NotRefused as answer:
            return answer.probed
        except WouldDeadlock:
            raise SandboxError(
                "A sync call from the thread of an event loop that is just trying the S3 store would block both for "
                "ever. Use the a-form of this method, or call it from another thread.",
                code="would_deadlock",
                op="mount",
                retryable=True,
                for_model="The workspace is being prepared. Nothing ran. Try again.",
            ) from None

    async def aget(self, store: RenamePort) -> Probed:
        """Do as `get_here` does, without holding up the event loop."""
        try:
            return await self._flight.aget(lambda: self._tried(store))
        except _NotRefused as answer:
            return answer.probed

    async def _tried(self, store: RenamePort) -> Probed:
        probed = await probe_renames(store, self._ids()[-12:])
        if probed.renames is not Renames.REFUSED:
            raise _NotRefused(probed)
        return probed


def _ports(workspace: S3Workspace, clock: Clock) -> tuple[CredentialsPort, CredentialsPort]:
    if workspace.keys is not None:
        given = GivenKeys(workspace.keys)
        return given, given
    return AssumedRole(workspace, clock), AsyncAssumedRole(workspace, clock)
