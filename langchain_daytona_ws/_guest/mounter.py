"""Mount the workspace's prefixes with mount-s3: the one thing that is done as root. A program of its own.

It is sent along as text and run by root, through sudo, or stands as a root-owned helper in the snapshot that
``s3-snapshot`` builds; with ``mount_request`` and ``mount_keys`` written out in front, it needs nothing of the
package. One JSON object comes on standard input, one goes to standard output. As the helper it can do nothing but
this: mount prefixes of buckets below fixed directories.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

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
    from typing import Any, Callable

    Request = dict[str, Any]

SOURCE = "mountpoint-s3"  # what the kernel calls such a mount
START_S = 40.0  # mount-s3 itself gives up after 30
READY_S = 10.0
PROBE_S = 10.0
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
        answer = ensure(given())
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


def ensure(request: Request) -> Request:
    """Bring about that each mount is there, is alive and has credentials that will do."""
    wanted = told(request)
    mounts = [Mount(one, wanted["region"], wanted["endpoint"]) for one in wanted["mounts"]]
    new, expires = credentials(request), expiry(request)
    make_home()
    with open(HOME + "/lock", "w", opener=for_root) as lock:
        take(lock.fileno())
        keys = Keys(wanted["id"], digest(wanted))
        stale = keys.replace(new, expires)
        wanting = [
            one for one in mounts if not (keys.same and one.is_live() and (not stale or one.answers()))
        ]
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
                if fields[4] != _escaped(self.directory):
                    continue
                kind, source = line.partition(" - ")[2].split(" ")[:2]
                if not kind.startswith("fuse") or source != SOURCE:
                    raise Failed("foreign_mount", "%s is a mount of %s (%s)" % (self.directory, source, kind))
                found = fields[2]
        return found

    def is_live(self) -> bool:
        """Tell whether a daemon answers for it: a dead one gives ENOTCONN (mount-s3)."""
        device = self.device()
        return bool(device) and _within(PROBE_S, lambda: self._is_at(device))

    def _is_at(self, device: str) -> bool:
        at = os.stat(self.directory).st_dev
        return "%d:%d" % (os.major(at), os.minor(at)) == device

    def answers(self) -> bool:
        """Tell whether S3 answers through it: with an expired token every look fails, or hangs."""
        return _within(PROBE_S, self._reaches_s3)

    def _reaches_s3(self) -> bool:
        try:
            os.stat("%s/.langchain-daytona-ws-%s" % (self.directory, os.urandom(8).hex()))
        except FileNotFoundError:
            return True
        except OSError:
            # S3 may answer 403 for what is missing, where listing is allowed under a condition only.
            with os.scandir(self.directory) as entries:
                next(entries, None)
        return True

    def clear(self) -> list[str]:
        """Take away what is mounted, and empty the directory; return where files of it were moved to."""
        for _ in range(20):
            if not self.device():
                return self._emptied()
            self._unmount()
        raise Failed("cannot_unmount", self.directory)

    def _unmount(self) -> None:
        """Detach it, also from under whoever is in it. A dead one would keep a new one from being made."""
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

            place = tempfile.mkdtemp(prefix="found-under-workspace-", dir="/tmp")
            os.chmod(place, 0o755)  # noqa: S103 - as readable as the directory that they lay in
            for name in names:
                shutil.move(os.path.join(self.directory, name), os.path.join(place, name))
            moved.append(place)
        # Without a mount, only root could write into it.
        os.chown(self.directory, 0, 0)
        os.chmod(self.directory, 0o555)  # noqa: S103
        return moved

    def start(self, keys: Keys) -> subprocess.Popen[bytes]:
        program = next((path for path in (at + "/mount-s3" for at in PLACES) if os.access(path, os.X_OK)), "")
        if not program:
            raise Failed("no_mount_s3")
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            raise Failed("no_fuse", error.strerror or "") from None
        with open(self._log(keys), "wb") as said:
            return subprocess.Popen(
                [program, *self._arguments()],
                cwd="/",
                env=keys.environment(SYSTEM_PATH),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # The end of the call that starts it must not end it.
                start_new_session=True,
            )

    def finish(self, child: subprocess.Popen[bytes], keys: Keys) -> None:
        """Wait until it is mounted and S3 has answered through it."""
        limit = time.monotonic() + START_S
        # A wait of subprocess with a limit sleeps for up to 50 ms at a time.
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        if child.poll() is None:
            os.killpg(child.pid, 9)
        code = child.wait()
        if code != 0:
            with open(self._log(keys), errors="replace") as file:
                said = keys.hidden(file.read(LIMIT_CHARS))
            raise refusal(said or "it ended with %d" % code)
        # It can return before the kernel's first question is answered.
        until = time.monotonic() + READY_S
        while not self.is_live():
            if time.monotonic() > until:
                raise Failed("not_ready")
            time.sleep(0.02)
        if not self.answers():
            raise Failed("not_ready", "the mount is there, and looking into it fails")

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
    if "/dev/fuse" in said:
        return Failed("no_fuse", said)
    if "initial ListObjectsV2 failed" not in said:
        return Failed("refused", said)
    if "expired" in said:
        return Failed("credentials", said)
    if "Wrong region" in said:
        return Failed("wrong_region", said)
    if "bucket does not exist" in said or "NoSuchBucket" in said:
        return Failed("no_bucket", said)
    if "No signing credentials" in said:
        return Failed("no_signing", said)
    if "Forbidden" in said or "AccessDenied" in said or "Access Denied" in said:
        return Failed("denied", said)
    return Failed("unreachable", said)


def _within(limit_s: float, look: Callable[[], bool]) -> bool:
    """Look at a mount in a process of its own: while its daemon does not answer, no signal ends that (FUSE)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.closerange(0, 256)  # the lock, and the pipes to who calls: this process may stay behind
            code = 0 if look() else 1
        finally:
            os._exit(code)
    until = time.monotonic() + limit_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.002)


def _escaped(path: str) -> str:
    """Write a path as the kernel's table of mounts does."""
    for char, code in (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("#", "\\043")):
        path = path.replace(char, code)
    return path


if __name__ == "__main__":
    main()
