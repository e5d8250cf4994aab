"""The toolkit as a context manager."""

from __future__ import annotations

import asyncio

import pytest

from langchain_daytona_ws import UnpushedFiles, WorkspaceSession, WorkspaceToolkit


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failed_close_does_not_replace_the_error_of_the_block(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UnpushedFiles("not in S3", op="close")

    async def afail(*_: object) -> None:
        fail()

    monkeypatch.setattr(WorkspaceSession, "close", fail)
    monkeypatch.setattr(WorkspaceSession, "aclose", afail)

    toolkit = WorkspaceToolkit(session=WorkspaceSession({}, namespace="demo"))

    async def ause(error: BaseException | None) -> None:
        async with toolkit:
            if error:
                raise error

    def use(error: BaseException | None) -> None:
        with toolkit:
            if error:
                raise error

    for error, raised in ((KeyError("of the block"), KeyError), (None, UnpushedFiles)):
        with pytest.raises(raised):
            asyncio.run(ause(error)) if is_async else use(error)
