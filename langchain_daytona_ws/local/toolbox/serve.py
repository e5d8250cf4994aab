"""The daemon's main loop: it receives connections from the server, starts a thread for each, and reaps processes."""

from __future__ import annotations

import array
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

from .children import Children
from .daemon import Daemon
from .sessions import kill_members

JOIN_S = 5.0
REAP_EVERY_S = 0.01


def main() -> None:
    """Serve until the control socket closes, or SIGTERM or SIGINT arrives; then end the sandbox.

    Arguments: the descriptor of the control socket, the home directory, the shell. If the server is killed, the
    kernel closes the socket; when process 1 ends, the kernel kills all other processes of the sandbox.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    home, shell = sys.argv[2], sys.argv[3] or None
    os.chdir(home)
    os.umask(0o022)  # independent of the server's umask
    _forbid_tracing()
    if os.getpid() != 1:
        _adopt_orphans()
    daemon = Daemon(home, shell)
    threading.stack_size(512 * 1024)
    requests = _RequestThreads(daemon)

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    # The handlers do nothing: Python writes the signal number to the pipe, and the loop reaps or exits.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    control.send(b"ready")
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == wake_read:
                signals = os.read(wake_read, 4096)
                daemon.children.reap()
                if signal.SIGTERM in signals or signal.SIGINT in signals:
                    control.close()  # from now on the server answers 502
                    requests.join(daemon.children)
                    _exit()
                continue
            try:
                connection = _receive_connection(control)
            except EOFError:
                _exit()
            if connection is not None:
                requests.start(connection)


class _RequestThreads:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._threads: set[threading.Thread] = set()

    def start(self, connection: socket.socket) -> None:
        self._threads = {running for running in self._threads if running.is_alive()}
        thread = threading.Thread(target=self._daemon.answer, args=(connection,), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            connection.close()  # no more threads: the server gets an error, and the sandbox keeps running
        else:
            self._threads.add(thread)

    def join(self, children: Children) -> None:
        """Wait for the open requests, at most as long as the original does after SIGTERM."""
        deadline = time.monotonic() + JOIN_S
        while any(running.is_alive() for running in self._threads) and time.monotonic() < deadline:
            children.reap()
            time.sleep(REAP_EVERY_S)


def _exit() -> NoReturn:
    """End all processes of the sandbox, and exit. If this is process 1, the kernel kills all other processes."""
    if os.getpid() != 1:
        kill_members(os.getpid(), exclude=os.getpid())
    os._exit(0)


def _adopt_orphans() -> None:
    """Make this process adopt orphaned descendants, as process 1 does."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _forbid_tracing() -> None:
    """Prevent other processes in the sandbox from tracing this process."""
    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def _receive_connection(control: socket.socket) -> socket.socket | None:
    """Return the next connection from the control socket.

    If this process cannot open more descriptors, the connection is closed, and None is returned.

    Raises:
        EOFError: the server has closed the control socket.
    """
    descriptors = array.array("i")
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize), socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError
    for _, _, payload in ancillary:
        descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return socket.socket(fileno=descriptors[0]) if descriptors else None
