"""File operations over a guest that is a function of the test, instead of a program in a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_daytona_ws._core.files.guest import GuestFiles
from langchain_daytona_ws._core.files.operations import FileOperations

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
Upload = Callable[[str, bytes], Awaitable[None]]
Download = Callable[[str, int], Awaitable[bytes]]


class Client:
    """Calls the functions of the test."""

    def __init__(self, call: Call, upload: Upload | None, download: Download | None) -> None:
        self._call, self._upload, self._download = call, upload, download

    async def call(self, entry: str, request: dict[str, Any], *, timeout_s: float) -> Any:
        return await self._call(entry, request)

    async def upload(self, path: str, data: bytes) -> None:
        assert self._upload
        await self._upload(path, data)

    async def download(self, path: str, *, limit_bytes: int) -> bytes:
        assert self._download
        return await self._download(path, limit_bytes)


def guest_files(
    call: Call,
    upload: Upload | None = None,
    download: Download | None = None,
    *,
    root: str,
    staging_dir: str = "",
) -> GuestFiles:
    """Return a backend whose requests go to ``call``."""

    async def client() -> Any:
        return Client(call, upload, download)

    return GuestFiles(client, root=root, staging_dir=staging_dir)


def guest_operations(
    call: Call,
    upload: Upload | None = None,
    download: Download | None = None,
    *,
    root: str,
    staging_dir: str = "",
    **options: Any,
) -> FileOperations:
    """Return operations whose requests go to ``call``."""
    return FileOperations(
        guest_files(call, upload, download, root=root, staging_dir=staging_dir), root=root, **options
    )
