"""Starts and ends the processes of a sandbox, in bubblewrap or without isolation."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import logging
import os
import platform
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from . import rootfs, scratch
from .errors import IsolationUnavailable
from .link import Link
from .mounting import MountTools
from .toolbox import wire
from .toolbox.sessions import kill_members

IsolationKind: TypeAlias = Literal["bubblewrap", "none"]

START_S = 20.0
END_S = 10.0
DAEMON_FOLDER = "/run/daytona"
# The process name of Daytona's daemon. `pkill python` in the sandbox must not kill the local daemon.
DAEMON_NAME = "daytona"
# With these rights, root in the sandbox can change all files of its disk, and signal all its processes. It cannot
# configure the network or trace the daemon, and it can mount only with `Bubblewrap(mounts=True)`. The rights apply
# only in the sandbox's user namespace.
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
    "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip

# The number of the system call keyctl, for which the C library has no function.
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1

logger = logging.getLogger(__name__)


class ProcessTree:
    """The running processes of a sandbox: `process` is bubblewrap, or the daemon if there is no isolation.

    `control` is the daemon's control socket. `init_pid` is the host's pid of the sandbox's process 1; None without
    isolation.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, init_pid: int | None
    ) -> None:
        # A sandbox that does not read must not block the server's event loop.
        control.setblocking(False)
        self.link = Link(control)
        self._control = control
        self._process = process
        self._isolated = init_pid is not None
        # Keep a descriptor of the process, not its pid: after its end another process may get the pid.
        self._init = None if init_pid is None else _pidfd(init_pid)
        self._init_lock = threading.Lock()

    def set_env(self, env: Mapping[str, str]) -> None:
        """Send the environment variables of commands to the daemon. If this fails, end the sandbox and raise.

        The variables are not passed on a command line, because every user of the host can read command lines.
        """
        connection, daemon_end = socket.socketpair()
        try:
            with connection:
                with daemon_end:
                    socket.send_fds(self._control, [b"c"], [daemon_end.fileno()])
                connection.settimeout(START_S)
                connection.sendall(wire.pack({"op": "env", "set": dict(env), "unset": []}))
                connection.shutdown(socket.SHUT_WR)
                answer = wire.read_header(connection)
        except (OSError, EOFError, ValueError):
            self.end()
            raise
        if "code" in answer:
            self.end()
            raise ValueError(str(answer["message"]))

    def crash(self) -> None:
        """Kill all processes, including the daemon. The sandbox's record keeps the state `started`."""
        self._kill()
        self._process.wait(END_S)

    def end(self) -> None:
        """End all processes, and return when the last has ended. Blocks.

        Without isolation, processes survive if a command has killed the daemon.
        """
        self.link.close()  # ends the daemon; the kernel then kills the rest of its pid namespace
        if self._isolated:
            self._kill()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait(END_S)
        with self._init_lock:
            if self._init is not None:
                os.close(self._init)
                self._init = None

    def _kill(self) -> None:
        if not self._isolated:
            kill_members(self._process.pid)
            return
        with self._init_lock, contextlib.suppress(ProcessLookupError):
            if self._init is not None:
                signal.pidfd_send_signal(self._init, signal.SIGKILL)


class Bubblewrap:
    """Sandboxes with their own root folder, processes, hostname and users.

    Root (uid 0) in the sandbox is an unprivileged uid on the host: the uid of the server. If the server runs as root,
    it is a random uid for each sandbox, because the host's root could write to /proc/sys. A sandbox uses the network
    of the host, except if it is started with `offline`.

    Args:
        root: The server's folder.
        shell: The name of the shell that runs scripts; None if the daemon chooses it (`toolbox.execute.find_shell`).
        mounts: If True, install mount-s3 in the sandboxes, and allow them to mount.
        mount_program: The path of the original mount-s3; None for the local program.
        disk_bytes: The size of /tmp and the size of /mnt, in bytes; None for no limit.

    Raises:
        IsolationUnavailable: sandboxes cannot be isolated on this machine.
        S3Unavailable: with `mounts`, a dependency is not installed.
    """

    home = rootfs.HOME
    blocks_network = True

    def __init__(
        self,
        root: Path,
        shell: str | None,
        *,
        mounts: bool = False,
        mount_program: Path | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        self._root = root
        self._shell = shell or ""
        self._disk_bytes = disk_bytes
        self._bwrap = _find_bwrap()
        self._is_root = os.geteuid() == 0
        self._python, self._python_binds = _find_python()
        self._tar_env = _tar_env()
        self._daemon = root / "daemon"
        _install_daemon(self._daemon)
        (self._daemon / DAEMON_NAME).symlink_to(self._python)
        self._mounts = MountTools(root, self._python, CAPABILITIES, mount_program) if mounts else None
        if self._is_root:
            _require_reachable(root)
        self._sandboxes = root / "sandboxes"
        self._sandboxes.mkdir()
        self._sandboxes.chmod(0o711)  # independent of the umask: sandboxes must enter their own folder
        self._probe()

    def prepare(self, folder: Path, hostname: str) -> None:
        """Create the disk of a new sandbox in `folder`."""
        owner = _unprivileged_uid() if self._is_root else None
        disk = folder / "disk"
        disk.mkdir(parents=True)
        folder.chmod(0o700)
        rootfs.build(disk, hostname, owner)
        if owner is not None:
            os.chown(folder, owner, owner)

    def start(
        self, folder: Path, hostname: str, env: Mapping[str, str], *, offline: bool = False
    ) -> ProcessTree:
        """Start the daemon in the sandbox, and return when it is ready. Blocks.

        With `offline` the sandbox has no network.
        """
        options = self._argv(folder / "disk", hostname)
        _require_real_targets(folder / "disk", options)
        control, daemon_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        info_read, info_write = os.pipe()
        program = f"{DAEMON_FOLDER}/{DAEMON_NAME}"
        daemon = [program, "-I", "-S", DAEMON_FOLDER, str(daemon_end.fileno()), self.home, self._shell]
        argv = [
            *options,
            *(("--unshare-net",) if offline else ()),
            *("--info-fd", str(info_write)),
            *("--", *(daemon if self._mounts is None else self._mounts.wrap(daemon))),
        ]
        try:
            with daemon_end, open(folder / "daemon.log", "wb") as log:
                process = self._popen(
                    argv, (folder / "disk").stat().st_uid, (daemon_end.fileno(), info_write), log.fileno()
                )
        except BaseException:
            control.close()
            os.close(info_read)
            raise
        finally:
            os.close(info_write)
        with open(info_read, "rb") as info:
            _await_ready(process, control, folder / "daemon.log")
            processes = ProcessTree(process, control, int(json.load(info)["child-pid"]))
        processes.set_env(env)
        return processes

    def _argv(self, disk: Path, hostname: str) -> list[str]:
        argv = [self._bwrap, "--bind", str(disk), "/"]
        for source, target in (*rootfs.program_binds(), *self._python_binds):
            argv += ["--ro-bind", source, target]
        argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"]
        if self._disk_bytes is not None:
            for folder in ("/tmp", "/mnt"):  # noqa: S108 - the sandbox's own
                argv += ["--perms", "1777", "--size", str(self._disk_bytes), "--tmpfs", folder]
        argv += ["--ro-bind", str(self._daemon), DAEMON_FOLDER, "--chdir", self.home]
        if self._mounts is not None:
            argv += self._mounts.binds()
        argv += ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        argv += ["--uid", "0", "--gid", "0", "--hostname", hostname, "--as-pid-1"]
        for capability in CAPABILITIES:
            argv += ["--cap-add", capability]
        return argv

    def _popen(
        self, argv: list[str], uid: int, descriptors: tuple[int, ...], log: int
    ) -> subprocess.Popen[bytes]:
        env = _base_env(self.home) | self._tar_env
        if self._mounts is not None and self._mounts.additional_path is not None:
            env["PATH"] += f":{self._mounts.additional_path}"
        # Do not set the sandbox's own variables here: an LD_PRELOAD would take effect outside of the sandbox.
        return _popen_without_keys(
            argv,
            user=uid if self._is_root else None,
            group=uid if self._is_root else None,
            extra_groups=[] if self._is_root else None,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd="/",
            start_new_session=True,
        )

    def _probe(self) -> None:
        """Start a sandbox, to report missing requirements at the start of the server."""
        folder = self._sandboxes / "probe"
        try:
            self.prepare(folder, "probe")
            self.start(folder, "probe", {}).end()
        finally:
            scratch.remove(folder)


class NoIsolation:
    """Sandboxes that are ordinary processes of the host, with their own HOME and TMPDIR.

    Their commands have all rights of the server's user. Absolute paths, such as /mnt/workspaces, are paths of the
    host. For trusted code only.
    """

    blocks_network = False

    def __init__(self, root: Path, shell: str | None) -> None:
        self._shell = shell or ""
        self._daemon = root / "daemon"
        _install_daemon(self._daemon)
        logger.warning(
            "NO ISOLATION: commands in these sandboxes run on this machine as user %d, and can read and write "
            "all that this user can. Use it for trusted code only.",
            os.geteuid(),
        )

    def prepare(self, folder: Path, hostname: str) -> None:
        for name in ("home", "tmp"):
            (folder / name).mkdir(parents=True)

    def start(
        self, folder: Path, hostname: str, env: Mapping[str, str], *, offline: bool = False
    ) -> ProcessTree:
        if offline:
            raise IsolationUnavailable("without isolation, sandboxes use the machine's network")
        control, daemon_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        home = str(folder / "home")
        with daemon_end, open(folder / "daemon.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(self._daemon), str(daemon_end.fileno()), home, self._shell],
                pass_fds=(daemon_end.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_base_env(home), "TMPDIR": str(folder / "tmp")},
                cwd="/",
                start_new_session=True,
            )
        _await_ready(process, control, folder / "daemon.log")
        processes = ProcessTree(process, control, None)
        processes.set_env(env)
        return processes


def _base_env(home: str) -> dict[str, str]:
    return {
        "PATH": rootfs.SYSTEM_PATH,
        "HOME": home,
        "USER": rootfs.USER,
        "LOGNAME": rootfs.USER,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
    }


def _tar_env() -> dict[str, str]:
    """Return the environment variables that make GNU tar ignore the file owners in an archive.

    For root, tar would set these owners, which do not exist in a sandbox.
    """
    tar = shutil.which("tar", path=rootfs.SYSTEM_PATH)
    if tar is None:
        return {}
    version = subprocess.run([tar, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return {"TAR_OPTIONS": "--no-same-owner"} if b"GNU tar" in version.stdout else {}


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _popen_without_keys(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process with a new session keyring: the server's keyring may hold keys that sandboxes must not read.

    On architectures that `_KEYCTL` does not list, the process keeps the server's keyring.

    A child inherits the keyring of the thread that starts it. So a separate thread joins the new keyring and starts
    the process; the other threads keep the server's keyring.
    """
    results: list[subprocess.Popen[bytes] | BaseException] = []

    def start() -> None:
        try:
            _join_new_keyring()
            results.append(subprocess.Popen(argv, **options))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            results.append(error)

    thread = threading.Thread(target=start, name="local-daytona-start", daemon=True)
    thread.start()
    thread.join()
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _join_new_keyring() -> None:
    number = _KEYCTL.get(platform.machine())
    if number is None:
        return
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    if library.syscall(ctypes.c_long(number), ctypes.c_long(_JOIN_SESSION_KEYRING), None) >= 0:
        return
    code = ctypes.get_errno()
    # If the kernel has no keyrings, or the container forbids them, the sandbox cannot use them either.
    if code not in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
        raise IsolationUnavailable(f"cannot create a keyring for a sandbox: {os.strerror(code)}")


def _require_real_targets(disk: Path, argv: list[str]) -> None:
    """Raise IsolationUnavailable if the sandbox has replaced a mount target, for example by a symlink.

    bubblewrap creates missing targets before it enters the new root, so it would follow the link out of the disk.
    """
    for target in _targets(argv):
        path = disk
        for part in Path(target).parts[1:]:
            path /= part
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                break
            if not stat.S_ISDIR(mode):
                raise IsolationUnavailable(
                    f"the sandbox replaced /{path.relative_to(disk)}: it cannot be started again"
                )


def _targets(argv: list[str]) -> list[str]:
    """Return the targets of all mounts in bubblewrap's arguments, as paths in the sandbox."""
    offsets = {"--bind": 2, "--ro-bind": 2, "--dev-bind": 2, "--proc": 1, "--dev": 1, "--tmpfs": 1}
    return [argv[index + offsets[word]] for index, word in enumerate(argv) if word in offsets]


def _find_bwrap() -> str:
    path = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:{rootfs.SYSTEM_PATH}")
    if path is None:
        raise IsolationUnavailable(
            "bubblewrap, which isolates the sandboxes, is not installed: install the Debian package "
            "`bubblewrap` (apt-get install bubblewrap), or choose isolation='none' (--isolation none) to run "
            "commands on this machine without isolation"
        )
    return path


def _find_python() -> tuple[str, list[tuple[str, str]]]:
    """Return the path of Python in the sandbox, and its binds: the system's Python, else the Python of this server."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path):
            return path, []
    prefix = os.path.realpath(sys.base_prefix)
    target = "/opt/python"
    return f"{target}/bin/python3", [(prefix, target)]


def _install_daemon(folder: Path) -> None:
    """Copy the daemon into a folder that unprivileged users can read; the package's own folder may be private."""
    scratch.copy_compiled(Path(__file__).parent / "toolbox", folder / "toolbox")
    (folder / "__main__.py").write_text("from toolbox.serve import main\n\nmain()\n")
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103 - read by the sandboxes' uids
        for name in files:
            os.chmod(os.path.join(parent, name), 0o644)


def _require_reachable(root: Path) -> None:
    for folder in (root, *root.resolve().parents):
        if not folder.stat().st_mode & 0o001:
            raise IsolationUnavailable(
                f"the unprivileged users that sandboxes run as cannot enter {folder}: pass a `root` (or set "
                f"TMPDIR) below folders that all users can enter, or run `chmod o+x {folder}`"
            )


def _unprivileged_uid() -> int:
    """Return a random, high host uid, where accounts are unusual, from the first range in ``/proc/self/uid_map``."""
    with open("/proc/self/uid_map") as file:
        first, _, count = (int(field) for field in file.readline().split())
    highest = min(first + count, 2**31) - 1
    return random.randint(max(highest - count // 4, 1), highest - 1000)  # noqa: S311 - not secret


def _await_ready(process: subprocess.Popen[bytes], control: socket.socket, log: Path) -> None:
    control.settimeout(START_S)
    try:
        ready = control.recv(16) == b"ready"
    except OSError:
        ready = False
    if ready:
        control.settimeout(None)
        return
    control.close()
    process.kill()
    process.wait()
    output = log.read_text(errors="replace").strip() or "no output"
    raise IsolationUnavailable(
        f"a sandbox did not start on this machine: {output}. If user namespaces are restricted, allow them "
        "(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a "
        "container, a seccomp profile that permits them), or choose isolation='none'"
    )
