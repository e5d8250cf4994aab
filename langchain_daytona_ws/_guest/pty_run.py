"""Run a command in a pseudo-terminal. Sent only if the call requests a terminal.

No user types at the terminal. So that a program that reads the terminal does not wait, this module writes Ctrl-D, the
end of input, whenever the terminal has no unread input. In a pager, Ctrl-D is the key that scrolls on. While an editor
runs, no Ctrl-D is written, because the editor would execute each one as a command, without end. An editor or pager that
still waits for a key is ended as in ``editors``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import termios
import time

from langchain_daytona_ws._guest import command, dirs, editors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

END_INPUT_EVERY_S = 0.2
AFTER_OUTPUT_S = 0.005  # from output to the next end of input: a pager may already wait for a key
HANG_UP_WAIT_S = 0.5
END_OF_INPUT = b"\x04"
EDITORS = (*editors.NAMES, b"nano", b"pico", b"emacs")
PAGERS = (b"less", b"more", b"most", b"pg", b"man", b"info")


class Run(editors.Run):
    """A running command whose standard input, output and controlling terminal are one pseudo-terminal."""

    def __init__(self, call: Any, request: dict[str, Any]) -> None:
        super().__init__(call, request)
        self._columns, self._rows = request["pty"]
        self._terminal = ""  # path of the terminal
        self._end_input_at = 0.0
        self._find_editor_at = 0.0
        self._is_editor = False

    def _spawn(  # type: ignore[override]  # without `path`: this method opens the terminal
        self, bash: bytes, script: bytes, writer: int, env: Mapping[bytes, bytes], options: list[bytes]
    ) -> int:
        """Start bash in a new terminal, whose two ends replace the two ends of the output pipe."""
        try:
            reader, terminal = os.openpty()
            self._terminal = os.ttyname(terminal)
            # struct winsize, from termios.h: rows, columns, and two unused numbers.
            size = b"".join(n.to_bytes(2, sys.byteorder) for n in (self._rows, self._columns, 0, 0))
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
            settings = termios.tcgetattr(terminal)
            settings[3] &= ~termios.ECHO  # input must not appear in the output
            termios.tcsetattr(terminal, termios.TCSANOW, settings)
        except (OSError, termios.error) as error:
            raise dirs.SetupError("pty", str(error)) from None
        for end, fd in ((reader, self.reader), (terminal, writer)):
            os.dup2(end, fd, inheritable=False)
            os.close(end)
        return command.spawn(bash, script, writer, env, options, path=self._terminal)

    def start(self, bash: bytes, script: bytes) -> None:
        if "TERM" not in self.user_vars:
            os.environ["TERM"] = "xterm-256color"
            self.user_vars = [*self.user_vars, "TERM"]
        # With these options less ends after its last page, and does not switch to another screen.
        os.environ.setdefault("LESS", "-ERX")
        super().start(bash, script)

    def collect(self, until: float) -> None:
        if time.monotonic() >= self._end_input_at:
            self._end_input()
            self._end_input_at = time.monotonic() + END_INPUT_EVERY_S
        super().collect(min(until, self._end_input_at) if self.reader >= 0 else until)

    def _end_input(self) -> None:
        """Write an end of input, unless there is unread input or an editor runs."""
        if self.reader < 0 or self.exit_code is not None:
            return
        try:
            terminal = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            return  # all programs have closed the terminal
        try:
            waiting = select.poll()
            waiting.register(terminal, select.POLLIN)
            if not waiting.poll(0) and not self._has_editor(terminal):
                os.write(self.reader, END_OF_INPUT)
        except (OSError, termios.error):
            pass
        finally:
            os.close(terminal)

    def _has_editor(self, terminal: int) -> bool:
        """Return whether an editor reads single keys from the terminal."""
        if termios.tcgetattr(terminal)[3] & termios.ICANON:
            return False
        if time.monotonic() >= self._find_editor_at:
            self._is_editor = bool(editors.waiting_editors(EDITORS, self._reads_terminal))
            self._find_editor_at = time.monotonic() + END_INPUT_EVERY_S
        return self._is_editor

    def _read(self, size: int) -> int:
        try:
            count = super()._read(size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        else:
            if count > 0:
                self._end_input_at = min(self._end_input_at, time.monotonic() + AFTER_OUTPUT_S)
            return count
        # Linux reports the end of a terminal's output as EIO.
        os.close(self.reader)
        self.reader = -1
        return -1

    def drain(self) -> None:
        """Read the rest of the output, then close the terminal: this sends SIGHUP to background processes."""
        until = time.monotonic() + HANG_UP_WAIT_S
        super().drain()
        output = select.poll()
        while self.reader >= 0 and time.monotonic() < until:
            output.register(self.reader, select.POLLIN)
            output.poll(20)
            super().drain()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def _waiting_editors(self) -> dict[int, tuple[str, int]]:
        return editors.waiting_editors(EDITORS + PAGERS, self._reads_terminal)

    def _reads_terminal(self, pid: str) -> bool:
        return os.readlink("/proc/%s/fd/0" % pid) == self._terminal


command.Run = Run  # type: ignore[misc]  # this module is sent only for commands that need it
