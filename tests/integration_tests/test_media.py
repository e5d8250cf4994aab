"""A model sees the images and documents of each kind of workspace."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from langchain_daytona_ws import WorkspaceFileTool
from tests.integration_tests.conftest import Driven
from tests.integration_tests.s3 import bucket
from tests.integration_tests.test_transfers import Case, case
from tests.unit_tests import pictures

__all__ = ["bucket", "case"]  # fixtures


def read(driven: Driven, path: str, media: Any = True) -> Any:
    return driven.call(WorkspaceFileTool(session=driven.session, media=media), action="read", path=path)


@pytest.mark.one_in(2)
def test_pictures_and_documents(case: Case) -> None:
    plot = pictures.png(640, 480, filler=300_000)
    files: dict[str, bytes] = {
        "plot.txt": plot,
        "report": pictures.pdf(),
        "text.png": b"only a name\n",
        "damaged.png": plot[:-20],
        "large.gif": pictures.gif() + b"\0" * 3_750_000 + b";",
        "huge.png": pictures.png(filler=11 << 20),
        "wide.webp": pictures.webp(8001, 5),
        "archive.bin": b"PK\3\4\0\0\xff\xfe" * 9,
    }
    for name, data in files.items():
        case.put(f"d/{name}", data)
    case.upload(case.host / "d", "d")
    driven = case.driven

    shown = read(driven, "d/plot.txt")
    assert shown.status == "success"
    assert shown.content == [
        {"type": "text", "text": f"d/plot.txt: PNG image, 640x480 pixels, {len(plot):,} bytes."},
        {"type": "image", "base64": base64.b64encode(plot).decode(), "mime_type": "image/png"},
    ]
    facts = {name: shown.artifact[name] for name in ("path", "mime_type", "width", "size_bytes")}
    assert facts == {"path": "d/plot.txt", "mime_type": "image/png", "width": 640, "size_bytes": len(plot)}
    assert "base64" not in shown.artifact
    assert [block["type"] for block in shown.content_blocks] == ["text", "image"]

    document = read(driven, "d/report")
    assert document.content[0]["text"] == f"d/report: PDF document, {len(pictures.pdf())} bytes."
    assert document.content[1] == {
        "type": "file",
        "base64": base64.b64encode(pictures.pdf()).decode(),
        "mime_type": "application/pdf",
        "extras": {"filename": "report"},
    }
    assert read(driven, "d/text.png").content == "     1\tonly a name"

    for path, media, expected in (
        ("plot.txt", False, "[binary] d/plot.txt is a PNG image ("),
        ("plot.txt", ["pdf"], "[binary] d/plot.txt is a PNG image ("),
        ("report", ["image"], "[binary] d/report is a PDF document (69 bytes). Extract its text with bash"),
        ("huge.png", False, "[binary] d/huge.png is a PNG image (11,"),
        ("damaged.png", True, "[media_damaged] d/damaged.png begins like a PNG image and is incomplete"),
        ("large.gif", True, "[media_too_large] d/large.gif is a GIF image of 3,750,"),
        ("huge.png", True, "[media_too_large] d/huge.png is a PNG image of 11,"),
        (
            "wide.webp",
            True,
            "[media_too_large] d/wide.webp is a WebP image of 8,001x5 pixels, over the limit of 8,000",
        ),
        ("archive.bin", True, "[binary] d/archive.bin is a binary file"),
    ):
        refused = read(driven, f"d/{path}", media)
        assert refused.status == "error"
        assert refused.content.startswith(expected)
    edited = driven.call(driven.file, action="edit", path="d/plot.txt", old_string="a", new_string="b")
    assert edited.content.startswith("[binary] d/plot.txt is a PNG image")
    # A picture that was shown may be overwritten, as any file that was read.
    done = driven.call(driven.file, action="write", path="d/plot.txt", content="a description")
    assert done.status == "success"


@pytest.mark.parametrize("answer", ["PNG image", "PDF document", "ELF"])
def test_a_guest_that_names_another_kind(
    answer: str, workspace: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content decides; the guest's word only makes the host read it."""
    from langchain_daytona_ws._core.files.errors import file_error
    from langchain_daytona_ws._core.files.operations import FileOperations

    workspace.files("write", "a", b"\0\0 nothing of the kind")

    async def forged(*_: Any, **__: Any) -> Any:
        raise file_error("a", "read", "binary", {"bytes": 10, "what": answer})

    monkeypatch.setattr(FileOperations, "read", forged)
    refused = read(workspace, "a")
    assert refused.status == "error"
    assert refused.content.startswith("[binary]" if answer == "ELF" else "[media_damaged]")
