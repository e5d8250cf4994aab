"""Check before each call that the workspace is mounted and that the mount answers. If not, mount it.

``begin`` runs early: its work goes on while the other modules are compiled. If the request has new credentials, it
starts the ``mounter``, a separate program that runs as root; otherwise it starts the checks of the mounts. The host
sends the source of the mounter with new credentials; the sandbox keeps the source in a file, for later repairs. A call
never runs in the plain directory under a missing mount.
"""

from __future__ import annotations

import os
import select
import time

from langchain_daytona_ws._guest import dirs, keep
from langchain_daytona_ws._guest.dirs import SetupError
from langchain_daytona_ws._guest.mount_check import Check, device
from langchain_daytona_ws._guest.secret import read_secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Request = dict[str, Any]

STATUS = "/var/lib/langchain-daytona-ws/%s.status"
HELPER = "/usr/local/sbin/langchain-daytona-ws-mount"
TRIES = 3
# Longest wait for the daemon (the process of mount-s3), which answers within milliseconds. Before the mounter kills a
# daemon, it waits again, for longer.
ALIVE_S = 1.0
ANSWER_S = 3.0  # longest wait for S3; without an answer the call continues
LIMIT_S = 110.0  # longest wait for the mounter, from its start
_RUN = 'import sys;r=eval(sys.stdin.readline());exec(compile(r,"mounter","exec"),{"__name__":"__main__"})'

_checks: list[Check] = []
_mounters: list[Mounter | SetupError] = []


def begin(wanted: Request) -> None:
    """Start the checks or the mounter. `enter` uses their results, and raises their errors."""
    try:
        if wanted["has_secret"]:
            _mounters.append(Mounter(wanted, _secret()))
        else:
            _start_checks(wanted)
    except SetupError as error:
        _mounters.append(error)


def descriptors() -> list[int]:
    """Return the file descriptors that must stay open until `enter`."""
    return [
        *(check.descriptor for check in _checks),
        *(fd for mounter in _mounters if isinstance(mounter, Mounter) for fd in mounter.descriptors),
    ]


def enter(request: Request) -> Request:
    """Change into the mounted workspace. If files were moved out of the mount point, return where they are now."""
    moved = _enter(request["root"], request["mount"])
    return {"moved": moved} if moved else {}


def leave(request: Request, timed_out: bool) -> Request:
    """After a time-out, return ``silent`` if a mount or S3 does not answer: the command may have waited for a file."""
    return {"silent": True} if timed_out and not answers(request["mount"]) else {}


def _enter(root: str, wanted: Request) -> list[str]:
    moved: list[str] = []
    for mounter in _mounters:
        if isinstance(mounter, SetupError):
            raise mounter
        moved += mounter.moved()
    if not _mounters and not _is_healthy(wanted):
        moved = _repair(wanted)
    for _ in range(TRIES):
        try:
            os.chdir(root)
            current = os.stat(".").st_dev
        except OSError:
            current = None  # the mount died after the check, or another call replaced it
        # Compare the current directory with the mount: the mount may have ended before chdir.
        if current is not None and device(root) == current:
            return moved
        moved += _repair(wanted)
    raise SetupError("mount_not_ready", "it does not stay mounted")


def _secret() -> bytes:
    secret = read_secret()
    if not secret:
        raise SetupError("mount_credentials", "the credentials did not arrive")
    return secret


def _start_checks(wanted: Request) -> None:
    try:
        for directory in wanted["directories"]:
            _checks.append(Check(directory))
    except OSError as error:
        raise SetupError("processes", error.strerror or str(error)) from None


def _is_healthy(wanted: Request) -> bool:
    """Return whether all mounts exist and are alive, and the stored credentials suffice for this call.

    Raises:
        SetupError: S3 refuses requests through a mount. The host must send other credentials.
    """
    try:
        if not _has_credentials(wanted) or not all(check.is_alive(ALIVE_S) for check in _checks):
            return False
        if any(check.is_refused(ANSWER_S) for check in _checks):
            raise SetupError("mount_eio", "")
        return True
    finally:
        for check in _checks:
            check.end()


def answers(wanted: Request) -> bool:
    """Return whether all mounts, and S3 through each of them, answer now. If no check can run, return True."""
    checks: list[Check] = []
    try:
        for directory in wanted["directories"]:
            checks.append(Check(directory))
        return all(check.answers(ANSWER_S) for check in checks)
    except OSError:
        return True  # no process is available for a check
    finally:
        for check in checks:
            check.end()


def _has_credentials(wanted: Request) -> bool:
    """Return whether the stored credentials are for these mounts, and can be used for this call: they are the host's
    latest credentials, or valid long enough.
    """
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
    if not _has_credentials(wanted):
        raise SetupError("mount_credentials", "")
    return Mounter(wanted, b"").moved()


class Mounter:
    """A running mounter, which runs as root. If this user is not root, sudo starts the helper of the snapshot or, if
    there is no helper, the source of the mounter. If ``secret`` is empty, the mounter uses the stored credentials.

    Raises:
        SetupError: ``mount_program`` if the source of the mounter must be sent; ``processes`` if no process can be
            started.
    """

    def __init__(self, wanted: Request, secret: bytes) -> None:
        stdin = wanted["request"].encode() + b"\n" + secret
        command: list[str] = []
        source = b""
        if os.getuid() != 0 and os.access(HELPER, os.X_OK):
            command = ["sudo", "-n", HELPER]
        else:
            source = keep.source_of(dirs.state_directory(), wanted["program"])
            if not source:
                raise SetupError("mount_program", "")
            if os.getuid() != 0:
                command = ["sudo", "-n", "--", os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", _RUN]
                stdin = repr(source).encode() + b"\n" + stdin
        self._began = time.monotonic()
        self._is_sudo = bool(command)
        try:
            if not hasattr(os, "memfd_create"):  # a Python that was built for an old C library
                raise SetupError("python", "os.memfd_create")
            request, self._errors = os.memfd_create("request"), os.memfd_create("errors")
            self._answer, answer = os.pipe()
            while stdin:
                stdin = stdin[os.write(request, stdin) :]
            os.lseek(request, 0, 0)
            self._pid = os.fork()
        except OSError as error:
            raise SetupError("processes", error.strerror or str(error)) from None
        if self._pid == 0:
            _run_mounter((request, answer, self._errors), command, source)
        os.close(request)
        os.close(answer)
        if source and wanted["program"]["source"]:
            keep.write(dirs.state_directory(), source)  # while the mounter runs

    @property
    def descriptors(self) -> list[int]:
        return [self._answer, self._errors]

    def moved(self) -> list[str]:
        """Wait for the end of the mounter; return the directories to which it moved files."""
        import json  # imported late: the mounter is running meanwhile

        output = b""
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        while poll.poll(max(self._began + LIMIT_S - time.monotonic(), 0.0) * 1000):
            piece = os.read(self._answer, 65536)
            if not piece:
                break
            output += piece
        else:
            try:
                os.kill(self._pid, 9)
            except PermissionError:
                pass  # sudo runs as root
            raise SetupError("mount_not_ready", "no end within %.0f s" % LIMIT_S)
        try:
            answer = json.loads(output)
        except ValueError:
            message = os.pread(self._errors, 65536, 0).decode("utf-8", "replace").strip()[-400:]
            raise SetupError("mount_not_root" if self._is_sudo else "mount_failed", message) from None
        finally:
            for fd in self.descriptors:
                os.close(fd)
        if answer.get("ok") is not True:
            raise SetupError("mount_" + str(answer.get("code")), str(answer.get("detail")))
        return list(answer["moved"])


def _run_mounter(streams: tuple[int, int, int], command: list[str], source: bytes) -> NoReturn:
    """Run the mounter in the forked child. If ``command`` is empty (the user is root), execute the source in
    this process: a second Python would cost time.
    """
    try:
        for number, fd in enumerate([os.dup(fd) for fd in streams]):
            os.dup2(fd, number)
        os.closerange(3, 256)
        if command:
            os.execvp(command[0], command)
        exec(compile(source, "mounter", "exec"), {"__name__": "__main__"})  # noqa: S102 - sent by the host
        import sys

        sys.stdout.flush()
    except FileNotFoundError:
        os.write(2, b"sudo is not installed")
    except BaseException as error:  # noqa: BLE001 - no exception may leave a forked child
        os.write(2, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(0)
