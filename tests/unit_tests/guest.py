"""File operations over a guest that is a function of the test, instead of a program in a sandbox."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_daytona_ws._core.files.guest import GuestFiles
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.guest_rpc.client import DownloadTarget
from langchain_daytona_ws._core.ports import Meter, UploadSource

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
Upload = Callable[[str, bytes], Awaitable[None]]
Download = Callable[
    [str], Awaitable[tuple[bytes, bool]]
]  # the content, and whether the file stayed unchanged


class Client:
    """Calls the functions of the test."""

    def __init__(self, call: Call, upload: Upload | None, download: Download | None) -> None:
        self._call, self._upload, self._download = call, upload, download

    async def call(self, entry: str, request: dict[str, Any], *, timeout_s: float) -> tuple[Any, str]:
        return await self._call(entry, request), "sb"

    async def upload(
        self, directory: str, contents: Sequence[UploadSource], meter: Meter | None = None
    ) -> list[tuple[str, str]]:
        assert self._upload
        uploads = []
        for number, source in enumerate(contents):
            with source.open() as file:
                data = file.read()
            path = f"{directory}/upload-{number}"
            await self._upload(path, data)
            uploads.append((path, hashlib.sha256(data).hexdigest()))
        return uploads

    async def download(self, path: str, target: DownloadTarget, meter: Meter | None = None) -> bool:
        assert self._download
        content, is_steady = await self._download(path)
        target.restart()
        target.write(content)
        return is_steady


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
