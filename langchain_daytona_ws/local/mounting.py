"""Allows sandboxes to mount S3: installs mount-s3 with its libraries, grants /dev/fuse and the right to mount."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import stat
from pathlib import Path

from .errors import S3Unavailable
from .scratch import copy_compiled

# The folder in which the packages of the original mount-s3 install it.
HOME = "/opt/aws/mountpoint-s3"
DEVICE = "/dev/fuse"
_FUSE_DEVICE_NUMBER = os.makedev(10, 229)
# The package's mounter searches both folders for mount-s3; `rootfs.SYSTEM_PATH` has only the first. The program's
# folder is bound over the first of them that is empty, because no file can be added below /usr, which is read-only.
_PATH_FOLDERS = ("/usr/local/sbin", "/usr/local/games")
# All pure Python, so that any interpreter in the sandbox can import them.
_LIBRARIES = ("botocore", "dateutil", "jmespath", "mfusepy", "six", "urllib3")
# Only these service descriptions of botocore are copied: the descriptions of all services are its largest part.
_SERVICES = ("s3", "sso", "sso-oidc", "sts")
_PROGRAM = f"""\
#!{{python}} -IS
import sys

sys.path.insert(0, "{HOME}/lib")

from mountpoint.__main__ import main

main({{start_s}})
"""
# How long the parent process of the local mount-s3 waits for the mount.
START_S = 30.0
# The daemon runs in a separate user namespace, in which it may mount. The mounts of bubblewrap belong to the outer
# namespace and are locked: the sandbox can neither make them writable nor unmount them.
_UNSHARE_OPTIONS = ("--user", "--map-root-user", "--mount", "--")


class MountTools:
    """Installs mount-s3 once for all sandboxes of a server: the local program (`mountpoint`), or the original.

    `python` runs the local program in sandboxes. `original` is the path of the original mount-s3; None for the local
    program.

    Raises:
        S3Unavailable: a dependency is not installed.
    """

    def __init__(
        self, root: Path, python: str, capabilities: tuple[str, ...], original: Path | None = None
    ) -> None:
        self._home = root / "mountpoint-s3"
        self._unshare = _require("unshare")
        self._setpriv = _require("setpriv")
        allowed = [name.removeprefix("CAP_").lower() for name in (*capabilities, "CAP_SYS_ADMIN")]
        self._bounding_set = ",".join(["-all", *(f"+{name}" for name in allowed)])
        if original is None:
            _install(self._home, python)
        else:
            _install_original(self._home, original)
        self._device = _device(root / "devices")

    @property
    def additional_path(self) -> str | None:
        """The folder to add to PATH; None if the program is in one of `_PATH_FOLDERS`."""
        return None if self._empty_path_folder() else f"{HOME}/bin"

    def binds(self) -> list[str]:
        """Return the arguments for bubblewrap."""
        # CAP_SETFCAP is needed to map root of the inner namespace; then the bounding set removes CAP_SETFCAP.
        arguments = ["--cap-add", "CAP_SETFCAP", "--ro-bind", str(self._home), HOME]
        folder = self._empty_path_folder()
        if folder is not None:
            arguments += ["--ro-bind", str(self._home / "bin"), folder]
        if self._device is not None:
            arguments += ["--dev-bind", str(self._device), DEVICE]
        return arguments

    def wrap(self, command: list[str]) -> list[str]:
        """Return a command that gets the right to mount, and then becomes `command` (exec)."""
        bounded = [self._setpriv, "--bounding-set", self._bounding_set, "--", *command]
        return [self._unshare, *_UNSHARE_OPTIONS, *bounded]

    def _empty_path_folder(self) -> str | None:
        for name in _PATH_FOLDERS:
            with contextlib.suppress(OSError):
                if not os.listdir(name):
                    return name
        return None


def _require(program: str) -> str:
    path = shutil.which(program, path="/usr/bin:/bin")
    if path is None:
        raise S3Unavailable(f"s3=True needs {program}: install the package `util-linux`")
    return path


def _install(home: Path, python: str) -> None:
    """Copy the program and its libraries into a folder that unprivileged users can read."""
    library = home / "lib"
    library.mkdir(parents=True)
    for name in _LIBRARIES:
        _copy(name, library)
    copy_compiled(Path(__file__).parent / "mountpoint", library / "mountpoint")
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
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise S3Unavailable(
            f"s3=True needs the package {name}: install the extra `local` (pip install 'langchain-daytona-ws[local]')"
        )
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        shutil.copy2(origin, library)
        return

    def skip(folder: str, names: list[str]) -> set[str]:
        if Path(folder) != origin.parent / "data":
            return set()
        return {name for name in names if (Path(folder) / name).is_dir() and name not in _SERVICES}

    # Compiled files are copied too: a sandbox's Python of the same version can use them.
    shutil.copytree(origin.parent, library / name, ignore=skip)


def _device(folder: Path) -> Path | None:
    """Return a FUSE device that the sandboxes' users can open; None if there is none.

    If other users cannot open the machine's /dev/fuse, and the server runs as root, create a second device in `folder`.
    The machine's /dev/fuse is not changed.
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
        folder.chmod(0o711)  # independent of the umask: the sandboxes' users must enter it
        os.mknod(node, stat.S_IFCHR | 0o600, _FUSE_DEVICE_NUMBER)
        node.chmod(0o666)
        os.close(os.open(node, os.O_RDWR))  # fails on a disk mounted with `nodev`
    except OSError:
        return None
    return node
