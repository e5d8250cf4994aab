"""Mount the workspace's prefixes with mount-s3: the one thing that is done as root. A program of its own.

It is sent along as text and run by root, through sudo, or stands as a root-owned helper in the snapshot that
``s3-snapshot`` builds; with the modules that it uses written out in front, it needs nothing of the package. Standard
input brings one JSON object, and on a line of their own credentials, if any; one object goes to standard output. As
the helper it can do nothing but this: mount prefixes of buckets below fixed directories.

Importing and compiling is what it spends most time on before mount-s3 is started, so what only a repair needs is
imported there.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time

from langchain_daytona_ws._guest.mount_check import Check, written
from langchain_daytona_ws._guest.mount_keys import HOME, Keys, for_root, make_home, take
from langchain_daytona_ws._guest.mount_request import (
    LIMIT_CHARS,
    WORKSPACES,
    Failed,
    credentials,
    digest,
    expiry,
    given,
    told,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Request = dict[str, Any]

SOURCE = "mountpoint-s3"  # what the kernel calls such a mount
START_S = 40.0  # mount-s3 itself gives up after 30
READY_S = 10.0
ALIVE_S = 2.0  # who calls it has waited for a second too
ANSWER_S = 10.0
END_S = 5.0
LIMIT_S = 100  # less than who calls it waits for
# Where programs are. The build has seen to it that nobody but root can change those that the helper starts.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PLACES = ["/usr/bin", "/opt/aws/mountpoint-s3/bin"]
if not WORKSPACES:
    SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:" + SYSTEM_PATH
    PLACES = [*SYSTEM_PATH.split(":"), "/opt/aws/mountpoint-s3/bin", "/usr/local/games"]


def main() -> None:
    try:
        _shed()
        answer = ensure(*given())
    except Failed as failed:
        answer = {"ok": False, "code": failed.code, "detail": failed.detail}
    except OSError as error:
        answer = {"ok": False, "code": "failed", "detail": "%s: %s" % (error.strerror, error.filename)}
    signal.alarm(0)
    json.dump(answer, sys.stdout)


def _shed() -> None:
    """Take over nothing from who calls it that would stop it half-way, with the lock held."""
    os.chdir("/")
    os.umask(0o022)
    if os.getpid() == os.getpgid(0) and (child := os.fork()):
        os.waitpid(child, 0)
        os._exit(0)
    os.setsid()  # away from the terminal, where ^Z would stop it
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, _overdue)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.alarm(LIMIT_S)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
        most = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the credentials would be in it


def _overdue(number: int, frame: object) -> None:
    raise Failed("not_ready", "no end after %d s" % LIMIT_S)


def ensure(request: Request, brought: object) -> Request:
    """Bring about that each mount is there, is alive and has credentials that will do."""
    wanted = told(request)
    mounts = [Mount(one, wanted["region"], wanted["endpoint"]) for one in wanted["mounts"]]
    new, expires = credentials(brought), expiry(request)
    make_home()
    with open(HOME + "/lock", "w", opener=for_root) as lock:
        take(lock.fileno())
        keys = Keys(wanted["id"], digest(wanted))
        stale = keys.replace(new, expires)
        wanting = mounts
        if keys.same:
            # mount-s3 goes on with credentials that S3 refuses until the end that they name, whatever is stored here.
            asks_s3 = stale or new is not None
            checks = [(one, Check(one.directory)) for one in mounts]
            wanting = [one for one, check in checks if not _is_well(check, asks_s3)]
        moved = [place for mount in wanting for place in mount.clear()]
        # Side by side: each takes about a second.
        for mount, child in [(mount, mount.start(keys)) for mount in wanting]:
            mount.finish(child, keys)
        keys.publish()
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
        """Return "major:minor" of the mount, ``""`` when there is none; refuse what somebody else mounted."""
        found = ""
        with open("/proc/self/mountinfo", errors="surrogateescape") as table:
            for line in table:
                fields = line.split(" ")
                if fields[4] != written(self.directory):
                    continue
                kind, source = line.partition(" - ")[2].split(" ")[:2]
                if not kind.startswith("fuse") or source != SOURCE:
                    raise Failed("foreign_mount", "%s is a mount of %s (%s)" % (self.directory, source, kind))
                found = fields[2]
        return found

    def clear(self) -> list[str]:
        """Take away what is mounted, and empty the directory; return where files of it were moved to."""
        self._end_daemon()
        for _ in range(20):
            if not self.device():
                return self._emptied()
            self._unmount()
        raise Failed("cannot_unmount", self.directory)

    def _end_daemon(self) -> None:
        """Kill the daemon: whenever it ends it unmounts what is at its path then, also a new mount (mount-s3).

        Whoever waits for one that hangs is set free by that.
        """
        path = os.fsencode(self.directory)
        daemons = [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if path in _words(pid)
            and any(word.endswith(b"mount-s3") for word in _words(pid))
            and _serves(pid)
        ]
        for pid in daemons:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + END_S
        while any(map(_serves, daemons)) and time.monotonic() < until:
            time.sleep(0.002)

    def _unmount(self) -> None:
        """Detach it, also from under whoever is in it. A dead one would keep a new one from being made."""
        import subprocess

        commands = (["umount", "-l"], ["fusermount3", "-u", "-z"], ["fusermount", "-u", "-z"])
        said = ""
        for command in commands:
            try:
                done = subprocess.run(
                    [*command, self.directory], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, env={"PATH": SYSTEM_PATH}, timeout=START_S, check=False,
                )  # fmt: skip
            except FileNotFoundError:
                continue
            except subprocess.TimeoutExpired:
                said = "no end after %.0f s" % START_S
                continue
            if done.returncode == 0:
                return
            said = done.stdout.decode("utf-8", "replace")
        raise Failed("cannot_unmount", said)

    def _emptied(self) -> list[str]:
        """Make the directory, empty: what lay in it would be hidden by the mount, and so be lost."""
        try:
            os.makedirs(self.directory, exist_ok=True)
            names = os.listdir(self.directory)
        except (FileExistsError, NotADirectoryError):
            raise Failed("not_a_directory", self.directory) from None
        if names and WORKSPACES:
            # The agent cannot have put it there, and to move it would be root's hand in what may be anybody's.
            raise Failed("not_empty", "there are files in %s" % self.directory)
        moved = []
        if names:
            import shutil
            import tempfile

            place = tempfile.mkdtemp(prefix="found-under-workspace-", dir="/tmp")
            os.chmod(place, 0o755)  # noqa: S103 - as readable as the directory that they lay in
            for name in names:
                shutil.move(os.path.join(self.directory, name), os.path.join(place, name))
            moved.append(place)
        # Without a mount, only root could write into it.
        os.chown(self.directory, 0, 0)
        os.chmod(self.directory, 0o555)  # noqa: S103
        return moved

    def start(self, keys: Keys) -> int:
        """Start mount-s3; return the process that ends when it is mounted."""
        program = next((path for path in (at + "/mount-s3" for at in PLACES) if os.access(path, os.X_OK)), "")
        if not program:
            raise Failed("no_mount_s3")
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            raise Failed("no_fuse", error.strerror or "") from None
        words, environment = [program, *self._arguments()], keys.environment(SYSTEM_PATH)
        # To wait for its end without taking from it, again and again, the time that it needs to start.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            _become(words, environment, self._log(keys))
        return pid

    def finish(self, child: int, keys: Keys) -> None:
        """Wait until it is mounted and its daemon answers: S3 has answered mount-s3 before."""
        limit = time.monotonic() + START_S
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended:
            left_s = limit - time.monotonic()
            if left_s <= 0:
                os.killpg(child, signal.SIGKILL)
            signal.sigtimedwait([signal.SIGCHLD], left_s if left_s > 0 else END_S)
            ended, status = os.waitpid(child, os.WNOHANG)
        if status != 0:
            with open(self._log(keys), errors="replace") as file:
                said = keys.hidden(file.read(LIMIT_CHARS))
            raise refusal(said or "it ended with status %d" % status)
        # It can return before the kernel's first question is answered.
        until = time.monotonic() + READY_S
        while True:
            check = Check(self.directory)
            try:
                if check.is_alive(ALIVE_S):
                    return
            finally:
                check.end()
            if time.monotonic() > until:
                raise Failed("not_ready")
            time.sleep(0.005)

    def _log(self, keys: Keys) -> str:
        return "%s/mount-%s.log" % (keys.directory, "skills" if self.read_only else "workspace")

    def _arguments(self) -> list[str]:
        words = [self.bucket, self.directory, "--region", self.region, "--allow-other", "--no-log"]
        words += ["--read-only"] if self.read_only else ["--allow-delete", "--allow-overwrite"]
        if self.prefix:
            words += ["--prefix", self.prefix]
        if self.endpoint:
            words += ["--endpoint-url", self.endpoint, "--force-path-style"]
        # The files are to be the agent's, whom sudo names; 0 is refused (mount-s3).
        for option, name in (("--uid", "SUDO_UID"), ("--gid", "SUDO_GID")):
            number = os.environ.get(name, "0")
            if re.fullmatch("[1-9][0-9]*", number):
                words += [option, number]
        return words


def refusal(said: str) -> Failed:
    """Tell from what mount-s3 printed why it did not mount."""
    if "/dev/fuse" in said or "fuse: device not found" in said:
        return Failed("no_fuse", said)
    if "Timeout after" in said:
        # It asks again and again while S3 does not answer, and gives up after 30 seconds.
        return Failed("unreachable", said)
    if "initial ListObjectsV2 failed" not in said:
        return Failed("refused", said)
    if "expired" in said:
        return Failed("expired", said)
    if "Wrong region" in said:
        return Failed("wrong_region", said)
    if "bucket does not exist" in said or "NoSuchBucket" in said:
        return Failed("no_bucket", said)
    if "No signing credentials" in said:
        return Failed("no_signing", said)
    if "Forbidden" in said or "AccessDenied" in said or "Access Denied" in said:
        return Failed("denied", said)
    return Failed("unreachable", said)


def _is_well(check: Check, asks_s3: bool) -> bool:
    """Tell whether the mount's daemon answers, and whether S3 lets it in, if that is asked for."""
    try:
        return check.is_alive(ALIVE_S) and not (asks_s3 and check.is_refused(ANSWER_S))
    finally:
        check.end()


def _words(pid: int) -> list[bytes]:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _serves(pid: int) -> bool:
    """Tell whether a process has a FUSE device open."""
    at = "/proc/%d/fd/" % pid
    try:
        return any(os.readlink(at + name) == "/dev/fuse" for name in os.listdir(at))
    except OSError:
        return False  # it has ended


def _become(words: list[str], environment: dict[str, str], log: str) -> NoReturn:
    """Become mount-s3, in the child after a fork."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()  # the end of the call that starts it must not end it
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.closerange(3, 256)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execve(words[0], words, environment)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
