"""Search file contents with ripgrep, or with GNU grep if ripgrep is missing.

This module selects the files, so that both programs and the search on S3 search the same files. Only ripgrep searches
UTF-16 files with a byte order mark. Symlinks, FIFOs and devices are left out. ``.gitignore`` and similar files have no
effect, because a file that the model has just written must be found. The programs treat all files as text; this module
then decides for each matching file whether it is text, by the same rule as `read`. The program runs without a shell,
and is killed at the limit of rows, bytes or seconds.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import os
import select
import stat
import time

from langchain_daytona_ws._guest.match import GlobError
from langchain_daytona_ws._guest.omitted import (
    BINARY,
    BINARY_MATCH,
    REASONS,
    UNREADABLE,
    UTF16,
    is_large_binary,
    omitted,
)
from langchain_daytona_ws._guest.rows import LINE_BYTES, READERS, Filter, Rows, Selection, excerpt, offsets
from langchain_daytona_ws._guest.scan import GONE, Scan
from langchain_daytona_ws._guest.text import (
    BOM,
    MARKED_UTF16,
    SNIFF_BYTES,
    UNMARKED_UTF16,
    UTF16_BOMS,
    binary_kind,
)
from langchain_daytona_ws._guest.walk import SAFE, RefusedError, answer, locate, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from typing import Any

STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin"
STDERR_BYTES = 4096
ARGUMENT_BYTES = 100_000  # maximum size of all paths on one command line


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
    engine = _Engine.find(request.get("tool_path") or os.environ.get("PATH") or STANDARD_PATH)
    base, name, fd = _open_base(request["root"], request["path"])
    try:
        selection = Selection(glob, base)
        files = _Files(fd, selection, searches_utf16=engine.name == "ripgrep")
        scan = Scan(time.monotonic() + request["timeout_s"])
        if name:
            files.select_only(name)
        else:
            scan.run(os.dup(fd), "", files, True)
        rows = Rows(base, request["limit"], request["limit_bytes"], files.is_shown)
        search = _Search(request, engine, rows, fd, scan.deadline)
        search.run(files.in_order())
        if search.failed_to_read:
            files.find_unreadable()
        files.omitted[UNREADABLE].update(scan.unreadable)
        left_out = {reason: [base + path for path in paths] for reason, paths in files.omitted.items()}
    finally:
        os.close(fd)
    timed_out = scan.timed_out or search.timed_out
    return {
        "engine": search.engine,
        "rows": rows.sorted(),
        "more": rows.full or rows.lost or search.was_killed or scan.cut or scan.left_out or timed_out,
        "timed_out": timed_out,
        "skipped": [base + name for name in selection.skipped],
        "omitted": omitted(left_out),
        "reading": selection.reading(matched=files.has_matched),
    }


def _open_base(root: str, path: str) -> tuple[str, str, int]:
    """Open the directory to search, or the directory of the file to search.

    Returns:
        The prefix of paths in results, the name of the file ("" for a directory), and the open directory.
    """
    with locate(root, path) as location:
        status = location.status()
        try:
            fd = location.open_dir()
        except RefusedError as refusal:
            if refusal.error != "not_a_directory":
                raise
            need_file(status)
            # Open the parent again: the location closes its descriptor before the program is started.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=location.parent)
            return location.path[: len(location.path) - len(location.name)], location.name, fd
        return ("" if location.path == "." else location.path + "/"), "", fd


class _Files:
    """The files to search below a directory, and the files that the result leaves out."""

    def __init__(self, fd: int, selection: Selection, *, searches_utf16: bool) -> None:
        self.omitted: dict[str, set[str]] = {reason: set() for reason in REASONS}
        self._fd = fd
        self._selection = selection
        self._searches_utf16 = searches_utf16
        self._found: list[str] = []

    def directory(self, _above: bool, path: str, name: str, _fd: int) -> bool | None:
        return self._selection.enters(path, name) or None

    def file(self, _above: bool, path: str, name: str, fd: int) -> None:
        if not self._selection.includes(path):
            return
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return
            is_sniffed = is_large_binary("binary", status.st_size) or not self._searches_utf16
            kind = self._kind(name, fd) if is_sniffed else ""
        except OSError as error:
            if error.errno not in GONE:
                self.omitted[UNREADABLE].add(path)
            return
        self._select(path, kind, status.st_size)

    def select_only(self, name: str) -> None:
        """Select one file of any size."""
        if not self._selection.includes(name):
            return
        kind = self._kind(name, self._fd)
        if kind in UNMARKED_UTF16:
            self.omitted[UTF16].add(name)
        else:
            self._select(name, kind, 0)

    @property
    def has_matched(self) -> bool:
        """True if the glob has matched a file, or if a directory could not be read."""
        return bool(self._found) or any(self.omitted.values())

    def _select(self, path: str, kind: str, size: int) -> None:
        if kind == MARKED_UTF16 and not self._searches_utf16:
            self.omitted[UTF16].add(path)
        elif is_large_binary(kind, size):
            self.omitted[UTF16 if kind in UNMARKED_UTF16 else BINARY].add(path)
        else:
            self._found.append(path)

    def in_order(self) -> list[str]:
        """Return the files to search, sorted by the parts of their paths."""
        return sorted(self._found, key=lambda path: os.fsencode(path).split(b"/"))

    def is_shown(self, path: bytes) -> bool:
        """Return whether the lines of a matching file are shown. If they are not, record the file as omitted."""
        name = os.fsdecode(path[2:])
        try:
            is_binary = self._kind(name, self._fd) not in ("", MARKED_UTF16)
        except OSError:  # removed after the search
            return True
        if is_binary:
            self.omitted[BINARY_MATCH].add(name)
        return not is_binary

    def find_unreadable(self) -> None:
        """Record as omitted each selected file that cannot be opened."""
        for path in self._found:
            try:
                os.close(os.open(path, os.O_RDONLY | SAFE, dir_fd=self._fd))
            except OSError as error:
                if error.errno not in GONE:
                    self.omitted[UNREADABLE].add(path)

    def _kind(self, path: str, fd: int) -> str:
        opened = os.open(path, os.O_RDONLY | SAFE, dir_fd=fd)
        try:
            return binary_kind(os.read(opened, SNIFF_BYTES))
        finally:
            os.close(opened)


class _Engine:
    """The search program and its options."""

    def __init__(self, name: str, program: str) -> None:
        self.name = name
        self.program = program

    @classmethod
    def find(cls, path: str) -> _Engine:
        """Find ripgrep or grep on a PATH.

        Raises:
            RefusedError: ``no_tool``: both are missing.
        """
        for name, program in (("ripgrep", "rg"), ("grep", "grep")):
            found = _program(program, path)
            if found:
                return cls(name, found)
        raise RefusedError("no_tool")

    def options(
        self, request: dict[str, Any], *, posix: bool = False, offsets_only: bool = False
    ) -> list[str]:
        """Return the command line without the files."""
        pattern = request["pattern"]
        if self.name == "ripgrep":
            options = ["--no-config", "--no-messages", "--sort=path", "--null", "--with-filename"]
        else:
            options = ["-E" if posix else "-P", "-s", "-H", "-Z", "-D", "skip"]
            pattern = _posix(pattern) if posix else pattern
        options += ["-a", "--color=never"]
        if request.get("ignore_case"):
            options.append("-i")
        before, after = request.get("before", 0), request.get("after", 0)
        if offsets_only:
            options += ["-o", "-b", "-n"]
        elif request["mode"] != "content":
            options.append("-l" if request["mode"] == "files_with_matches" else "-c")
        else:
            options.append("--json" if self.name == "ripgrep" else "-n")
            options += ["-B", str(before), "-A", str(after)] if before or after else []
        return [self.program, *options, "-e", pattern, "--"]


class _Search:
    """One search: runs the program and collects its rows."""

    def __init__(
        self, request: dict[str, Any], engine: _Engine, rows: Rows, fd: int, deadline: float
    ) -> None:
        self.request = request
        self.engine = engine.name
        self.rows = rows
        self.timed_out = False
        self.was_killed = False
        self.failed_to_read = False
        self._engine = engine
        self._fd = fd
        self._deadline = deadline
        self._posix = False
        self._stderr = b""

    def run(self, files: list[str]) -> None:
        """Search the files in the given order.

        Raises:
            RefusedError: ``bad_pattern``, or ``no_tool`` if the program lacks an option.
        """
        # Without files, search an empty file, so that the program checks the pattern.
        for batch in _batches(files or [os.devnull]):
            if self.rows.full or self.timed_out:
                break
            self._search(batch)
        if self.rows.cut and not self.rows.full:
            self._find_in_long_lines()

    def _search(self, files: list[bytes]) -> None:
        code = self._spawn(self._options(), files)
        if code == 2 and self.engine == "grep" and not self._posix and _no_perl(self._stderr):
            self._posix = True
            code = self._spawn(self._options(), files)
        if code <= 1 or self.timed_out or self.rows.full:
            return
        if self.engine == "grep" and b" option" in self._stderr:  # busybox lacks the GNU options
            raise RefusedError("no_tool")
        text = self._stderr.decode("utf-8", "replace").strip()
        if text:
            # After an empty line ripgrep recommends options, which cannot be set here.
            raise RefusedError("bad_pattern", text=text.partition("\n\n")[0][:1000])
        self.failed_to_read = True  # without a message: the options suppress messages about unreadable files

    def _options(self, *, offsets_only: bool = False) -> list[str]:
        return self._engine.options(self.request, posix=self._posix, offsets_only=offsets_only)

    def _spawn(self, options: list[str], files: list[bytes], reader: Any = None) -> int:
        """Run the program, and parse its output until the rows are full or the time is up.

        Returns:
            The exit code; negative if a signal ended the program.
        """
        if reader is None:
            tool = "rg" if self.engine == "ripgrep" else "grep"
            reader = READERS[(tool, self.request["mode"])](self.rows)
        self._stderr = b""
        # In the C locale GNU grep also finds ASCII patterns in lines that are not UTF-8, such as Latin-1.
        locale = "C" if self.request["pattern"].isascii() else "C.UTF-8"
        argv = [*(os.fsencode(argument) for argument in options), *files]
        pid, out, err = _start(argv, {"PATH": STANDARD_PATH, "LC_ALL": locale}, self._fd)
        try:
            waiting = {out, err}
            poll = select.poll()
            for stream in waiting:
                poll.register(stream, select.POLLIN | select.POLLHUP)
            while waiting and not self.rows.full:
                left = self._deadline - time.monotonic()
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
                        self._stderr = (self._stderr + chunk)[:STDERR_BYTES]
                    else:
                        reader.feed(chunk)
        finally:
            if self.rows.full or self.timed_out:
                os.kill(pid, 9)
            os.close(out)
            os.close(err)
            status = os.waitpid(pid, 0)[1]
        self.was_killed = self.was_killed or os.WIFSIGNALED(status)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

    def _find_in_long_lines(self) -> None:
        """Add excerpts of long lines for which the program did not print the position of the match."""
        self.rows.lost = False
        for path in self.rows.cut:
            try:
                with open(path, "rb", buffering=0, opener=self._open) as file:
                    self._add_excerpts(path, file)
            except OSError:  # the file was deleted or replaced after the first search
                self.rows.lost = True

    def _add_excerpts(self, path: bytes, file: FileIO) -> None:
        head = file.read(len(BOM))
        if head.startswith(UTF16_BOMS):  # ripgrep's offsets are those of the text in UTF-8
            self.rows.lost = True
            return
        found: dict[int, int] = {}  # line → offset of its first match in the file
        self._spawn(self._options(offsets_only=True), [path], offsets(found.setdefault))
        self.rows.lost = self.rows.lost or not found  # empty matches are not printed
        rows_by_line = {row[1]: row for row in self.rows.items if row[0] == self.rows.shown_path(path)}
        bom_bytes = len(BOM) if head == BOM and self.engine == "ripgrep" else 0
        for line, at in found.items():
            self._show(file.fileno(), path, line, at + bom_bytes, rows_by_line.get(line))

    def _open(self, path: str | bytes, _flags: int) -> int:
        return os.open(path, os.O_RDONLY | SAFE, dir_fd=self._fd)

    def _show(self, fd: int, path: bytes, line: int, at: int, row: list[object] | None) -> None:
        if row is not None and (len(row) == 4 or self.engine == "ripgrep"):
            return
        line_start = _line_begin(fd, at)
        start = line_start if at - line_start <= LINE_BYTES else at - LINE_BYTES
        piece = os.pread(fd, at - start + LINE_BYTES + 1, start)
        end = piece.find(b"\n", at - start)
        text = excerpt(piece if end < 0 else piece[:end], at - start)[0]
        if row is None:
            self.rows.add(path, line, True, text, at - line_start + 1)
        else:
            row[3:] = [text, at - line_start + 1]


def _start(argv: list[bytes], env: dict[str, str], directory: int) -> tuple[int, int, int]:
    """Start a program in an open directory, even if the directory was moved.

    ``subprocess`` is not used, because importing it takes 10 ms.

    Returns:
        The pid, and the pipes of the output and the error output.
    """
    out, out_writer = os.pipe()
    err, err_writer = os.pipe()
    before = os.open(".", os.O_PATH)
    try:
        os.fchdir(directory)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_writer, 1),
            (os.POSIX_SPAWN_DUP2, err_writer, 2),
        ]
        ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these signals; the program must not
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions, setsigdef=ignored)
    except BaseException:
        os.close(out)
        os.close(err)
        raise
    finally:
        os.fchdir(before)
        for fd in (before, out_writer, err_writer):
            os.close(fd)
    return pid, out, err


def _line_begin(fd: int, at: int) -> int:
    """Return the offset of the first byte of the line that contains the byte at offset ``at``."""
    while at > 0:
        start = max(at - (1 << 16), 0)
        newline = os.pread(fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0


def _batches(files: list[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for path in files:
        argument = os.fsencode(path if path.startswith("/") else "./" + path)
        if batch and size + len(argument) > ARGUMENT_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(argument)
        size += len(argument) + 9  # plus a NUL and a pointer of 8 bytes
    yield batch


def _program(name: str, path: str) -> str:
    """Find a program on PATH. Skip relative entries: through them the workspace could supply the program."""
    for directory in path.split(":"):
        candidate = directory + "/" + name
        if directory.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _no_perl(stderr: bytes) -> bool:
    message = stderr.lower()
    return b"perl" in message or b"option" in message


def _posix(pattern: str) -> str:
    r"""Replace ``\d`` and ``\D``, which grep -E lacks, by classes. ``\D`` within a class stays."""
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
