"""A session's S3 workspace: who gives credentials for it, its files, and what its sandboxes have of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from langchain_daytona_ws._adapters.aws import AssumedRole, AsyncAssumedRole, GivenKeys
from langchain_daytona_ws._adapters.s3 import AsyncS3Store, Bucket, SyncS3Store
from langchain_daytona_ws._core.mount import Mounting, Source
from langchain_daytona_ws._core.objects.guest import Made, ObjectFiles
from langchain_daytona_ws._core.sources import Clock
from langchain_daytona_ws._core.store import Credentials, CredentialsPort, ObjectStorePort
from langchain_daytona_ws._core.workspace import S3Workspace
from langchain_daytona_ws._session.keyring import Keyring

# A file operation takes seconds.
FILE_LIFE_S = 120.0


@dataclass(frozen=True, slots=True)
class Access:
    """How one face reaches the workspace: the mount that its calls need, and its files without a sandbox."""

    mounting: Mounting
    objects: ObjectFiles | None


class Storage:
    """What both faces of a session share about its S3 workspace.

    Args:
        workspace: Where it is.
        direct: Whether file operations go straight to S3.
        tell: Is told what the model should know.
        caution: What the configuration says that may keep a sandbox from S3.
        clock: The session's time.
    """

    def __init__(
        self,
        workspace: S3Workspace,
        *,
        direct: bool,
        tell: Callable[[str], None],
        caution: str,
        clock: Clock,
    ) -> None:
        self.keyring = Keyring(*_ports(workspace, clock), now=clock.time)
        self._bucket = Bucket(workspace, clock)
        get, aget, forget = self.keyring.get_here, self.keyring.aget, self.keyring.forget
        delivered: dict[str, str] = {}

        async def current() -> Credentials:
            return await get(FILE_LIFE_S)

        async def acurrent() -> Credentials:
            return await aget(FILE_LIFE_S)

        made, where = Made(), f"s3://{workspace.workspace.bucket}/{workspace.workspace.prefix}"

        def access(source: Source, port: ObjectStorePort) -> Access:
            mounting = Mounting(workspace, source, forget, delivered=delivered, tell=tell, caution=caution)
            return Access(mounting, ObjectFiles(port, where=where, made=made) if direct else None)

        self.sync_access = access(get, SyncS3Store(self._bucket, current, forget))
        self.async_access = access(aget, AsyncS3Store(self._bucket, acurrent, forget))

    def close(self) -> None:
        """Close the connections to S3."""
        self._bucket.close()


def _ports(workspace: S3Workspace, clock: Clock) -> tuple[CredentialsPort, CredentialsPort]:
    if workspace.keys is not None:
        given = GivenKeys(workspace.keys)
        return given, given
    return AssumedRole(workspace, clock), AsyncAssumedRole(workspace, clock)
