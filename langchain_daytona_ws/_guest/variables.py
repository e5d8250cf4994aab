"""Read the parts of a request from environment variables. Each request carries this module as text."""

from __future__ import annotations

import posix


def take(name: bytes, count: int) -> bytes:
    """Return the value that ``count`` variables contain in parts. Remove them, so that no command inherits them."""
    names = [b"LANGCHAIN_DAYTONA_WS_%s%d" % (name, number) for number in range(count)]
    for variable in names:
        posix.unsetenv(variable)
    return b"".join([posix.environ.pop(variable) for variable in names])


def unpack(data: bytes) -> bytes:
    """Decompress a value. The host compresses only long values, because these imports take 0.4 ms."""
    import binascii
    import zlib

    return zlib.decompress(binascii.a2b_base64(data))
