"""Read and check the request to the mounter, without trusting it.

In a sandbox whose snapshot (its image) can mount, the mounter is a helper that is installed in the snapshot. The agent
can send requests to this helper too, so this module checks the mounts. It computes their id from the workspace's
directory, because an id in the request could be false.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

VERSION = 2
LIMIT_CHARS = 64 * 1024
DETAIL_CHARS = 800
# The helper of a snapshot mounts only in subdirectories of WORKSPACES, and at SKILLS. Other mounters have "" here.
WORKSPACES = ""
SKILLS = ""

# No value may be parsed as an option, or contain a path to another directory.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
# Letters, digits and characters that are not wildcards in an IAM policy, as in options.workspacePrefix.
_PREFIX = r"(?!-)(?:(?!\.{1,2}/)[A-Za-z0-9_.=+,:-]{1,128}/){1,64}"
_REGION = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_ENDPOINT = r"[Hh][Tt][Tt][Pp][Ss]?://[!-\[\]-~]{1,2000}"
_KEY = r"[!-~]{1,16384}"


class MountError(Exception):
    """Mounting is impossible; the code and detail are returned to the host."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail[-DETAIL_CHARS:]


def read_request() -> tuple[Request, object]:
    """Read from standard input the request and, on the next line, the credentials, if any."""
    try:
        text = sys.stdin.read(LIMIT_CHARS + 1)
        if len(text) <= LIMIT_CHARS:
            request, _, secret = text.partition("\n")
            return _object(json.loads(request), "request"), json.loads(secret) if secret.strip() else None
    except (ValueError, RecursionError):
        pass
    raise MountError("bad_request", "not JSON, or more than %d characters" % LIMIT_CHARS)


def digest(value: object) -> str:
    """Return a short hash of a specification of mounts or of credentials. The host computes the same hash."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def checked(request: Request) -> Request:
    """Return the checked specification of mounts, with its keys in the order that the host hashes."""
    if request.get("version") != VERSION:
        raise MountError("helper_version")
    listed = request.get("mounts")
    if not isinstance(listed, list) or not 1 <= len(listed) <= 2:
        raise MountError("bad_request", "mounts")
    mounts = [_mount(mount, read_only=index == 1) for index, mount in enumerate(listed)]
    endpoint = request.get("endpoint")
    return {
        "version": VERSION,
        # The directory alone identifies the mounts.
        "id": hashlib.sha256(mounts[0]["directory"].encode()).hexdigest()[:16],
        "mounts": mounts,
        "region": _text(request, "region", _REGION),
        "endpoint": None if endpoint is None else _text(request, "endpoint", _ENDPOINT),
    }


def _mount(value: object, *, read_only: bool) -> Request:
    """Check one mount: the workspace, or the read-only skills.

    The name of the workspace's directory must be one part of the prefix. The other parts are not checked: they depend
    on the configuration, and the credentials limit the access.
    """
    mount = _object(value, "mount")
    directory = _text(mount, "directory", r"/.{1,2000}")
    name = os.path.basename(directory)
    if not directory.isprintable() or os.path.normpath(directory) != directory or directory.startswith("//"):
        raise MountError("bad_request", "directory")
    if not read_only and not re.fullmatch(_NAME, name):
        raise MountError("bad_request", "directory")
    if mount.get("read_only") is not read_only:
        raise MountError("bad_request", "read_only")
    prefix = _text(mount, "prefix", "" if read_only else _PREFIX)
    if not read_only and name not in prefix.split("/"):
        raise MountError("bad_request", "prefix")
    if WORKSPACES and directory != (SKILLS if read_only else "%s/%s" % (WORKSPACES, name)):
        raise MountError(
            "other_place", "%s; the snapshot allows %s/* and %s" % (directory, WORKSPACES, SKILLS)
        )
    bucket = _text(mount, "bucket", _BUCKET)
    return {"bucket": bucket, "prefix": prefix, "directory": directory, "read_only": read_only}


def credentials(value: object) -> Request | None:
    """Return credentials in the format that a ``credential_process`` prints."""
    if value is None:
        return None
    fields = _object(value, "credentials")
    result: Request = {"Version": 1}
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"):
        if name in fields or name.endswith("Id") or name.startswith("Secret"):
            result[name] = _text(fields, name, _KEY)
    return result


def expiry(request: Request) -> str:
    """Return when the credentials expire, in whole Unix seconds; ``""`` if they do not, or if the time is unknown."""
    at = request.get("expires_at")
    if at is None:
        return ""
    if type(at) not in (int, float) or not 0 <= at < 1e11:
        raise MountError("bad_request", "expires_at")
    return "%d" % at


def _object(value: object, name: str) -> Request:
    if not isinstance(value, dict):
        raise MountError("bad_request", name)
    return value


def _text(fields: Request, name: str, form: str) -> str:
    value = fields.get(name)
    # Do not name the value in the error: it may be a secret.
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise MountError("bad_request", name)
    return value
