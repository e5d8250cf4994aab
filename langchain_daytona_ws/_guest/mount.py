"""See before each call that the workspace is mounted, alive and let in by S3; have it mounted where it is not.

What can be begun while the rest of the guest is still being compiled is begun then (``begin``): the examination of
the mounts, or, where new credentials came along, the ``mounter``. That is a program of its own, run as root, which
comes along as text. A call never goes on in the bare directory under a mount that is not there.
"""

from __future__ import annotations

import os
import select
import time

from langchain_daytona_ws._guest.mount_check import Check, device
from langchain_daytona_ws._guest.place import PlaceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Request = dict[str, Any]

STATUS = "/var/lib/langchain-daytona-ws/%s.status"
HELPER = "/usr/local/sbin/langchain-daytona-ws-mount"
SECRET_FD = 3
TRIES = 3
# A daemon that lives answers within milliseconds. One that does not by then is examined once more, and for longer,
# by the mounter before it is ended.
ALIVE_S = 1.0
# An S3 that is slow to answer is no reason not to go on.
ANSWER_S = 3.0
LIMIT_S = 110.0
_RUN = 'import sys;r=eval(sys.stdin.readline());exec(compile(r,"mounter","exec"),{"__name__":"__main__"})'

_checks: list[Check] = []
_mounters: list[Mounter | PlaceError] = []


def begin(wanted: Request) -> None:
    """Begin with what `enter` will need."""
    try:
        if wanted["has_secret"]:
            _mounters.append(Mounter(wanted, _secret()))
        else:
            _examine(wanted)
    except PlaceError as error:
        _mounters.append(error)


def descriptors() -> list[int]:
    """List what has to stay open until `enter`."""
    return [
        *(one.descriptor for one in _checks),
        *(fd for one in _mounters if isinstance(one, Mounter) for fd in one.descriptors),
    ]


def enter(root: str, wanted: Request) -> list[str]:
    """Change into the mounted workspace; return where files were moved to that lay underneath it."""
    moved: list[str] = []
    for one in _mounters:
        if isinstance(one, PlaceError):
            raise one
        moved += one.moved()
    if not _mounters and not _is_well(wanted):
        moved = _repair(wanted)
    for _ in range(TRIES):
        try:
            os.chdir(root)
            at = os.stat(".").st_dev
        except OSError:
            at = None  # it died between the look and now, or was replaced by another call
        # Where we are, not what the name says: the mount could have gone away under us.
        if at is not None and device(root) == at:
            return moved
        moved += _repair(wanted)
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


def _examine(wanted: Request) -> None:
    try:
        for directory in wanted["directories"]:
            _checks.append(Check(directory))
    except OSError as error:
        raise PlaceError("processes", error.strerror or str(error)) from None


def _is_well(wanted: Request) -> bool:
    """Tell whether all is mounted and alive.

    Raises:
        PlaceError: S3 refuses what is asked through a mount. The host has to bring other credentials.
    """
    try:
        if not _has_keys(wanted) or not all(one.is_alive(ALIVE_S) for one in _checks):
            return False
        if any(one.is_refused(ANSWER_S) for one in _checks):
            raise PlaceError("mount_eio", "")
        return True
    finally:
        for one in _checks:
            one.end()


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


def _repair(wanted: Request) -> list[str]:
    if not _has_keys(wanted):
        raise PlaceError("mount_credentials", "")
    return Mounter(wanted, b"").moved()


class Mounter:
    """The mounter at work as root: as this user, through its helper, or through a general sudo.

    Args:
        wanted: What to mount.
        secret: New credentials; empty for those that are there.
    """

    def __init__(self, wanted: Request, secret: bytes) -> None:
        given = wanted["request"].encode() + b"\n" + secret
        command: list[str] = []
        if os.getuid() != 0 and os.access(HELPER, os.X_OK):
            command = ["sudo", "-n", HELPER]
        elif os.getuid() != 0:
            command = ["sudo", "-n", "--", os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", _RUN]
            given = repr(wanted["program"]).encode() + b"\n" + given
        self._began = time.monotonic()
        self._is_sudo = bool(command)
        try:
            request, self._complaints = os.memfd_create("request"), os.memfd_create("complaints")
            self._answer, answer = os.pipe()
            while given:
                given = given[os.write(request, given) :]
            os.lseek(request, 0, 0)
            self._pid = os.fork()
        except OSError as error:
            raise PlaceError("processes", error.strerror or str(error)) from None
        if self._pid == 0:
            _become((request, answer, self._complaints), command, wanted["program"])
        os.close(request)
        os.close(answer)

    @property
    def descriptors(self) -> list[int]:
        return [self._answer, self._complaints]

    def moved(self) -> list[str]:
        """Wait for its end; return where it moved files to.

        Raises:
            PlaceError: It could not mount.
        """
        import json  # it takes a while, and so does the mounter

        said = b""
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        while poll.poll(max(self._began + LIMIT_S - time.monotonic(), 0.0) * 1000):
            piece = os.read(self._answer, 65536)
            if not piece:
                break
            said += piece
        else:
            os.kill(self._pid, 9)
            raise PlaceError("mount_not_ready", "no end after %.0f s" % LIMIT_S)
        try:
            answer = json.loads(said)
        except ValueError:
            told = os.pread(self._complaints, 65536, 0).decode("utf-8", "replace").strip()[-400:]
            raise PlaceError("mount_not_root" if self._is_sudo else "mount_failed", told) from None
        finally:
            for fd in self.descriptors:
                os.close(fd)
        if answer.get("ok") is not True:
            raise PlaceError("mount_" + str(answer.get("code")), str(answer.get("detail")))
        return list(answer["moved"])


def _become(standard: tuple[int, int, int], command: list[str], program: str) -> NoReturn:
    """Become the mounter, in the child after a fork.

    Where no command makes it root it runs in this process, which has Python started already.
    """
    try:
        for number, fd in enumerate([os.dup(fd) for fd in standard]):
            os.dup2(fd, number)
        os.closerange(3, 256)
        if command:
            os.execvp(command[0], command)
        exec(compile(program, "mounter", "exec"), {"__name__": "__main__"})  # noqa: S102 - sent along by the host
        import sys

        sys.stdout.flush()
    except FileNotFoundError:
        os.write(2, b"there is no sudo")
    except BaseException as error:  # noqa: BLE001 - this is a forked child: nothing may leave it
        os.write(2, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(0)
