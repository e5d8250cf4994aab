"""Load the modules of a call from the file in which the sandbox keeps them. Each request carries this module as text.

Any process of the user can change these files. So a file is named by the digest of its content, the host states the
digest, and only bytes with this digest are used, from memory.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Iterable

    Call = dict[str, Any]

PACKAGE = "langchain_daytona_ws._guest"
MAX_BYTES = 1 << 20
EARLY = ("mount", "sync")  # their work continues while the next modules are compiled


def digest_of(data: bytes) -> str:
    """Return the digest of a file's content. ``hashlib`` takes 3 ms, and SHA-256 has no fixed name without it."""
    try:
        from _blake2 import blake2b

        return str(blake2b(data, digest_size=32).hexdigest())
    except (ImportError, ValueError):  # not built, or refused in FIPS mode
        from hashlib import sha256

        return sha256(data).hexdigest()


def read(directory: str, digest: str) -> bytes:
    """Return the content of a file; ``b""`` if it is missing or was changed."""
    try:
        fd = os.open("%s/%s.program" % (directory, digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            data = file.read(MAX_BYTES) or b""  # None: a pipe without data
    except OSError:
        return b""
    return data if digest_of(data) == digest else b""


def head() -> bytes:
    """Return the first bytes of a file of compiled modules. Only the same version of Python can run them."""
    return sys.version.encode()


def load(call: Call, directory: str, digest: str) -> None:
    """Run the modules of a file. Without the file, ask the host for their source: nothing has run then."""
    data = read(directory % os.getuid(), digest)
    if data.startswith(head()):
        start(marshal.loads(data[len(head()) :]), call).run(**call)  # noqa: S302 - compared with the digest
    os.write(1, ('\n%s {"error": "program"}\n' % call["nonce"]).encode("ascii"))
    os._exit(0)


def start(modules: Iterable[tuple[str, CodeType]], call: Call) -> Any:
    """Create modules in the given order; return the last one."""
    module = package = sys.modules[PACKAGE] = type(sys)(PACKAGE)
    for name, code in modules:
        full = "%s.%s" % (PACKAGE, name)
        module = sys.modules[full] = type(sys)(full)
        exec(code, module.__dict__)  # noqa: S102 - sent by the host
        setattr(package, name, module)
        if name in EARLY:
            module.begin(call["request"][name])
    return module
