"""See before each call that the workspace is mounted and alive, and have it mounted where it is not.

The look costs two system calls and a small file; what repairs it is a program of its own (``mounter``), run as root,
which comes along as text. A call never goes on in the bare directory under a mount that is not there.
"""

from __future__ import annotations

import os
import time

from langchain_daytona_ws._guest.place import PlaceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

STATUS = "/var/lib/langchain-daytona-ws/%s.status"
HELPER = "/usr/local/sbin/langchain-daytona-ws-mount"
SECRET_FD = 3
TRIES = 3
LOOK_S = 3.0
LIMIT_S = 110.0
_RUN = 'import sys,json;r=json.loads(sys.stdin.readline());exec(compile(r,"mounter","exec"),{"__name__":"__main__"})'


def enter(root: str, wanted: Request) -> list[str]:
    """Change into the mounted workspace; return where files were moved to that lay underneath it."""
    secret = _secret() if wanted["has_secret"] else None
    moved: list[str] = []
    if secret is not None or not _is_well(wanted):
        moved = _repair(wanted, secret)
    for _ in range(TRIES):
        try:
            os.chdir(root)
            at = os.stat(".").st_dev
        except OSError:
            at = None  # it died between the look and now, or was replaced by another call
        # Where we are, not what the name says: the mount could have gone away under us.
        if at is not None and _device(root) == at:
            return moved
        moved += _repair(wanted, secret)
    raise PlaceError("mount_not_ready", "it does not stay mounted")


def _secret() -> bytes:
    with os.fdopen(SECRET_FD, "rb") as file:
        text = file.read()
    import binascii

    try:
        secret = binascii.a2b_base64(text)
    except ValueError:
        secret = b""
    if not secret:
        # The shell keeps it in /tmp on its way to us, where there may be no room for it.
        raise PlaceError("mount_credentials", "they did not arrive")
    return secret


def _is_well(wanted: Request) -> bool:
    if not _has_keys(wanted):
        return False
    devices = {directory: _device(directory) for directory in wanted["directories"]}
    return None not in devices.values() and _answer(devices)


def _answer(devices: dict[str, int | None]) -> bool:
    """Look at the mounts in a process of its own: while a daemon hangs, only SIGKILL ends a look (FUSE).

    The kernel remembers for a second what it saw, so whoever looks after this does not wait.
    """
    try:
        pid = os.fork()
    except OSError as error:
        raise PlaceError("processes", error.strerror or str(error)) from None
    if pid == 0:
        code = 1
        try:
            os.closerange(0, 256)  # this process may stay behind, and must hold up nobody
            code = 0 if all(os.stat(at).st_dev == device for at, device in devices.items()) else 1
        finally:
            os._exit(code)
    until = time.monotonic() + LOOK_S
    pause_s = 0.0002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        if time.monotonic() > until:
            os.kill(pid, 9)
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.02)


def _has_keys(wanted: Request) -> bool:
    """Tell whether credentials are in place that this call can live on, whoever brought them."""
    try:
        with open(STATUS % wanted["id"]) as file:
            spec, serial, expires = file.read().split()
    except (OSError, ValueError):
        return False
    if spec != wanted["spec"]:
        return False
    return serial == wanted["serial"] or (
        expires != "never" and float(expires) - time.time() >= wanted["min_life_s"]
    )


def _device(directory: str) -> int | None:
    """Return the device of the S3 mount at a directory, from the kernel's table: without asking the mount."""
    above, name = os.path.split(directory)
    path = os.path.join(os.path.realpath(above), name)
    for char, code in (("\\", "\\134"), (" ", "\\040"), ("#", "\\043")):
        path = path.replace(char, code)
    found = None
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        for line in table:
            if (" " + path + " ") not in line:
                continue
            fields = line.split(" ")
            if fields[4] == path:
                is_ours = " mountpoint-s3 " in line.partition(" - ")[2]
                major, minor = fields[2].split(":")
                found = os.makedev(int(major), int(minor)) if is_ours else None
    return found


def _repair(wanted: Request, secret: bytes | None) -> list[str]:
    import json

    if secret is None and not _has_keys(wanted):
        raise PlaceError("mount_credentials", "")
    request = json.loads(wanted["request"])
    request["credentials"] = None if secret is None else json.loads(secret)
    answer = _run(wanted["program"], json.dumps(request))
    if answer.get("ok") is not True:
        raise PlaceError("mount_" + str(answer.get("code")), str(answer.get("detail")))
    return list(answer["moved"])


def _run(program: str, request: str) -> Request:
    """Run the mounter as root: as this user, through its helper, or through a general sudo."""
    import json
    import subprocess

    python = [os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", _RUN]
    given = json.dumps(program) + "\n" + request
    if os.getuid() == 0:
        command = python
    elif os.access(HELPER, os.X_OK):
        command, given = ["sudo", "-n", HELPER], request
    else:
        command = ["sudo", "-n", "--", *python]
    try:
        done = subprocess.run(
            command, input=given.encode(), capture_output=True, timeout=LIMIT_S, check=False
        )
    except FileNotFoundError:
        raise PlaceError("mount_not_root", "there is no sudo") from None
    except subprocess.TimeoutExpired:
        raise PlaceError("mount_not_ready", "no end after %.0f s" % LIMIT_S) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode("utf-8", "replace").strip()[-400:]
        raise PlaceError("mount_not_root" if command[0] == "sudo" else "mount_failed", said) from None
    return dict(answer)
