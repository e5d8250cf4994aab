"""Search file contents with ripgrep, or with GNU grep where that is missing; the same answer from both.

The program starts in the directory to be searched, gets no shell, and is killed at the limit of rows, bytes
or seconds. Neither follows symlinks or opens FIFOs and devices while it walks. Ignore files play no part: a
file that the model has just written must be found.
"""

from __future__ import annotations

import os
import select
import subprocess
import time

from langchain_daytona_ws._guest.match import SKIPPED, GlobError
from langchain_daytona_ws._guest.rows import READERS, Filter, Rows
from langchain_daytona_ws._guest.walk import RefusedError, answer, locate, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin"
STDERR_BYTES = 4096


def main(request: dict[str, Any]) -> dict[str, Any]:
    return answer(grep, request)


def grep(request: dict[str, Any]) -> dict[str, Any]:
    pattern = request["pattern"]
    if not pattern or "\n" in pattern or "\0" in pattern:
        raise RefusedError("bad_pattern", text="the pattern must be one line, and not empty")
    try:
        glob = Filter(request["glob"]) if request.get("glob") else None
    except GlobError as error:
        raise RefusedError("bad_glob", text=str(error)) from None
    base, target, fd = _place(request["root"], request["path"])
    try:
        hunt = _Hunt(request, glob, base, target, fd)
        hunt.run()
        skipped = [base + name for name in hunt.skipping if _is_dir(name, fd)] if target == "." else []
    finally:
        os.close(fd)
    return {
        "engine": hunt.engine,
        "rows": hunt.rows.sorted(),
        "more": hunt.rows.full or hunt.rows.lost or hunt.timed_out,
        "timed_out": hunt.timed_out,
        "skipped": skipped,
    }


def _place(root: str, path: str) -> tuple[str, str, int]:
    """Give the prefix of the results, what to search, and the open directory to start in."""
    with locate(root, path) as spot:
        status = spot.status()
        try:
            fd = spot.open_dir()
        except RefusedError as refusal:
            if refusal.error != "not_a_directory":
                raise
            need_file(status)
            # The parent was opened by name only: to start a program in it, it is opened once more.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=spot.parent)
            return spot.path[: len(spot.path) - len(spot.name)], "./" + spot.name, fd
        return ("" if spot.path == "." else spot.path + "/"), ".", fd


def _is_dir(name: str, fd: int) -> bool:
    import stat

    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


class _Hunt:
    """One search: which program, its arguments, and reading what it prints."""

    def __init__(self, request: dict[str, Any], glob: Filter | None, base: str, target: str, fd: int) -> None:
        self.request = request
        self.glob = glob
        self.target = target
        self.fd = fd
        self.deadline = time.monotonic() + request["timeout_s"]
        self.timed_out = False
        self.stderr = b""
        self.engine = ""
        self.skipping = [name for name in SKIPPED if glob is None or not glob.names(name)]
        self.rows = Rows(base, request["limit"], request["limit_bytes"], glob)
        self.mode = request["mode"]

    def run(self) -> None:
        path = self.request.get("tool_path") or os.environ.get("PATH") or STANDARD_PATH
        ripgrep, grep = _program("rg", path), _program("grep", path)
        if ripgrep:
            self._finish("ripgrep", self._spawn([ripgrep, *self._ripgrep_options()], "rg"))
        elif grep:
            code = self._spawn([grep, "-P", *self._grep_options(self.request["pattern"])], "grep")
            if code == 2 and not self.rows.items and _no_perl(self.stderr):
                pattern = _posix(self.request["pattern"])
                code = self._spawn([grep, "-E", *self._grep_options(pattern)], "grep")
            self._finish("grep", code)
        else:
            raise RefusedError("no_tool")

    def _finish(self, engine: str, code: int) -> None:
        self.engine = engine
        if code in (0, 1) or self.rows.items or self.timed_out or self.rows.full:
            return
        text = self.stderr.decode("utf-8", "replace").strip()
        if engine == "grep" and b" option" in self.stderr:  # busybox lacks the GNU options
            raise RefusedError("no_tool")
        if not text:  # only files that could not be read, which both are told not to mention
            return
        raise RefusedError("bad_pattern", text=text[:1000])

    def _ripgrep_options(self) -> list[str]:
        options = ["--no-config", "--no-ignore", "--hidden", "--no-follow", "--no-messages", "--sort=path"]
        options += ["--color=never", "--null", "--with-filename"]
        if self.request.get("ignore_case"):
            options.append("-i")
        if self.glob is not None and self.target == ".":
            options += self.glob.ripgrep_options()
        # The last glob that matches decides, so these come last.
        for name in self.skipping:
            options += ["-g", "!" + name + "/"]
        if self.mode == "content":
            options += ["--json", *self._context()]
        else:
            options.append("-l" if self.mode == "files_with_matches" else "-c")
        return [*options, "-e", self.request["pattern"], "--", self.target]

    def _grep_options(self, pattern: str) -> list[str]:
        options = ["-r", "-H", "-Z", "-I", "-s", "-D", "skip", "--color=never"]
        if self.request.get("ignore_case"):
            options.append("-i")
        options += ["--exclude-dir=" + name for name in self.skipping]
        if self.mode == "content":
            options += ["-n", *self._context()]
        else:
            options.append("-l" if self.mode == "files_with_matches" else "-c")
        return [*options, "-e", pattern, "--", self.target]

    def _context(self) -> list[str]:
        before, after = self.request.get("before", 0), self.request.get("after", 0)
        return ["-B", str(before), "-A", str(after)] if before or after else []

    def _spawn(self, argv: list[str], tool: str) -> int:
        """Run the program, feed what it prints to the rows, and kill it when they are full or time is up."""
        reader = READERS[(tool, self.mode)](self.rows)
        self.stderr = b""
        # In the C locale GNU grep does not take a file in an old encoding for a binary one.
        locale = "C" if self.request["pattern"].isascii() else "C.UTF-8"
        child = subprocess.Popen(
            [os.fsencode(word) for word in argv],
            cwd=f"/proc/self/fd/{self.fd}",  # in the child: the directory opened above, wherever it is now
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": STANDARD_PATH, "LC_ALL": locale},
            bufsize=0,
        )
        assert child.stdout is not None  # noqa: S101 (for the type checker)
        assert child.stderr is not None  # noqa: S101
        try:
            out, err = child.stdout.fileno(), child.stderr.fileno()
            waiting = {out, err}
            poll = select.poll()
            for stream in waiting:
                poll.register(stream, select.POLLIN | select.POLLHUP)
            while waiting and not self.rows.full:
                left = self.deadline - time.monotonic()
                ready = poll.poll(max(left, 0) * 1000) if left > 0 else []
                if not ready:
                    self.timed_out = True
                    break
                for stream, _ in ready:
                    chunk = os.read(stream, 65536)
                    if not chunk:
                        poll.unregister(stream)
                        waiting.discard(stream)
                    elif stream == err:
                        self.stderr = (self.stderr + chunk)[:STDERR_BYTES]
                    else:
                        reader.feed(chunk)
        finally:
            if self.rows.full or self.timed_out:
                child.kill()
            child.stdout.close()
            child.stderr.close()
            code = child.wait()
        return code


def _program(name: str, path: str) -> str:
    """Find a program on PATH; relative entries would let the workspace supply it."""
    for directory in path.split(":"):
        candidate = directory + "/" + name
        if directory.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _no_perl(stderr: bytes) -> bool:
    message = stderr.lower()
    return b"perl" in message or b"option" in message


def _posix(pattern: str) -> str:
    r"""Write ``\d`` and ``\D``, which grep -E lacks, as classes."""
    out = []
    at = 0
    in_class = False
    while at < len(pattern):
        pair = pattern[at : at + 2]
        if pair[0] == "\\" and len(pair) == 2:
            short = {"\\d": "0-9" if in_class else "[0-9]", "\\D": pair if in_class else "[^0-9]"}
            out.append(short.get(pair, pair))
            at += 2
            continue
        if pair[0] == "[":
            in_class = True
        elif pair[0] == "]":
            in_class = False
        out.append(pair[0])
        at += 1
    return "".join(out)
