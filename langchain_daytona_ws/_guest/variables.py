"""Read what a request carries in environment variables. Each request carries this module as text."""

from __future__ import annotations

import posix


def take(name: bytes, count: int) -> bytes:
    """Return the value that ``count`` variables contain, and remove them, so that no command sees them."""
    names = [b"LANGCHAIN_DAYTONA_WS_%s%d" % (name, number) for number in range(count)]
    for variable in names:
        posix.unsetenv(variable)
    return b"".join([posix.environ.pop(variable) for variable in names])


def unpack(data: bytes) -> bytes:
    """Return a value that was too long to be sent as text."""
    import binascii
    import zlib  # both together take 0.4 ms

    return zlib.decompress(binascii.a2b_base64(data))
