"""Mount the workspace's prefixes with mount-s3. A separate program, which runs as root.

Its source is sent with a request; or the program is a helper in the snapshot that ``s3-snapshot`` builds. root owns
this helper, which mounts only at fixed directories. ``_core/mount/manager.py`` joins this module with the modules that
it imports.

The first line of standard input is a JSON object; a second line contains new credentials, if there are any. The program
prints one JSON object. Imports and compilation take most of the time before mount-s3 starts, so modules that only a
repair needs are imported late.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time

from langchain_daytona_ws._guest.mount_check import Check, escaped
from langchain_daytona_ws._guest.mount_credentials import (
    HOME,
    CredentialStore,
    acquire,
    make_home,
    open_for_root,
)
from langchain_daytona_ws._guest.mount_request import (
    LIMIT_CHARS,
    WORKSPACES,
    MountError,
    checked,
    credentials,
    digest,
    expiry,
    read_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Request = dict[str, Any]

SOURCE = "mountpoint-s3"  # source of these mounts in the kernel's mount table
START_S = 40.0  # mount-s3 itself gives up after 30 seconds
READY_S = 10.0
ALIVE_S = 2.0  # the caller may have waited for one second already
ANSWER_S = 10.0
END_S = 5.0
LIMIT_S = 100  # less than the caller waits
# Search paths. The snapshot's build has checked that only root can change the programs that the helper starts.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAM_PATHS = ["/usr/bin", "/opt/aws/mountpoint-s3/bin"]
if not WORKSPACES:
    SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:" + SYSTEM_PATH
    PROGRAM_PATHS = [*SYSTEM_PATH.split(":"), "/opt/aws/mountpoint-s3/bin", "/usr/local/games"]


def main() -> None:
    try:
        _reset_inherited()
        answer = ensure(*read_request())
    except MountError as failed:
        answer = {"ok": False, "code": failed.code, "detail": failed.detail}
    except OSError as error:
        answer = {"ok": False, "code": "failed", "detail": "%s: %s" % (error.strerror, error.filename)}
    signal.alarm(0)
    json.dump(answer, sys.stdout)


def _reset_inherited() -> None:
    """Reset inherited settings that could stop this process while it holds the lock."""
    os.chdir("/")
    os.umask(0o022)
    if os.getpid() == os.getpgid(0) and (child := os.fork()):
        os.waitpid(child, 0)
        os._exit(0)
    os.setsid()  # detach from the terminal, where ^Z would stop it
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, _overdue)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.alarm(LIMIT_S)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
        most = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would contain the credentials


def _overdue(number: int, frame: object) -> None:
    raise MountError("not_ready", "no end within %d s" % LIMIT_S)


def ensure(request: Request, secret: object) -> Request:
    """Make sure that each mount exists, is alive and has valid credentials; return the answer."""
    wanted = checked(request)
    mounts = [Mount(mount, wanted["region"], wanted["endpoint"]) for mount in wanted["mounts"]]
    new, expires = credentials(secret), expiry(request)
    make_home()
    with open(HOME + "/lock", "w", opener=open_for_root) as lock:
        acquire(lock.fileno())
        store = CredentialStore(wanted["id"], digest(wanted))
        stale = store.replace(new, expires)
        broken = mounts
        if store.is_current:
            # mount-s3 uses its credentials until they expire, even if S3 refuses them and new ones are stored here.
            # So check whether S3 refuses them, and mount again if it does.
            asks_s3 = stale or new is not None
            checks = [(mount, Check(mount.directory)) for mount in mounts]
            broken = [mount for mount, check in checks if not _is_healthy(check, asks_s3)]
        moved = [directory for mount in broken for directory in mount.clear()]
        # Start all mounts in parallel: each takes about a second.
        for mount, child in [(mount, mount.start(store)) for mount in broken]:
            mount.finish(child, store)
        store.publish()
    return {"ok": True, "moved": moved}


class Mount:
    """One prefix of a bucket at one directory."""

    def __init__(self, wanted: Request, region: str, endpoint: str | None) -> None:
        self.bucket = wanted["bucket"]
        self.prefix = wanted["prefix"]
        self.read_only = wanted["read_only"]
        self.region = region
        self.endpoint = endpoint
        above, name = os.path.split(wanted["directory"])
        self.directory = os.path.join(os.path.realpath(above), name)

    def device(self) -> str:
        """Return "major:minor" of the mount, ``""`` if there is none; raise MountError for a foreign mount."""
        found = ""
        with open("/proc/self/mountinfo", errors="surrogateescape") as table:
            for line in table:
                fields = line.split(" ")
                if fields[4] != escaped(self.directory):
                    continue
                kind, source = line.partition(" - ")[2].split(" ")[:2]
                if not kind.startswith("fuse") or source != SOURCE:
                    raise MountError(
                        "foreign_mount", "%s is a mount of %s (%s)" % (self.directory, source, kind)
                    )
                found = fields[2]
        return found

    def clear(self) -> list[str]:
        """Unmount, and empty the directory; return the directories to which its files were moved."""
        self._end_daemon()
        for _ in range(20):
            if not self.device():
                return self._make_empty()
            self._unmount()
        raise MountError("cannot_unmount", self.directory)

    def _end_daemon(self) -> None:
        """Kill the daemons of the mount, and wait for their end, at most END_S seconds.

        A daemon that ends by itself unmounts its path, even if a new mount is there (mount-s3). Killing a hung daemon
        also unblocks the processes that wait for it.
        """
        path = os.fsencode(self.directory)
        daemons = [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if path in _arguments_of(pid)
            and any(argument.endswith(b"mount-s3") for argument in _arguments_of(pid))
            and _has_fuse(pid)
        ]
        for pid in daemons:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + END_S
        while any(map(_has_fuse, daemons)) and time.monotonic() < until:
            time.sleep(0.002)

    def _unmount(self) -> None:
        """Detach the mount, even if processes use it: a dead mount would prevent a new mount."""
        import subprocess

        commands = (["umount", "-l"], ["fusermount3", "-u", "-z"], ["fusermount", "-u", "-z"])
        output = ""
        for command in commands:
            try:
                done = subprocess.run(
                    [*command, self.directory], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, env={"PATH": SYSTEM_PATH}, timeout=START_S, check=False,
                )  # fmt: skip
            except FileNotFoundError:
                continue
            except subprocess.TimeoutExpired:
                output = "no end within %.0f s" % START_S
                continue
            if done.returncode == 0:
                return
            output = done.stdout.decode("utf-8", "replace")
        raise MountError("cannot_unmount", output)

    def _make_empty(self) -> list[str]:
        """Create the directory. Move its files away, because the mount would hide them; return where they are now."""
        try:
            os.makedirs(self.directory, exist_ok=True)
            names = os.listdir(self.directory)
        except (FileExistsError, NotADirectoryError):
            raise MountError("not_a_directory", self.directory) from None
        if names and WORKSPACES:
            # The agent cannot have created these files, and root must not move files of unknown owners.
            raise MountError("not_empty", "there are files in %s" % self.directory)
        moved = []
        if names:
            import shutil
            import tempfile

            target = tempfile.mkdtemp(prefix="found-under-workspace-", dir="/tmp")
            os.chmod(target, 0o755)  # noqa: S103 - all users could read the files before too
            for name in names:
                shutil.move(os.path.join(self.directory, name), os.path.join(target, name))
            moved.append(target)
        # While nothing is mounted, only root can write into the directory.
        os.chown(self.directory, 0, 0)
        os.chmod(self.directory, 0o555)  # noqa: S103
        return moved

    def start(self, store: CredentialStore) -> int:
        """Start mount-s3; return the pid of a process that ends when the mount is ready or has failed."""
        program = next(
            (path for path in (at + "/mount-s3" for at in PROGRAM_PATHS) if os.access(path, os.X_OK)), ""
        )
        if not program:
            raise MountError("no_mount_s3")
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            raise MountError("no_fuse", error.strerror or "") from None
        argv, environment = [program, *self._arguments()], store.environment(SYSTEM_PATH)
        # `finish` waits for this signal: polling would slow the start of mount-s3.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            _exec(argv, environment, self._log(store))
        return pid

    def finish(self, child: int, store: CredentialStore) -> None:
        """Wait until the mount is ready and its daemon answers; S3 has answered mount-s3 by then."""
        limit = time.monotonic() + START_S
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended:
            left_s = limit - time.monotonic()
            if left_s <= 0:
                os.killpg(child, signal.SIGKILL)
            signal.sigtimedwait([signal.SIGCHLD], left_s if left_s > 0 else END_S)
            ended, status = os.waitpid(child, os.WNOHANG)
        if status != 0:
            with open(self._log(store), errors="replace") as file:
                output = store.redacted(file.read(LIMIT_CHARS))
            raise failure_of(output or "mount-s3 ended with status %d" % status)
        # The started process can end before the daemon of mount-s3 answers the kernel's first request.
        until = time.monotonic() + READY_S
        while True:
            check = Check(self.directory)
            try:
                if check.is_alive(ALIVE_S):
                    return
            finally:
                check.end()
            if time.monotonic() > until:
                raise MountError("not_ready")
            time.sleep(0.005)

    def _log(self, store: CredentialStore) -> str:
        return "%s/mount-%s.log" % (store.directory, "skills" if self.read_only else "workspace")

    def _arguments(self) -> list[str]:
        arguments = [self.bucket, self.directory, "--region", self.region, "--allow-other", "--no-log"]
        arguments += ["--read-only"] if self.read_only else ["--allow-delete", "--allow-overwrite"]
        if self.prefix:
            arguments += ["--prefix", self.prefix]
        if self.endpoint:
            arguments += ["--endpoint-url", self.endpoint, "--force-path-style"]
        # The files must belong to the agent's user, whose ids sudo passes on. mount-s3 refuses the id 0.
        for option, name in (("--uid", "SUDO_UID"), ("--gid", "SUDO_GID")):
            number = os.environ.get(name, "0")
            if re.fullmatch("[1-9][0-9]*", number):
                arguments += [option, number]
        return arguments


def failure_of(output: str) -> MountError:
    if "/dev/fuse" in output or "fuse: device not found" in output:
        return MountError("no_fuse", output)
    if "Timeout after" in output:
        # mount-s3 retries while S3 does not answer, and gives up after 30 seconds.
        return MountError("unreachable", output)
    if "initial ListObjectsV2 failed" not in output:
        return MountError("refused", output)
    if "expired" in output:
        return MountError("expired", output)
    if "Wrong region" in output:
        return MountError("wrong_region", output)
    if "bucket does not exist" in output or "NoSuchBucket" in output:
        return MountError("no_bucket", output)
    if "No signing credentials" in output:
        return MountError("no_signing", output)
    if "signature we calculated" in output or "SignatureDoesNotMatch" in output:
        return MountError("signature", output)
    if "Forbidden" in output or "AccessDenied" in output or "Access Denied" in output:
        return MountError("denied", output)
    return MountError("unreachable", output)


def _is_healthy(check: Check, asks_s3: bool) -> bool:
    """Return whether the mount's daemon answers and, with ``asks_s3``, whether S3 accepts its requests."""
    try:
        return check.is_alive(ALIVE_S) and not (asks_s3 and check.is_refused(ANSWER_S))
    finally:
        check.end()


def _arguments_of(pid: int) -> list[bytes]:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _has_fuse(pid: int) -> bool:
    """Return whether a process has a FUSE device open."""
    at = "/proc/%d/fd/" % pid
    try:
        return any(os.readlink(at + name) == "/dev/fuse" for name in os.listdir(at))
    except OSError:
        return False  # the process has ended


def _exec(argv: list[str], environment: dict[str, str], log: str) -> NoReturn:
    """Replace the forked child with mount-s3."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()  # mount-s3 must outlive the call
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 256)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execve(argv[0], argv, environment)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
