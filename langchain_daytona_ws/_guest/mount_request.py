"""The request to the mounter: read, and believed in nothing.

As the helper of a snapshot the mounter is called by whom it does not trust: the agent can send a request of its own
making. What is mounted where is checked here, and named by what it is rather than by what the request says.
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
DETAIL = 800
# Set when it is written into a snapshot as the helper: the only directories in which it mounts.
WORKSPACES = ""
SKILLS = ""

# None of them may be taken for an option or reach into another place.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_REGION = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_ENDPOINT = r"[Hh][Tt][Tt][Pp][Ss]?://[!-\[\]-~]{1,2000}"
_KEY = r"[!-~]{1,16384}"


class Failed(Exception):
    """It cannot be mounted; the code and detail go back to the host."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail[-DETAIL:]


def given() -> tuple[Request, object]:
    """Read the request from standard input, and the credentials that follow it on a line of their own."""
    try:
        text = sys.stdin.read(LIMIT_CHARS + 1)
        if len(text) <= LIMIT_CHARS:
            request, _, brought = text.partition("\n")
            return _object(json.loads(request), "request"), json.loads(brought) if brought.strip() else None
    except (ValueError, RecursionError):
        pass
    raise Failed("bad_request", "it is no JSON, or more than %d characters" % LIMIT_CHARS)


def digest(told: object) -> str:
    """Name a value by what it is: the specification of mounts, or credentials. The host does the same."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def told(request: Request) -> Request:
    """Return what is to be mounted where, in the order in which the host digests it."""
    if request.get("version") != VERSION:
        raise Failed("helper_version")
    listed = request.get("mounts")
    if not isinstance(listed, list) or not 1 <= len(listed) <= 2:
        raise Failed("bad_request", "mounts")
    mounts = [_mount(one, read_only=at == 1) for at, one in enumerate(listed)]
    endpoint = request.get("endpoint")
    return {
        "version": VERSION,
        # A directory is one mount, whatever is mounted there.
        "id": hashlib.sha256(mounts[0]["directory"].encode()).hexdigest()[:16],
        "mounts": mounts,
        "region": _text(request, "region", _REGION),
        "endpoint": None if endpoint is None else _text(request, "endpoint", _ENDPOINT),
    }


def _mount(given: object, *, read_only: bool) -> Request:
    """Check one mount: first the workspace, which is a prefix of its own name, then perhaps the skills."""
    mount = _object(given, "mount")
    directory = _text(mount, "directory", r"/.{1,2000}")
    name = os.path.basename(directory)
    if not directory.isprintable() or os.path.normpath(directory) != directory or directory.startswith("//"):
        raise Failed("bad_request", "directory")
    if not read_only and not re.fullmatch(_NAME, name):
        raise Failed("bad_request", "directory")
    if mount.get("read_only") is not read_only:
        raise Failed("bad_request", "read_only")
    prefix = "" if read_only else "sandbox/%s/" % name
    if mount.get("prefix") != prefix:
        raise Failed("bad_request", "prefix")
    if WORKSPACES and directory != (SKILLS if read_only else "%s/%s" % (WORKSPACES, name)):
        raise Failed("other_place", "%s; the snapshot's are %s/* and %s" % (directory, WORKSPACES, SKILLS))
    bucket = _text(mount, "bucket", _BUCKET)
    return {"bucket": bucket, "prefix": prefix, "directory": directory, "read_only": read_only}


def credentials(brought: object) -> Request | None:
    """Return credentials as a ``credential_process`` has to print them."""
    if brought is None:
        return None
    given = _object(brought, "credentials")
    told: Request = {"Version": 1}
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"):
        if name in given or name.endswith("Id") or name.startswith("Secret"):
            told[name] = _text(given, name, _KEY)
    return told


def expiry(request: Request) -> str:
    """Return when they expire, in whole seconds since 1970; ``""`` when they do not, or nobody knows."""
    at = request.get("expires_at")
    if at is None:
        return ""
    if type(at) not in (int, float) or not 0 <= at < 1e11:
        raise Failed("bad_request", "expires_at")
    return "%d" % at


def _object(given: object, name: str) -> Request:
    if not isinstance(given, dict):
        raise Failed("bad_request", name)
    return given


def _text(given: Request, name: str, form: str) -> str:
    value = given.get(name)
    # What it is instead is not told: it may be a secret.
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise Failed("bad_request", name)
    return value
