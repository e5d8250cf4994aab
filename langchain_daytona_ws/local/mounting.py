"""What a sandbox needs to mount S3: the mount-s3 program with its libraries, /dev/fuse, and the right to mount."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import stat
from pathlib import Path

from .errors import S3Unavailable

# Where the original's packages install it.
HOME = "/opt/aws/mountpoint-s3"
DEVICE = "/dev/fuse"
_FUSE_NUMBER = os.makedev(10, 229)
# Folders of the usual PATH into which the program is put, if the host has nothing there: /usr itself is bound
# read-only as a whole.
_PATH_FOLDERS = ("/usr/local/sbin", "/usr/local/games")
# All of them plain Python, so that any interpreter of the sandbox can use them.
_LIBRARIES = ("botocore", "dateutil", "jmespath", "mfusepy", "six", "urllib3")
# Of botocore's descriptions of services, which are by far its largest part, those that are needed.
_SERVICES = ("s3", "sso", "sso-oidc", "sts")
_PROGRAM = f"""\
#!{{python}} -IS
import sys

sys.path.insert(0, "{HOME}/lib")

from mountpoint.__main__ import main

main({{start_s}})
"""
# How long the program waits for its mount (mount-s3).
START_S = 30.0
# A user namespace of the daemon's own, in which it may mount. What bubblewrap mounted belongs to the outer one
# and is locked: it can neither be made writable nor taken away to see what is below.
_UNSHARE = ("--user", "--map-root-user", "--mount", "--")


class MountTools:
    """mount-s3 for all sandboxes of a server, installed once in its folder: the local one, or an original."""

    def __init__(
        self, root: Path, python: str, capabilities: tuple[str, ...], original: Path | None = None
    ) -> None:
        self._home = root / "mountpoint-s3"
        self._unshare = _require("unshare")
        self._setpriv = _require("setpriv")
        kept = [name.removeprefix("CAP_").lower() for name in (*capabilities, "CAP_SYS_ADMIN")]
        self._bounds = ",".join(["-all", *(f"+{name}" for name in kept)])
        if original is None:
            _install(self._home, python)
        else:
            _install_original(self._home, original)
        self._device = _device(root / "devices")

    @property
    def path_folder(self) -> str | None:
        """What to add to the PATH; None when the program is in a folder that is on it anyway."""
        return None if self._path_folder() else f"{HOME}/bin"

    def binds(self) -> list[str]:
        """Return the arguments for bubblewrap."""
        # CAP_SETFCAP is what a namespace needs to have its root mapped into another; it ends there.
        arguments = ["--cap-add", "CAP_SETFCAP", "--ro-bind", str(self._home), HOME]
        folder = self._path_folder()
        if folder is not None:
            arguments += ["--ro-bind", str(self._home / "bin"), folder]
        if self._device is not None:
            arguments += ["--dev-bind", str(self._device), DEVICE]
        return arguments

    def wrap(self, command: list[str]) -> list[str]:
        """Return the command that runs `command`, as the same process, where it may mount."""
        bounded = [self._setpriv, "--bounding-set", self._bounds, "--", *command]
        return [self._unshare, *_UNSHARE, *bounded]

    def _path_folder(self) -> str | None:
        for name in _PATH_FOLDERS:
            with contextlib.suppress(OSError):
                if not os.listdir(name):
                    return name
        return None


def _require(program: str) -> str:
    found = shutil.which(program, path="/usr/bin:/bin")
    if found is None:
        raise S3Unavailable(f"s3=True needs {program}: install the package `util-linux`")
    return found


def _install(home: Path, python: str) -> None:
    """Copy the program and its libraries to where unprivileged users can read them."""
    library = home / "lib"
    library.mkdir(parents=True)
    for name in _LIBRARIES:
        _copy(name, library)
    shutil.copytree(
        Path(__file__).parent / "mountpoint",
        library / "mountpoint",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    program = home / "bin" / "mount-s3"
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(python=python, start_s=START_S))
    for parent, _, files in os.walk(home):
        os.chmod(parent, 0o755)  # noqa: S103 - read by the sandboxes' uids
        for name in files:
            os.chmod(os.path.join(parent, name), 0o644)
    program.chmod(0o755)


def _install_original(home: Path, original: Path) -> None:
    program = home / "bin" / "mount-s3"
    program.parent.mkdir(parents=True)
    shutil.copyfile(original, program)
    for path in (home, program.parent, program):
        path.chmod(0o755)


def _copy(name: str, library: Path) -> None:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise S3Unavailable(
            f"s3=True needs the package {name}: install the extra `local` (pip install 'langchain-daytona-ws[local]')"
        )
    origin = Path(found.origin)
    if origin.name != "__init__.py":
        shutil.copy2(origin, library)
        return

    def skip(folder: str, names: list[str]) -> set[str]:
        if Path(folder) != origin.parent / "data":
            return set()
        return {one for one in names if (Path(folder) / one).is_dir() and one not in _SERVICES}

    # With what Python has compiled, which is good for the sandbox's too if it is of the same version.
    shutil.copytree(origin.parent, library / name, ignore=skip)


def _device(folder: Path) -> Path | None:
    """Return a /dev/fuse that the sandboxes' users may open; None when there is none for them.

    The machine's own may be for root only, and is left as it is.
    """
    with contextlib.suppress(OSError):
        if stat.S_IMODE(os.stat(DEVICE).st_mode) & 0o006 == 0o006:
            return Path(DEVICE)
    if os.geteuid() != 0:
        return Path(DEVICE) if os.access(DEVICE, os.R_OK | os.W_OK) else None
    if not os.path.exists(DEVICE):
        return None
    node = folder / "fuse"
    try:
        folder.mkdir()
        folder.chmod(0o711)  # whatever the umask: the sandboxes' users pass through it
        os.mknod(node, stat.S_IFCHR | 0o600, _FUSE_NUMBER)
        node.chmod(0o666)
        os.close(os.open(node, os.O_RDWR))  # refused where the disk is mounted without devices
    except OSError:
        return None
    return node
