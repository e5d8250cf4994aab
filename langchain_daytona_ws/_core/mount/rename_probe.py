"""Test whether renames on a mounted S3-compatible store would lose files.

To rename a file, mount-s3 sends RenameObject. Some stores do not know this request. They report success, and write an
empty object instead.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind

SCRATCH = ".langchain-daytona-ws-rename-"  # prefix of temporary keys
# Pauses before the second and the third attempt, if an answer is not conclusive.
PAUSES_S = (0.5, 1.0)

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
# With these errors the mount fails too, with a better message, so no file is at risk.
_MOUNT_FAILS_TOO = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "SignatureDoesNotMatch",
}
# Errors caused by this machine's clock or certificates. Requests of the sandbox may succeed.
_OF_THIS_MACHINE = {"RequestTimeTooSkewed", "RequestExpired", "Certificate"}
# HTTP statuses of proxies and gateways, which show nothing about the store.
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
    """Requests of the probe. Keys are relative to the workspace's prefix.

    Requests raise StoreFault, or CredentialsRefused if there are no credentials.
    """

    async def rename(self, source: str, target: str) -> None:
        """Send RenameObject, as mount-s3 does."""
        ...

    async def delete(self, key: str) -> None: ...

    async def sleep(self, seconds: float) -> None: ...


class Renames(enum.Enum):
    """The conclusion from a store's answer, when it was asked to rename an object that does not exist."""

    REFUSED = "the store refuses, so mount-s3 refuses too"
    ACCEPTED = "the store reports success and writes an empty object"
    NOT_TESTED = "the store refuses these credentials, and will refuse the mount or its renames"
    NO_BUCKET = "the bucket does not exist; MinIO lets mount-s3 mount it, and then every request fails"
    UNKNOWN = "no conclusive answer"


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of a probe.

    Attributes:
        renames: The conclusion.
        detail: The error message of the store or of the transport; ``""`` if the store reported success.
        left: The key of an empty object that the probe may have written and could not delete; ``""`` if there is none.
    """

    renames: Renames
    detail: str = ""
    left: str = ""


def needs_probe(endpoint: str | None) -> bool:
    """Return False for Amazon S3, which is safe: it answers 501 or, in directory buckets, renames the object."""
    host = "" if endpoint is None else (urlsplit(endpoint).hostname or "")
    return endpoint is not None and not host.endswith(_AMAZON)


async def probe_renames(store: RenamePort, name: str) -> Probed:
    """Ask a store to rename an object that does not exist, and return the conclusion.

    A safe store refuses: it does not implement the request (501), or does not find the object (404). An object that an
    unsafe store wrote is deleted. ``name`` is the random part of the two keys.
    """
    target, maybe_written = f"{SCRATCH}{name}", False
    for pause_s in (*PAUSES_S, None):
        try:
            await store.rename(f"{target}-source", target)
        except StoreFault as fault:
            probed = Probed(_judged(fault), fault.message)
            maybe_written |= fault.kind is StoreFaultKind.UNKNOWN
        else:
            probed, maybe_written = Probed(Renames.ACCEPTED), True
        if probed.renames is not Renames.UNKNOWN or pause_s is None:
            break
        await store.sleep(pause_s)
    if probed.renames in (Renames.ACCEPTED, Renames.UNKNOWN) and maybe_written:
        return replace(probed, left=await _left_after_delete(store, target))
    return probed


async def _left_after_delete(store: RenamePort, key: str) -> str:
    """Delete an object. Return its key if the deletion failed, otherwise ``""``."""
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
    # A store that refuses these credentials might accept the rename with another policy, so this is not REFUSED.
    if fault.code in _MOUNT_FAILS_TOO or fault.kind in (StoreFaultKind.EXPIRED, StoreFaultKind.DENIED):
        return Renames.NOT_TESTED
    if fault.kind is StoreFaultKind.PASSING or fault.status in _OF_A_GATEWAY:
        return Renames.UNKNOWN
    return Renames.REFUSED if fault.status is not None and fault.status >= 400 else Renames.UNKNOWN
