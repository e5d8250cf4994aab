"""One of the two ways to the sandbox, sync or async: the same coroutines over its port."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from langchain_daytona_ws._core.calls import Answer, Caller, Machine
from langchain_daytona_ws._core.files import FileOps
from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws._guest.place import UPLOADS
from langchain_daytona_ws.config import SandboxConfig

FILE_CALL_TIMEOUT_S = 30.0
_CHANGES = {"write", "edit", "delete"}

_once: ContextVar[str | None] = ContextVar("langchain_daytona_ws_once", default=None)


@contextmanager
def named_once(name: str | None) -> Iterator[None]:
    """Name the one change of a file inside, as ``once`` names a command: sent again, it is not made again."""
    token = _once.set(name)
    try:
        yield
    finally:
        _once.reset(token)


class Side:
    """Commands and file operations over one port.

    Args:
        port: The API.
        machine: Whose sandbox to use.
        config: For envVars, asked with each call, and the output limit.
        root: The workspace directory.
        seen: What the session has read of its files, shared by both sides.
    """

    def __init__(
        self, port: SandboxPort, machine: Machine, config: SandboxConfig, *, root: str, seen: dict[str, str]
    ) -> None:
        self.caller = Caller(port, machine, config.plain_env_vars, lambda: secrets.token_hex(16))
        self.files = FileOps(
            self._guest,
            self.caller.upload,
            root=root,
            staging_dir=UPLOADS,
            limit_bytes=config.output_limit_bytes,
            seen=seen,
        )

    async def _guest(self, entry: str, request: Answer) -> Answer:
        if request["op"] in _CHANGES:
            # What only reads may be sent again as it is; a change must not be made twice.
            request = {**request, "key": _once.get() or self.caller.new_key()}
        return await self.caller.call(entry, request, timeout_s=FILE_CALL_TIMEOUT_S)
