"""Whether a store that resembles S3 can be mounted: one that accepts renames which it does not make loses files."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from langchain_daytona_ws._core.store import StoreFault, StoreFaultKind

SCRATCH = ".langchain-daytona-ws-rename-"
# Before the second and the third attempt, where an answer does not tell.
PAUSES_S = (0.5, 1.0)

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
# The mount will be refused for the same reason, with better words: nothing is at risk until that is mended.
_MET_BY_THE_MOUNT = {
    "NoSuchBucket",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "SignatureDoesNotMatch",
}
# They refuse whoever asks from here, and perhaps not the sandbox.
_OF_THIS_MACHINE = {"RequestTimeTooSkewed", "RequestExpired", "Certificate"}
# They come from something on the way as well, which knows nothing of renames.
_OF_A_GATEWAY = {407, 408, 429, 502, 503, 504}

LOSES_FILES = (
    "the store at {endpoint} answers 200 to RenameObject and writes an empty object, and mount-s3 believes it: mv, sed "
    "-i, os.replace and git init would leave empty files and exit with 0"
)
LOSES_FILES_REMEDY = (
    "Use a store that refuses the request (Amazon S3 answers 501), or let a proxy in front of this one answer 501 to "
    "every PUT that has renameObject in its query, and set options.s3Endpoint to the proxy; or turn "
    "options.mountAwsS3Buckets off. With options.fileAccess s3, the default, session.files and workspace_file go on "
    "without a mount."
)
UNKNOWN_REMEDY = (
    "Check that this machine reaches options.s3Endpoint (its network, DNS, any proxy, the certificate, its clock), and "
    "try again."
)


class RenamePort(Protocol):
    """What is needed of the bucket below the workspace's prefix. All raise only StoreFault."""

    async def rename(self, source: str, target: str) -> None:
        """Send the request by which mount-s3 renames an object."""
        ...

    async def delete(self, key: str) -> None: ...

    async def sleep(self, seconds: float) -> None: ...


class Renames(enum.Enum):
    """What a store does with a request to rename an object that does not exist."""

    REFUSED = "it refuses, so that mount-s3 does too"
    ACCEPTED = "it answers that it was done, and writes an empty object"
    NOT_ASKED = "it refuses these credentials, and will refuse the mount or its renames"
    UNKNOWN = "there was no answer that tells"


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of a probe.

    Attributes:
        renames: The answer.
        detail: What the store or the transport said; ``""`` when it accepted.
        left: The key of the empty object that could not be deleted; ``""`` for none.
    """

    renames: Renames
    detail: str = ""
    left: str = ""


def needs_probe(endpoint: str | None) -> bool:
    """Tell whether a store has to be asked. Amazon's own answers 501, or does rename (directory buckets)."""
    host = "" if endpoint is None else (urlsplit(endpoint).hostname or "")
    return endpoint is not None and not host.endswith(_AMAZON)


async def probe_renames(store: RenamePort, name: str) -> Probed:
    """Ask a store to rename an object that does not exist, to a scratch key below the workspace's prefix.

    A store that refuses changes nothing, whatever it says: it does not implement the request (501), or does not find
    the object (404).

    Args:
        store: The bucket.
        name: Makes the keys unique.
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
    """Delete the scratch object; return its key when that failed."""
    try:
        await store.delete(key)
    except StoreFault:
        return key
    return ""


def _judged(fault: StoreFault) -> Renames:
    if fault.code in _OF_THIS_MACHINE:
        return Renames.UNKNOWN
    # A policy may be mended while a session lasts, and the store would then accept.
    if fault.code in _MET_BY_THE_MOUNT or fault.kind in (StoreFaultKind.EXPIRED, StoreFaultKind.DENIED):
        return Renames.NOT_ASKED
    if fault.kind is StoreFaultKind.PASSING or fault.status in _OF_A_GATEWAY:
        return Renames.UNKNOWN
    return Renames.REFUSED if fault.status is not None and fault.status >= 400 else Renames.UNKNOWN
