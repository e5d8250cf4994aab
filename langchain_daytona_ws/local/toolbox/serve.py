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
import time
from typing import NoReturn

from .children import Children
from .daemon import Daemon
from .sessions import kill_members

FINISH_S = 5.0
REAP_EVERY_S = 0.01


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
    answering = _Answering(daemon)

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    # The handler itself does nothing; what it writes to the pipe wakes the loop, which then reaps, or ends.
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
                    control.close()  # from now on there is no daemon: the sandbox answers 502
                    answering.finish(daemon.children)
                    _end()
                continue
            try:
                connection = _receive_connection(control)
            except EOFError:
                _end()
            if connection is not None:
                answering.begin(connection)


class _Answering:
    """The requests that are being answered, one thread each."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._threads: set[threading.Thread] = set()

    def begin(self, connection: socket.socket) -> None:
        self._threads = {one for one in self._threads if one.is_alive()}
        thread = threading.Thread(target=self._daemon.answer, args=(connection,), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            connection.close()  # no more threads: the server is told by this, and the sandbox lives on
        else:
            self._threads.add(thread)

    def finish(self, children: Children) -> None:
        """Wait for the answers that are under way, for as long as the original waits when it is told to end."""
        deadline = time.monotonic() + FINISH_S
        while any(one.is_alive() for one in self._threads) and time.monotonic() < deadline:
            children.reap()
            time.sleep(REAP_EVERY_S)


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
