"""Load the modules of a call from the file in which the sandbox keeps them. Each request carries this module as text.

Any process of the user can change these files. So the host sends the digest of the file's content, which is also the
file's name. The content is used only if it has this digest. Each call compiles this module, so it contains only the
code that must run before the file is trusted.
"""

from __future__ import annotations

import marshal
import posix
import sys

from langchain_daytona_ws._guest.variables import take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Call = dict[str, Any]

MAX_BYTES = 1 << 20


def digest_of(data: bytes) -> str:
    """Return the digest of a file's content.

    BLAKE2 is used because it can be imported without ``hashlib``, whose import takes 3 ms. The built-in module of
    SHA-256 has different names in different versions of Python.
    """
    try:
        from _blake2 import blake2b

        return str(blake2b(data, digest_size=32).hexdigest())
    except (ImportError, ValueError):  # this Python has no BLAKE2, or refuses it in FIPS mode
        from hashlib import sha256

        return sha256(data).hexdigest()


def read(directory: str, digest: str) -> bytes:
    """Return the content of a file; ``b""`` if it is missing or was changed."""
    try:
        fd = posix.open(
            "%s/%s.program" % (directory, digest), posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK
        )
        try:
            data = posix.read(fd, MAX_BYTES)
        finally:
            posix.close(fd)
    except OSError:
        return b""
    return data if digest_of(data) == digest else b""


def head() -> bytes:
    """Return the first bytes of a file of compiled modules: the version of Python. Other versions cannot run them."""
    return sys.version.encode()


def load(call: Call, directory: str, digest: str) -> None:
    """Run a call with the modules in a file. If the file is missing, changed, or of another version of Python, ask the
    host for the source.
    """
    take(b"PROGRAM", 1)
    data = read(directory % posix.getuid(), digest)
    if data.startswith(head()):
        (_, starter), *modules = marshal.loads(data[len(head()) :])  # noqa: S302 - compared with the digest
        names: dict[str, Any] = {}
        exec(starter, names)  # noqa: S102 - compared with the digest
        names["start"](modules, call).run(**call)
    posix.write(1, ('\n%s {"error": "program"}\n' % call["nonce"]).encode("ascii"))
    posix._exit(0)
