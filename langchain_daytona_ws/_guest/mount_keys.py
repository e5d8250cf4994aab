"""The credentials of the mounts, in a directory that only root may enter.

mount-s3 finds them through ``credential_process``, which it runs again before they expire, so that a new file is all
that a rotation takes (mount-s3 CONFIGURATION). Those that were given for one specification lie in a file of its own:
no other mount gets them, nor one that was detached and that somebody still has open.
"""

from __future__ import annotations

import fcntl
import json
import os
import time

from langchain_daytona_ws._guest.mount_request import Failed, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

HOME = "/var/lib/langchain-daytona-ws"
LOCK_S = 60.0


def make_home() -> None:
    if os.geteuid() != 0:
        raise Failed("not_root")
    os.makedirs(HOME, exist_ok=True)
    os.chmod(HOME, 0o755)  # noqa: S103 - all may look at what is published there


def take(fd: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Failed("busy") from None
            time.sleep(0.05)


def for_root(path: str, flags: int) -> int:
    """Open a file that only root may even read: whoever can may lock it, and keep the lock."""
    return os.open(path, flags, 0o600)


class Keys:
    """The credentials of one specification of mounts; and what anybody may know of them."""

    def __init__(self, name: str, spec: str) -> None:
        self.directory = "%s/%s" % (HOME, name)
        self.status = self.directory + ".status"  # "spec serial expiry", for all to read
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)
        self._spec = spec
        self._file = "%s/%s.json" % (self.directory, spec)
        self._serial = self._expires = ""
        published, serial, expires = self._read()
        # Whether the mounts that are there may stay: they are what is wanted, and get what is stored here.
        self.same = published == spec and os.path.exists(self._file)
        if self.same:
            self._serial, self._expires = serial, expires

    def replace(self, credentials: Request | None, expires: str) -> bool:
        """Store new credentials; return whether those that a mount may still use have, or nearly have, expired."""
        old = float(self._expires or "inf")
        if credentials is None:
            if not self.same or old <= time.time():
                raise Failed("credentials")
        else:
            names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
            serial = digest([credentials.get(name) for name in names])
            if serial != self._serial:
                try:
                    self._write(self._file, json.dumps(credentials), 0o600)
                except OSError:
                    # A full disk must not stop the command that would free it, while the old ones hold.
                    if self.same and self._expires and old - 300 > time.time():
                        return False
                    raise
                # For ones without an end mount-s3 asks again after a quarter of an hour only.
                self.same = self.same and bool(self._expires)
                self._serial, self._expires = serial, expires
        # mount-s3 asks for new ones five minutes before the end of those that it has.
        return old - 300 <= time.time()

    def publish(self) -> None:
        """Tell everybody what is mounted, and take away what was stored for other mounts."""
        known = (self._spec, self._serial, self._expires)
        if self._read() != known:
            line = "%s %s %s\n" % (self._spec, self._serial, self._expires or "never")
            self._write(self.status, line, 0o644)
        for name in os.listdir(self.directory):
            if name.endswith(".json") and name != self._spec + ".json":
                os.unlink("%s/%s" % (self.directory, name))

    def hidden(self, said: str) -> str:
        """Take the credentials out of what a program printed."""
        with open(self._file) as file:
            for name, value in json.load(file).items():
                if name not in ("Version", "Expiration"):
                    said = said.replace(value, "***")
        return said

    def environment(self, path: str) -> dict[str, str]:
        """Give mount-s3 no way to credentials but this one."""
        cat = next((at for at in ("/bin/cat", "/usr/bin/cat") if os.path.exists(at)), "cat")
        text = "[default]\ncredential_process = %s %s\n" % (cat, self._file)
        self._write(self.directory + "/config", text, 0o600)
        return {
            "PATH": path,
            "HOME": "/root",
            "AWS_CONFIG_FILE": self.directory + "/config",
            "AWS_SHARED_CREDENTIALS_FILE": self.directory + "/none",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _read(self) -> tuple[str, str, str]:
        try:
            with open(self.status) as file:
                spec, serial, expires = file.read().split()
                return spec, serial, "" if expires == "never" else "%d" % int(expires)
        except (OSError, ValueError):
            return "", "", ""

    def _write(self, path: str, text: str, mode: int) -> None:
        """Replace a file whole: a refresh that reads half of it would lose credentials that still hold."""
        new = "%s/new-%s" % (self.directory, os.urandom(8).hex())
        try:
            with open(new, "x", opener=for_root) as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise
