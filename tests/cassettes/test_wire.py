"""Reading requests and answers, and writing answers, keeps their meaning."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

from langchain_daytona_ws._core.answer import read_frame
from langchain_daytona_ws._core.guest_rpc.payload import guest_call
from tests.cassettes.wire import answer_of, request_of, response_of

EXECUTE = "https://daytona.test/toolbox/a/process/execute"
NONCE = "0123456789abcdef" * 2


def request(body: Any, url: str = "https://s3.test/agents/a", **headers: str) -> dict[str, Any]:
    return request_of("PUT", url, {name.replace("_", "-"): value for name, value in headers.items()}, body)[0]


def response(body: bytes) -> dict[str, Any]:
    return {"status": {"code": 200, "message": "OK"}, "headers": {}, "body": {"string": body}}


@pytest.mark.parametrize(
    "body", ["äöü", "äöü".encode(), bytearray("äöü".encode()), io.BytesIO("äöü".encode())]
)
def test_a_body_is_the_same_however_it_is_handed_over(body: Any) -> None:
    assert request(body)["body"] == "äöü"
    assert request(body)["body"] == "äöü", "it can be read once more"


def test_binary_data_is_recorded_by_its_digest() -> None:
    assert request(b"\xff")["body"] == {
        "bytes": 1,
        "sha256": "a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89",
    }
    assert request(b"a" * 5000)["body"]["bytes"] == 5000


def test_the_chunks_that_a_checksum_follows_are_put_together() -> None:
    sent = b"6\r\nfirst \r\n6;chunk-signature=ab\r\nsecond\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    assert request(sent, content_encoding="aws-chunked")["body"] == "first second"


def test_of_the_headers_the_conditions_and_the_marks_are_kept() -> None:
    plain = request(
        b"", If_Match='"a"', X_Amz_Date="now", x_amz_meta_calls="b", Authorization="c", Range="bytes=0-1"
    )
    assert plain["headers"] == {"if-match": '"a"', "range": "bytes=0-1", "x-amz-meta-calls": "b"}


def test_a_foreign_script_is_recorded_unchanged() -> None:
    plain, nonce = request_of("POST", EXECUTE, {}, json.dumps({"command": "ls", "envs": {"KEY": "value"}}))
    assert plain["body"] == {"command": "ls", "envs": ["KEY"]}
    assert nonce == ""


def test_a_guest_request_is_recorded_without_its_encoding() -> None:
    call = guest_call("files", {"op": "write", "content": "grüße".encode(), "odd": "\udc80"}, NONCE)
    plain, nonce = request_of("POST", EXECUTE, {}, json.dumps({"command": call.script, "envs": call.env}))
    assert plain["body"]["request"] == {"op": "write", "content": "grüße", "odd": "\udc80"}
    assert nonce == NONCE


def test_a_guest_answer_is_replayed_for_any_nonce() -> None:
    answer = {
        "exit_code": 0,
        "head": base64.b64encode("grüße\n".encode()).decode(),
        "tail": base64.b64encode(b"\xff\xfe").decode(),
        "rows": [["ä", None, 1.5]],
    }
    body = json.dumps({"exitCode": 0, "result": f"\n{'0' * 32} {json.dumps(answer)}\n"}).encode()
    plain = answer_of(response(body), is_json=True)
    assert plain["body"]["answer"]["head_text"] == "grüße\n"
    assert plain["body"]["answer"]["tail"] == "//4="
    played = json.loads(response_of(plain, NONCE)["body"]["string"])
    assert read_frame(played["result"], NONCE, 0) == answer


def test_an_answer_without_a_frame_is_replayed_unchanged() -> None:
    body = {"exitCode": 127, "result": "sh: 1: python3: not found\n"}
    plain = answer_of(response(json.dumps(body).encode()), is_json=True)
    assert json.loads(response_of(plain, NONCE)["body"]["string"]) == body


def test_json_in_a_bucket_stays_the_text_that_it_is() -> None:
    text = b'{"a":   1}\n'
    assert response_of(answer_of(response(text), is_json=False), "")["body"]["string"] == text


def test_xml_is_broken_where_that_means_nothing() -> None:
    xml = b"<A><B></B><C>a &lt; b</C><D><E>1</E></D></A>"
    plain = answer_of({**response(xml), "headers": {"Content-Type": ["text/xml"]}}, is_json=False)["body"]
    assert plain.count("\n") == 6
    assert plain.replace("\n", "").encode() == xml
    assert "<B></B>" in plain
    assert "<C>a &lt; b</C>" in plain
    assert answer_of(response(xml), is_json=False)["body"].encode() == xml, "a file is nobody's to break"
