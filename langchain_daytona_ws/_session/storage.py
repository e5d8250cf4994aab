"""A session's S3 workspace: its credentials, its files, and its mount or synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from langchain_daytona_ws._adapters.aws import AssumedRole, AsyncAssumedRole, GivenKeys
from langchain_daytona_ws._adapters.s3 import AsyncS3Store, SyncS3Store
from langchain_daytona_ws._adapters.s3_bucket import Bucket
from langchain_daytona_ws._core.files.models import FileBackend
from langchain_daytona_ws._core.id_factory import Clock, Ids
from langchain_daytona_ws._core.mount.manager import MountManager
from langchain_daytona_ws._core.mount.rename_probe import (
    Probed,
    RenamePort,
    Renames,
    needs_probe,
    probe_renames,
)
from langchain_daytona_ws._core.s3.files import Answers, S3Delay, S3Files
from langchain_daytona_ws._core.s3.store import CredentialsPort
from langchain_daytona_ws._core.s3.synced import SyncedFiles, SyncedObjects
from langchain_daytona_ws._core.s3.transfers import S3Transfers
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._core.sync.manager import SyncManager, SyncState
from langchain_daytona_ws._core.transfers.models import TransferBackend
from langchain_daytona_ws._guest.ignore import Ignore
from langchain_daytona_ws._session.credential_cache import CredentialCache
from langchain_daytona_ws._session.single_flight import RunOnce, SingleFlight, once_blocking, once_on_loop

# Credentials must be valid for this long when a request of a file operation begins. Most requests take milliseconds.
FILE_CREDENTIALS_S = 120.0


@dataclass(frozen=True, slots=True)
class S3Access:
    """One runtime's access to the workspace.

    Attributes:
        attachment: Mounts or synchronises the workspace in each call.
        is_mounted: True if the S3 mode is ``mount``, False if it is ``sync``.
        files: Accesses the workspace's files directly on S3; None if all access goes through the sandbox.
        s3_delay: Waits until S3 has the files that the latest command wrote.
        transfers: Transfers files directly from and to S3; None if all access goes through the sandbox.
    """

    attachment: MountManager | SyncManager
    is_mounted: bool
    files: FileBackend | None
    s3_delay: S3Delay
    transfers: TransferBackend | None


class Storage:
    """The S3 workspace of a session, for both runtimes.

    Args:
        accesses_s3_directly: True: file operations access S3 directly; False: through the sandbox.
        check_open: Raises an error after the session was closed; called before each file operation.
        add_notice: Adds a notice to the next result.
        caution: Text added to mount errors if a network setting may block S3 in the sandbox; else ``""``.
    """

    def __init__(
        self,
        workspace: S3Workspace,
        *,
        accesses_s3_directly: bool,
        check_open: Callable[[], None],
        add_notice: Callable[[str], None],
        caution: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.credentials = CredentialCache(now=clock.time)
        self._bucket = Bucket(workspace, clock)
        is_mounted = self.is_mounted = workspace.mode == "mount"
        self._renames = RenameProbe(ids) if is_mounted and needs_probe(workspace.endpoint) else None
        s3_delay, answers = S3Delay(clock.monotonic), Answers()
        delivered = dict[str, str]()
        self.sync_state = SyncState()
        location = f"s3://{workspace.workspace.bucket}/{workspace.workspace.prefix}"
        fetch, afetch = _ports(workspace, clock)
        ignore = Ignore(list(workspace.sync_ignore))

        def access(
            run_once: RunOnce, port: CredentialsPort, store_of: type[SyncS3Store | AsyncS3Store]
        ) -> S3Access:
            get = partial(self.credentials.get, run_once, port)
            store = store_of(self._bucket, partial(get, FILE_CREDENTIALS_S), self.credentials.forget)
            forget = self.credentials.forget
            attachment: MountManager | SyncManager
            if not is_mounted:
                attachment = SyncManager(workspace, get, forget, state=self.sync_state, now=clock.time)
            else:
                attachment = MountManager(
                    workspace,
                    get,
                    forget,
                    delivered=delivered,
                    add_notice=add_notice,
                    caution=caution,
                    probe=None
                    if self._renames is None
                    else partial(self._renames.probe_or_reuse, run_once, store),
                )

            files_of = partial(
                S3Files, where=location, answers=answers, check_open=check_open, s3_delay=s3_delay
            )
            files: S3Files | SyncedFiles = files_of(store)
            if not is_mounted:
                objects = SyncedObjects(store, ignore, clock.time)
                root = workspace.workspace.directory
                files = SyncedFiles(files_of(objects), objects, ignore, root=root, where=location)
            transfers = S3Transfers(files, store, new_key=ids)
            return S3Access(
                attachment,
                is_mounted,
                files if accesses_s3_directly else None,
                s3_delay,
                transfers if accesses_s3_directly else None,
            )

        self.sync_access = access(once_blocking, fetch, SyncS3Store)
        self.async_access = access(once_on_loop, afetch, AsyncS3Store)

    def close(self) -> None:
        self._bucket.close()


class _NotRefused(Exception):
    """Carries a result that must not be kept: `SingleFlight` keeps a returned result, but no exception."""

    def __init__(self, probed: Probed) -> None:
        super().__init__(probed.renames.value)
        self.probed = probed


class RenameProbe:
    """Finds out whether a store refuses renames, once for all threads and loops. Only a refusal is kept and reused."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._flight: SingleFlight[Probed] = SingleFlight("probing the S3 store", "mount")

    async def probe_or_reuse(self, run_once: RunOnce, store: RenamePort) -> Probed:
        """Return the kept refusal; without a refusal, probe the store."""
        try:
            return await run_once(self._flight, lambda: self._probe(store))
        except _NotRefused as error:
            return error.probed

    async def _probe(self, store: RenamePort) -> Probed:
        probed = await probe_renames(store, self._ids()[-12:])
        if probed.renames is not Renames.REFUSED:
            raise _NotRefused(probed)
        return probed


def _ports(workspace: S3Workspace, clock: Clock) -> tuple[CredentialsPort, CredentialsPort]:
    if workspace.keys is not None:
        given = GivenKeys(workspace.keys)
        return given, given
    return AssumedRole(workspace, clock), AsyncAssumedRole(workspace, clock)
