"""The credentials of the mounts, in a directory that only root may enter.

mount-s3 reads them through ``credential_process``, a command that it runs again before the credentials expire (mount-s3
CONFIGURATION). So expiring credentials are renewed by replacing a file, without a new mount. Each specification of
mounts has its own file: an earlier mount that is detached but still in use does not read the new credentials.
"""

from __future__ import annotations

import json
import os
import time

from langchain_daytona_ws._guest.locks import lock_within
from langchain_daytona_ws._guest.mount_request import MountError, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

HOME = "/var/lib/langchain-daytona-ws"
LOCK_S = 60.0


def make_home() -> None:
    if os.geteuid() != 0:
        raise MountError("not_root")
    os.makedirs(HOME, exist_ok=True)
    os.chmod(HOME, 0o755)  # noqa: S103 - the status in it is public


def acquire(fd: int) -> None:
    if not lock_within(fd, LOCK_S):
        raise MountError("busy")


def open_for_root(path: str, flags: int) -> int:
    """Open a file that only root can read: a user who can read a file can also lock it."""
    return os.open(path, flags, 0o600)


class CredentialStore:
    """The stored credentials of one specification of mounts, and their public status."""

    def __init__(self, name: str, spec: str) -> None:
        self.directory = "%s/%s" % (HOME, name)
        self.status = self.directory + ".status"  # "spec serial expiry", readable by all
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)
        self._spec = spec
        self._file = "%s/%s.json" % (self.directory, spec)
        self._serial = self._expires = ""
        published, serial, expires = self._read()
        # True: existing mounts can stay, because they have this specification and read this file.
        self.is_current = published == spec and os.path.exists(self._file)
        if self.is_current:
            self._serial, self._expires = serial, expires

    def replace(self, credentials: Request | None, expires: str) -> bool:
        """Store new credentials; None keeps the stored credentials.

        Return whether the old credentials, which a mount may still use, expire within five minutes.
        """
        old = float(self._expires or "inf")
        if credentials is None:
            if not self.is_current or old <= time.time():
                raise MountError("credentials")
        else:
            names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
            serial = digest([credentials.get(name) for name in names])
            if serial != self._serial:
                try:
                    self._write(self._file, json.dumps(credentials), 0o600)
                except OSError:
                    # If the disk is full, continue with the old credentials until five minutes before they expire:
                    # the command may free space.
                    if self.is_current and self._expires and old - 300 > time.time():
                        return False
                    raise
                # mount-s3 reads credentials without an expiry again only after 15 minutes: mount again.
                self.is_current = self.is_current and bool(self._expires)
                self._serial, self._expires = serial, expires
        # mount-s3 reads the file again five minutes before its credentials expire.
        return old - 300 <= time.time()

    def publish(self) -> None:
        """Write the public status, and delete the credentials of other specifications."""
        current = (self._spec, self._serial, self._expires)
        if self._read() != current:
            line = "%s %s %s\n" % (self._spec, self._serial, self._expires or "never")
            self._write(self.status, line, 0o644)
        for name in os.listdir(self.directory):
            if name.endswith(".json") and name != self._spec + ".json":
                os.unlink("%s/%s" % (self.directory, name))

    def redacted(self, output: str) -> str:
        """Replace the credentials in a program's output."""
        with open(self._file) as file:
            for name, value in json.load(file).items():
                if name not in ("Version", "Expiration"):
                    output = output.replace(value, "***")
        return output

    def environment(self, path: str) -> dict[str, str]:
        """Write mount-s3's configuration; return an environment in which mount-s3 uses only the stored credentials."""
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
        """Replace a file atomically: a refresh that reads half a file would lose valid credentials."""
        new = "%s/new-%s" % (self.directory, os.urandom(8).hex())
        try:
            with open(new, "x", opener=open_for_root) as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise
