"""Write programs to files that `loader` reads: the compiled modules of a call, and the source of separate programs.

A request that carries the source of its modules also carries this module, as text.
"""

from __future__ import annotations

import marshal
import posix
import sys

from langchain_daytona_ws._guest.loader import digest_of, head, read
from langchain_daytona_ws._guest.variables import take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Iterator, NoReturn

    Call = dict[str, Any]


def run(call: Call, modules: list[tuple[str, str]]) -> None:
    """Compile the modules of a call, write them to a file, and run the call. The answer has the digest of the file.

    A process of the same user that traces or replaces this process can forge the answer, as in every call.

    Args:
        call: Arguments of `boot.run`.
        modules: Name and source of each module; the first is `starter`.
    """
    take(b"PROGRAM", 1)
    take(b"SOURCE", 1)
    compiled: list[tuple[str, CodeType]] = []

    def compile_all() -> Iterator[tuple[str, CodeType]]:
        for name, source in modules:
            compiled.append((name, compile(source, name, "exec", dont_inherit=True)))
            yield compiled[-1]

    pieces = compile_all()
    names: dict[str, Any] = {}
    exec(next(pieces)[1], names)  # noqa: S102 - sent by the host
    if sys.version_info < (3, 8):  # noqa: UP036 - the sandbox's Python, not the host's
        _refuse(call, "%d.%d" % sys.version_info[:2])
    try:
        boot = names["start"](pieces, call)
    except ImportError as error:
        name = error.name or ""
        _refuse(call, name if name.replace(".", "_").isidentifier() else "")
    try:
        program = write(boot.dirs.state_directory(), head() + marshal.dumps(compiled))
    except boot.dirs.SetupError:
        program = ""  # the call will report the same error
    boot.run(program=program, **call)


def _refuse(call: Call, detail: str) -> NoReturn:
    """Answer that this Python cannot run the modules. ``detail`` is its version, or the module that it lacks."""
    frame = '\n%s {"error": "setup", "code": "python", "detail": "%s"}\n' % (call["nonce"], detail)
    posix.write(1, frame.encode("ascii", "replace"))
    posix._exit(0)


def source_of(directory: str, program: dict[str, Any]) -> bytes:
    """Return the source of a separate program; ``b""`` if neither the request nor a file contains it.

    Args:
        directory: The directory of the files.
        program: ``digest``, and ``source``, which is None if the sandbox should have the file.
    """
    source: bytes = program["source"] or read(directory, program["digest"])
    return source


def write(directory: str, data: bytes) -> str:
    """Write a file for `loader.read` and return its digest; return ``""`` if it cannot be written."""
    digest = digest_of(data)
    temporary = "%s/%s.program" % (directory, posix.urandom(16).hex())
    try:
        fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[posix.write(fd, view) :]
            posix.rename(temporary, "%s/%s.program" % (directory, digest))
        except OSError:
            posix.unlink(temporary)
            raise
        finally:
            posix.close(fd)
    except OSError:
        return ""  # for example, the disk is full: the host will send the source again
    return digest
