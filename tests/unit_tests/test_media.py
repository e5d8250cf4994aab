"""Images and documents are media_of by their content; damaged ones are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_daytona_ws import WorkspaceFileTool, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws._core.files.media import Media, media_of
from langchain_daytona_ws._core.files.models import FileContent
from langchain_daytona_ws._guest.media import GIF, JPEG, PDF, PNG, WEBP, media_kind
from langchain_daytona_ws.tools.files import accepted_kinds, content_blocks
from tests.unit_tests import pictures

FILES = {
    PNG: (pictures.png(640, 480), 640, 480),
    GIF: (pictures.gif(20, 10), 20, 10),
    JPEG: (pictures.jpeg(300, 200), 300, 200),
    WEBP: (pictures.webp(8000, 16), 8000, 16),
    PDF: (pictures.pdf(), None, None),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_complete_file(kind: str) -> None:
    data, width, height = FILES[kind]
    assert media_kind(data[:32]) == kind
    assert media_of(data) == Media(kind, width, height)


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file(kind: str) -> None:
    data = FILES[kind][0]
    for size in range(len(data) - 6):
        found = media_of(data[:size])
        assert found is None, f"the first {size} bytes"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\0\0\0\0WAVE",
        b" %PDF-1.4",
        b"BM" + b"\0" * 60,
    ],
)
def test_other_content(data: bytes) -> None:
    assert media_kind(data) == ""
    assert media_of(data) is None


def test_a_picture_without_an_area() -> None:
    assert media_of(pictures.png(0, 5)) is None


HEADS = [data[:size] for data, *_ in FILES.values() for size in (8, 20)]


@given(st.sampled_from(HEADS), st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd9", b";", b"%%EOF"]))
def test_no_content_raises(head: bytes, middle: bytes, end: bytes) -> None:
    found = media_of(head + middle + end)
    assert found is None or found.kind == media_kind(head)


def model(**profile: bool) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("")]), profile=profile)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (True, {"image", "pdf"}),
        (False, set()),
        ([], set()),
        (["image"], {"image"}),
        (model(), set()),
        (model(image_tool_message=True), {"image"}),
        (model(image_tool_message=True, pdf_tool_message=True, image_inputs=True), {"image", "pdf"}),
        (model(image_inputs=True, pdf_inputs=True), set()),
        (model(image_tool_message=True).bind(stop=["x"]).with_config(tags=["t"]), {"image"}),
        (GenericFakeChatModel(messages=iter([])), set()),
    ],
)
def test_what_a_model_accepts(media: Any, expected: set[str]) -> None:
    assert accepted_kinds(media) == expected


@pytest.mark.parametrize("media", ["anthropic:claude", ["video"], None, 3])
def test_what_is_not_understood(media: Any) -> None:
    with pytest.raises(ValueError, match="media"):
        accepted_kinds(media)


def test_the_tool_tells_the_model_about_it() -> None:
    with WorkspaceSession({}, namespace="media") as session:
        toolkit = WorkspaceToolkit(session=session, media=["image"])
        assert toolkit.files.media == {"image"}
        assert "Numbered lines; text; images are shown." in toolkit.files.description
        assert "images and PDFs are shown" in WorkspaceFileTool(session=session, media=True).description
        assert WorkspaceFileTool(session=session, media=True, description="own").description == "own"
        assert "text only." in WorkspaceToolkit(session=session).files.description


def test_the_blocks_reach_anthropic() -> None:
    from langchain_anthropic import ChatAnthropic  # here, as each worker would load it for a second

    claude = ChatAnthropic(model_name="claude-sonnet-4-5", api_key="none", timeout=None, stop=None)
    messages: list[Any] = [HumanMessage("look")]
    for number, kind in enumerate((PNG, PDF)):
        content = FileContent(f"d/{kind}", FILES[kind][0], "0" * 64)
        found = media_of(content.data)
        assert found is not None
        call = {"name": "workspace_file", "args": {"action": "read"}, "id": f"call_{number}"}
        messages += [
            AIMessage("", tool_calls=[call]),
            ToolMessage(content_blocks(found, content), tool_call_id=f"call_{number}"),  # type: ignore[arg-type]
        ]
    sent = claude._get_request_payload(messages)["messages"]
    results = [part for message in sent if message["role"] == "user" for part in message["content"]]
    parts = [part for result in results if isinstance(result, dict) for part in result["content"]]
    shown = [part for part in parts if part["type"] != "text"]
    assert [(part["type"], part["source"]["media_type"]) for part in shown] == [
        ("image", "image/png"), ("document", "application/pdf")
    ]  # fmt: skip
