"""The daemon's loop: takes connections handed in by the server, answers each in a thread, reaps what ends."""

from __future__ import annotations

import array
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from typing import NoReturn

from .daemon import Daemon
from .sessions import kill_members


def main() -> None:
    """Serve until the control socket (its descriptor is the first argument) closes; then end the sandbox.

    Nothing else needs to be told that the server died: the kernel closes the socket, and with process 1 gone
    it kills every other process of the sandbox.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    home, shell = sys.argv[2], sys.argv[3] or None
    os.chdir(home)
    os.umask(0o022)  # not whatever the server was started with
    _keep_others_out()
    if os.getpid() != 1:
        _adopt_orphans()
    daemon = Daemon(home, shell)
    threading.stack_size(512 * 1024)

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    # The handler itself does nothing; what it writes to the pipe wakes the loop, which then reaps.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    control.send(b"ready")
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == wake_read:
                os.read(wake_read, 4096)
                daemon.children.reap()
                continue
            try:
                connection = _receive_connection(control)
            except EOFError:
                _end()
            if connection is not None:
                _answer_in_thread(daemon, connection)


def _answer_in_thread(daemon: Daemon, connection: socket.socket) -> None:
    try:
        threading.Thread(target=daemon.answer, args=(connection,), daemon=True).start()
    except RuntimeError:
        connection.close()  # no more threads: the server is told by this, and the sandbox lives on


def _end() -> NoReturn:
    """End, taking everything along: for process 1 the kernel does it, else the descendants are hunted."""
    if os.getpid() != 1:
        kill_members(os.getpid(), spare=os.getpid())
    os._exit(0)


def _adopt_orphans() -> None:
    """Make orphans below this process its children, as process 1 has them anyway."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _keep_others_out() -> None:
    """Forbid the sandbox's other processes to trace or stop this one, which the server waits for."""
    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def _receive_connection(control: socket.socket) -> socket.socket | None:
    """Take the next connection off the control socket; EOFError when the server has closed it.

    None when this process has no descriptor left for it: then it is closed already.
    """
    descriptors = array.array("i")
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize), socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError
    for _, _, payload in ancillary:
        descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return socket.socket(fileno=descriptors[0]) if descriptors else None
