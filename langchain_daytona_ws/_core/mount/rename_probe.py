"""Test whether renames on a mounted S3-compatible store would lose files.

To rename a file, mount-s3 sends RenameObject. Some stores do not know this request, but report success and write an
empty object.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind

SCRATCH = ".langchain-daytona-ws-rename-"  # beginning of the names of temporary keys
# Pauses before the second and the third attempt, if an answer is not conclusive.
PAUSES_S = (0.5, 1.0)

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
# After these errors the mount fails too, for the same reason and with a better message, so no file is at risk.
_MOUNT_FAILS_TOO = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "SignatureDoesNotMatch",
}
# Errors that this machine causes, by its clock or certificates; requests of the sandbox may succeed.
_OF_THIS_MACHINE = {"RequestTimeTooSkewed", "RequestExpired", "Certificate"}
# HTTP statuses of proxies and gateways. They show nothing about the store.
_OF_A_GATEWAY = {407, 408, 429, 502, 503, 504}

LOSES_FILES = (
    "the store at {endpoint} answers 200 to RenameObject and writes an empty object, and mount-s3 accepts the answer: "
    "mv, sed -i, os.replace and git init would leave empty files and exit with 0"
)
LOSES_FILES_REMEDY = (
    "Set options.s3Mode to sync, which needs no mount; or use a store that refuses the request (Amazon S3 answers "
    "501), or let a proxy in front of this one answer 501 to every PUT that has renameObject in its query, and set "
    "options.s3Endpoint to the proxy; or turn "
    "options.mountAwsS3Buckets off. With options.fileAccess s3, the default, session.files and workspace_file go on "
    "without a mount."
)
UNKNOWN_REMEDY = (
    "Check that this machine reaches options.s3Endpoint (its network, DNS, any proxy, the certificate, its clock), and "
    "try again."
)


class RenamePort(Protocol):
    """The operations of the probe on keys below the workspace's prefix. All raise only StoreFault."""

    async def rename(self, source: str, target: str) -> None:
        """Send the request that mount-s3 sends to rename an object."""
        ...

    async def delete(self, key: str) -> None: ...

    async def sleep(self, seconds: float) -> None: ...


class Renames(enum.Enum):
    """The conclusion from a store's response to a request to rename an object that does not exist."""

    REFUSED = "the store refuses, so mount-s3 refuses too"
    ACCEPTED = "the store reports success and writes an empty object"
    NOT_ASKED = "the store refuses these credentials, and will refuse the mount or its renames"
    NO_BUCKET = "the bucket does not exist; MinIO lets mount-s3 mount it, and then every request fails"
    UNKNOWN = "no conclusive answer"


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of a probe.

    Attributes:
        renames: The conclusion.
        detail: The error message of the store or of the transport; ``""`` if the store reported success.
        left: The key of an empty object that the probe could not delete; ``""`` if nothing is left behind.
    """

    renames: Renames
    detail: str = ""
    left: str = ""


def needs_probe(endpoint: str | None) -> bool:
    """Return whether a store must be probed. Amazon S3 is safe: it answers 501 or, for directory buckets, renames."""
    host = "" if endpoint is None else (urlsplit(endpoint).hostname or "")
    return endpoint is not None and not host.endswith(_AMAZON)


async def probe_renames(store: RenamePort, name: str) -> Probed:
    """Ask a store to rename an object that does not exist, draw the conclusion, and delete an object that it wrote.

    A safe store refuses: it does not implement the request (501), or does not find the object (404).

    Args:
        store: The bucket.
        name: Random suffix of the two keys, which are below the workspace's prefix.
    """
    target = f"{SCRATCH}{name}"
    for pause_s in (*PAUSES_S, None):
        try:
            await store.rename(f"{target}-source", target)
        except StoreFault as fault:
            probed = Probed(_judged(fault), fault.message)
            maybe_written = fault.kind is StoreFaultKind.UNKNOWN
        else:
            probed, maybe_written = Probed(Renames.ACCEPTED), True
        if probed.renames is not Renames.UNKNOWN or pause_s is None:
            break
        await store.sleep(pause_s)
    if probed.renames in (Renames.ACCEPTED, Renames.UNKNOWN) and maybe_written:
        return replace(probed, left=await _deleted(store, target))
    return probed


async def _deleted(store: RenamePort, key: str) -> str:
    """Delete the object that the store wrote; return its key if the deletion failed, otherwise ``""``."""
    try:
        await store.delete(key)
    except StoreFault:
        return key
    return ""


def _judged(fault: StoreFault) -> Renames:
    if fault.code == "NoSuchBucket":
        return Renames.NO_BUCKET
    if fault.code in _OF_THIS_MACHINE:
        return Renames.UNKNOWN
    # Only the credentials were refused. With another policy, the store might accept the rename: this is not REFUSED.
    if fault.code in _MOUNT_FAILS_TOO or fault.kind in (StoreFaultKind.EXPIRED, StoreFaultKind.DENIED):
        return Renames.NOT_ASKED
    if fault.kind is StoreFaultKind.PASSING or fault.status in _OF_A_GATEWAY:
        return Renames.UNKNOWN
    return Renames.REFUSED if fault.status is not None and fault.status >= 400 else Renames.UNKNOWN
