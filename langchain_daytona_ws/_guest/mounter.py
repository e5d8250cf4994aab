"""Mount the workspace's prefixes with mount-s3: the one thing that is done as root. A program of its own.

It is sent along as text and run by root, through sudo, or stands as a root-owned helper in the snapshot that
``s3-snapshot`` builds; so it imports nothing of the package. One JSON object comes on standard input, one goes to
standard output. As a helper it can do nothing but this: mount prefixes of buckets below fixed directories. Then
whoever calls it is not trusted: the agent can do so too, with a request of its own making. Credentials that were
given for one mount are used for no other, and what is published of a mount is worked out here, not believed.

What the agent's user must not read (credentials, AWS configuration) lies in a directory that only root may enter.
mount-s3 finds the credentials through ``credential_process``, which it runs again before they expire, so that a new
file is all that a rotation takes (mount-s3 CONFIGURATION).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Request = dict[str, Any]

HOME = "/var/lib/langchain-daytona-ws"
SOURCE = "mountpoint-s3"  # what the kernel calls such a mount
VERSION = 1
LOCK_S = 60.0
START_S = 40.0  # mount-s3 itself gives up after 30
READY_S = 10.0
PROBE_S = 10.0
LIMIT_S = 100  # less than who calls it waits for
LIMIT_CHARS = 64 * 1024
DETAIL = 800
# Set when it is written into a snapshot as the helper: the only directories in which it mounts.
WORKSPACES = ""
SKILLS = ""
# Where programs are. The build has seen to it that nobody but root can change those that the helper starts.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PLACES = ["/usr/bin", "/opt/aws/mountpoint-s3/bin"]
if not WORKSPACES:
    SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:" + SYSTEM_PATH
    PLACES = [*SYSTEM_PATH.split(":"), "/opt/aws/mountpoint-s3/bin", "/usr/local/games"]

# None of them may be taken for an option or reach into another place.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_REGION = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_ENDPOINT = r"[Hh][Tt][Tt][Pp][Ss]?://[!-\[\]-~]{1,2000}"
_KEY = r"[!-~]{1,16384}"


class Failed(Exception):  # noqa: N818 - as the errors of this package are named
    """It cannot be mounted; the code and detail go back to the host."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail[-DETAIL:]


def main() -> None:
    try:
        _shed()
        answer = ensure(_given())
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
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        most = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the credentials would be in it


def _overdue(number: int, frame: object) -> None:
    raise Failed("not_ready", "no end after %d s" % LIMIT_S)


def _given() -> object:
    try:
        text = sys.stdin.read(LIMIT_CHARS + 1)
        if len(text) <= LIMIT_CHARS:
            return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise Failed("bad_request", "it is no JSON, or more than %d characters" % LIMIT_CHARS)


def ensure(given: object) -> Request:
    """Bring about that each mount is there, is alive and has credentials that will do."""
    request = _object(given, "request")
    if request.get("version") != VERSION:
        raise Failed("helper_version")
    told = _told(request)
    mounts = [Mount(one, told["region"], told["endpoint"]) for one in told["mounts"]]
    spec = digest(told)
    credentials = _credentials(request)
    expires = _expiry(request)
    _make_home()
    with open(HOME + "/lock", "w", opener=_for_root) as lock:
        _take(lock.fileno())
        keys = Keys(told["id"])
        same = keys.spec() == spec
        stale = keys.replace(spec, credentials, expires)
        wanting = [one for one in mounts if not (same and one.is_live() and (not stale or one.answers()))]
        moved = [place for mount in wanting for place in mount.clear()]
        # Side by side: each takes about a second.
        for mount, child in [(mount, mount.start(keys)) for mount in wanting]:
            mount.finish(child, keys)
        keys.publish(spec)
    return {"ok": True, "moved": moved}


def digest(told: object) -> str:
    """Name a value by what it is: the specification of mounts, or credentials. The host does the same."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _told(request: Request) -> Request:
    """Return what is to be mounted where, checked, in the order in which the host names its digest."""
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
    above, name = os.path.split(directory)
    if not directory.isprintable() or os.path.normpath(directory) != directory or above.startswith("//"):
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


def _credentials(request: Request) -> Request | None:
    """Return credentials as a ``credential_process`` has to print them."""
    if request.get("credentials") is None:
        return None
    given = _object(request["credentials"], "credentials")
    told: Request = {"Version": 1}
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"):
        if name in given or name.endswith("Id") or name.startswith("Secret"):
            told[name] = _text(given, name, _KEY)
    return told


def _expiry(request: Request) -> str:
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


def _for_root(path: str, flags: int) -> int:
    """Open a file that only root may even read: whoever can may lock it, and keep the lock."""
    return os.open(path, flags, 0o600)


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
        self.directory = "%s/%s" % (HOME, name)
        self.status = self.directory + ".status"  # "spec serial expiry", for all to read
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)
        self._file = self.directory + "/credentials.json"
        self._spec, self._serial, self._expires = self._read()

    def spec(self) -> str:
        """Return what is mounted, for which the credentials were given; ``""`` when that is not known."""
        return self._spec

    def replace(self, spec: str, given: Request | None, expires: str) -> bool:
        """Store new credentials; return whether those that a mount may still use have, or nearly have, expired."""
        old = float(self._expires or "inf")
        if given is None:
            if spec != self._spec or old <= time.time():
                raise Failed("credentials")
        else:
            told = [given["AccessKeyId"], given["SecretAccessKey"], given.get("SessionToken")]
            if self._spec != spec and self._spec:
                # Should this end here, the new ones must not pass for those of the old mounts.
                os.unlink(self.status)
            if self._serial != digest(told):
                self._write(self._file, json.dumps(given), 0o600)
                self._serial = digest(told)
                self._expires = expires
        # mount-s3 asks for new ones five minutes before the end of those that it has.
        return old - 300 <= time.time()

    def publish(self, spec: str) -> None:
        line = "%s %s %s\n" % (spec, self._serial, self._expires or "never")
        self._write(self.status, line, 0o644)

    def hidden(self, said: str) -> str:
        """Take the credentials out of what a program printed."""
        with open(self._file) as file:
            for name, value in json.load(file).items():
                if name not in ("Version", "Expiration"):
                    said = said.replace(value, "***")
        return said

    def environment(self) -> dict[str, str]:
        """Give mount-s3 no way to credentials but this one."""
        cat = next((path for path in ("/bin/cat", "/usr/bin/cat") if os.path.exists(path)), "cat")
        process = "credential_process = %s %s" % (cat, self._file)
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
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                os.fchmod(fd, mode)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise


class Mount:
    """One prefix of a bucket at one directory."""

    def __init__(self, told: Request, region: str, endpoint: str | None) -> None:
        self.bucket = told["bucket"]
        self.prefix = told["prefix"]
        self.read_only = told["read_only"]
        self.region = region
        self.endpoint = endpoint
        above, name = os.path.split(told["directory"])
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
