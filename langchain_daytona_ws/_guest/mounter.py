"""Mount the workspace's prefixes with mount-s3: the one thing that is done as root. A program of its own.

It is sent along as text and run by root, through sudo, or stands as a root-owned helper in the snapshot that
``s3-snapshot`` builds; so it imports nothing of the package. One JSON object comes on standard input, one goes to
standard output. As a helper it can do nothing but this: mount prefixes of buckets below fixed directories.

What the agent's user must not read (credentials, AWS configuration) lies in a directory that only root may enter.
mount-s3 finds the credentials through ``credential_process``, which it runs again before they expire, so that a new
file is all that a rotation takes (mount-s3 CONFIGURATION).
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

HOME = "/var/lib/langchain-daytona-ws"
SOURCE = "mountpoint-s3"  # what the kernel calls such a mount
VERSION = 1
LOCK_S = 60.0
START_S = 40.0  # mount-s3 itself gives up after 30
READY_S = 10.0
PROBE_S = 10.0
DETAIL = 800
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLACES = (*SYSTEM_PATH.split(":"), "/opt/aws/mountpoint-s3/bin", "/usr/local/games")
# Set when it is written into a snapshot as the helper: the only directories in which it mounts.
WORKSPACES = ""
SKILLS = ""


class Failed(Exception):  # noqa: N818 - as the errors of this package are named
    """It cannot be mounted; the code and detail go back to the host."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail[-DETAIL:]


def main() -> None:
    try:
        answer = ensure(json.load(sys.stdin))
    except Failed as failed:
        answer = {"ok": False, "code": failed.code, "detail": failed.detail}
    except OSError as error:
        answer = {"ok": False, "code": "failed", "detail": "%s: %s" % (error.strerror, error.filename)}
    json.dump(answer, sys.stdout)


def ensure(request: Request) -> Request:
    """Bring about that each mount is there, is alive and has credentials that will do."""
    if request.get("version") != VERSION:
        raise Failed("helper_version")
    mounts = [Mount(one, request) for one in request["mounts"]]
    _make_home()
    with open(HOME + "/lock", "w") as lock:
        _take(lock.fileno())
        keys = Keys(request["id"])
        stale = keys.replace(request)
        same = keys.spec() == request["spec"]
        wanting = [one for one in mounts if not (same and one.is_live() and (not stale or one.answers()))]
        moved = [place for mount in wanting for place in mount.clear()]
        # Side by side: each takes about a second.
        for mount, child in [(mount, mount.start(keys)) for mount in wanting]:
            mount.finish(child, keys)
        keys.publish(request["spec"])
    return {"ok": True, "moved": moved}


def _make_home() -> None:
    if os.geteuid() != 0:
        raise Failed("not_root")
    os.makedirs(HOME, exist_ok=True)
    os.chmod(HOME, 0o755)


def _take(fd: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Failed("busy") from None
            time.sleep(0.05)


class Keys:
    """The credentials of one workspace, where only root finds them; and what anybody may know of them."""

    def __init__(self, name: str) -> None:
        if not name.isalnum():
            raise Failed("bad_request", "id")
        self.directory = "%s/%s" % (HOME, name)
        self.status = self.directory + ".status"  # "spec serial expiry", for all to read
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o700)
        self._serial = self._expires = ""

    def replace(self, request: Request) -> bool:
        """Store new credentials; return whether those that a mount may still use have, or nearly have, expired."""
        _spec, self._serial, self._expires = self._read()
        given = request.get("credentials")
        old = float(self._expires or "inf")
        if given is None:
            if not self._serial or old <= time.time():
                raise Failed("credentials")
        elif request["serial"] != self._serial:
            self._write(self.directory + "/credentials.json", json.dumps(given), 0o600)
            self._serial = request["serial"]
            self._expires = "" if request["expires_at"] is None else "%.0f" % request["expires_at"]
        # mount-s3 asks for new ones five minutes before the end of those that it has.
        return old - 300 <= time.time()

    def spec(self) -> str:
        return self._read()[0]

    def publish(self, spec: str) -> None:
        line = "%s %s %s\n" % (spec, self._serial, self._expires or "never")
        self._write(self.status, line, 0o644)

    def environment(self) -> dict[str, str]:
        """Give mount-s3 no way to credentials but this one."""
        cat = next((path for path in ("/bin/cat", "/usr/bin/cat") if os.path.exists(path)), "cat")
        process = "credential_process = %s %s/credentials.json" % (cat, self.directory)
        self._write(self.directory + "/config", "[default]\n%s\n" % process, 0o600)
        return {
            "PATH": SYSTEM_PATH,
            "HOME": "/root",
            "AWS_CONFIG_FILE": self.directory + "/config",
            "AWS_SHARED_CREDENTIALS_FILE": self.directory + "/none",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _read(self) -> tuple[str, str, str]:
        try:
            with open(self.status) as file:
                spec, serial, expires = file.read().split()
        except (OSError, ValueError):
            return "", "", ""
        return spec, serial, "" if expires == "never" else expires

    def _write(self, path: str, text: str, mode: int) -> None:
        """Replace a file whole: a refresh that reads half of it would lose credentials that still hold."""
        fd, new = tempfile.mkstemp(dir=self.directory)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            os.fchmod(fd, mode)
        os.rename(new, path)


class Mount:
    """One prefix of a bucket at one directory."""

    def __init__(self, wanted: Request, request: Request) -> None:
        self.bucket = wanted["bucket"]
        self.prefix = wanted["prefix"]
        self.read_only = wanted["read_only"]
        self.region = request["region"]
        self.endpoint = request["endpoint"]
        for word in (self.bucket, self.prefix, self.region, self.endpoint or "", wanted["directory"]):
            # None of them may be taken for an option, or hold what a mount table could not.
            if word.startswith("-") or not word.isprintable():
                raise Failed("bad_request", word)
        above, name = os.path.split(wanted["directory"])
        self.directory = os.path.join(os.path.realpath(above), name)
        _check_place(self.directory)

    def device(self) -> str:
        """Return "major:minor" of the mount, ``""`` when there is none; refuse what somebody else mounted."""
        found = ""
        with open("/proc/self/mountinfo") as table:
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
        if not device:
            return False
        try:
            at = os.stat(self.directory).st_dev
        except OSError:
            return False
        return "%d:%d" % (os.major(at), os.minor(at)) == device

    def answers(self) -> bool:
        """Tell whether S3 answers through it: with an expired token every look fails, or hangs."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if self._reaches_s3() else 1
            finally:
                os._exit(code)
        until = time.monotonic() + PROBE_S
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status == 0
            if time.monotonic() > until:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.01)

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
        moved = []
        if names:
            import shutil

            place = tempfile.mkdtemp(prefix="found-under-workspace-", dir="/tmp")  # noqa: S108
            os.chmod(place, 0o755)  # noqa: S103 - as readable as the directory that they lay in
            for name in names:
                shutil.move(os.path.join(self.directory, name), os.path.join(place, name))
            moved.append(place)
        # Without a mount, only root could write into it.
        os.chown(self.directory, 0, 0)
        os.chmod(self.directory, 0o555)
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
                env=keys.environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # The end of the call that starts it must not end it.
                start_new_session=True,
            )

    def finish(self, child: subprocess.Popen[bytes], keys: Keys) -> None:
        """Wait until it is mounted and S3 has answered through it."""
        try:
            code = child.wait(START_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            code = child.wait()
        if code != 0:
            with open(self._log(keys), errors="replace") as said:
                raise refusal(said.read() or "it ended with %d" % code)
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
            if number.isdigit() and number != "0":
                words += [option, number]
        return words


def refusal(said: str) -> Failed:
    """Tell from what mount-s3 printed why it did not mount."""
    if "/dev/fuse" in said:
        return Failed("no_fuse", said)
    if "initial ListObjectsV2 failed" not in said:
        return Failed("refused", said)
    if "Wrong region" in said:
        return Failed("wrong_region", said)
    if "bucket does not exist" in said or "NoSuchBucket" in said:
        return Failed("no_bucket", said)
    if "No signing credentials" in said:
        return Failed("no_signing", said)
    if "Forbidden" in said or "AccessDenied" in said or "Access Denied" in said:
        return Failed("denied", said)
    return Failed("unreachable", said)


def _check_place(directory: str) -> None:
    """As the helper, mount nowhere but where the snapshot was built for."""
    above, name = os.path.split(directory)
    if not name or name in (".", ".."):
        raise Failed("bad_request", directory)
    if WORKSPACES and directory != SKILLS and above != WORKSPACES:
        raise Failed("other_place", "%s; the snapshot's are %s/* and %s" % (directory, WORKSPACES, SKILLS))


def _escaped(path: str) -> str:
    """Write a path as the kernel's table of mounts does."""
    for char, code in (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("#", "\\043")):
        path = path.replace(char, code)
    return path


if __name__ == "__main__":
    main()
