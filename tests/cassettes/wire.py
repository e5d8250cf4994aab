"""Convert requests and answers to plain data: their meaning, without their encoding."""

from __future__ import annotations

import ast
import binascii
import email
import email.policy
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from langchain_daytona_ws._core.guest_rpc.payload import ENV_PREFIX

Plain = dict[str, Any]

# Recorded headers: conditions of requests, and headers of answers that the clients read.
REQUEST_HEADERS = re.compile(r"if-.*|range|x-amz-(meta-.*|copy-.*|server-side-.*)", re.IGNORECASE)
ANSWER_HEADERS = re.compile(
    r"content-type|content-range|etag|last-modified|retry-after|x-amz-meta-.*", re.IGNORECASE
)
# Fields of the guest's answers that carry bytes of text.
PACKED = ("head", "tail", "data")
LONGEST_TEXT = 4096

_BOOT = re.compile(
    r"export \w+CTYPE=\S+; exec python3 -I -S -c '[^']+'(?: 3<<'(?P<end>[\w-]+)'\n(?P<secret>[^\n]*)\n(?P=end)\n)?"
)
_FRAME = re.compile(r"\n([0-9a-f]{32}) (\{.*\})\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:;[^\r]*)?\r\n")


class NoText(Exception):
    """An answer is not text, so its cassette would not be readable."""


def request_of(method: str, url: str, headers: Mapping[str, Any], body: Any) -> tuple[Plain, str]:
    """Return a request's meaning, and the nonce of a guest call (otherwise ``""``)."""
    kept = {name.lower(): _text(value) for name, value in headers.items()}
    plain: Plain = {"method": method, "url": url}
    conditions = {name: kept[name] for name in sorted(kept) if REQUEST_HEADERS.fullmatch(name)}
    if conditions:
        plain["headers"] = conditions
    if urlsplit(url).path.endswith("/files/bulk-upload"):
        plain["body"] = {"uploads": _uploads(body, kept.get("content-type", ""))}
        return plain, ""
    data, nonce = _bytes(body), ""
    if "aws-chunked" in kept.get("content-encoding", ""):
        data = _unchunked(data)
    if urlsplit(url).path.endswith("/process/execute"):
        plain["body"], nonce = _execution(json.loads(data))
    elif kept.get("content-type", "").startswith("application/json") and data:
        plain["body"] = json.loads(data)
    elif kept.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(data.decode()))
        plain["body"] = form | ({"Policy": json.loads(form["Policy"])} if "Policy" in form else {})
    elif data:
        plain["body"] = _readable(data)
    return plain, nonce


def answer_of(response: Mapping[str, Any], *, is_json: bool) -> Plain:
    """Return an answer's meaning.

    Args:
        response: vcrpy's representation.
        is_json: Whether the service answers with JSON; objects in a bucket are not parsed.

    Raises:
        NoText: Its body is not text.
    """
    headers = {name.lower(): values for name, values in response["headers"].items()}
    kept = {name: ", ".join(headers[name]) for name in sorted(headers) if ANSWER_HEADERS.fullmatch(name)}
    plain: Plain = {
        "status": response["status"]["code"],
        "reason": response["status"]["message"],
        "headers": kept,
    }
    try:
        text = (response["body"].get("string") or b"").decode()
    except UnicodeDecodeError:
        raise NoText(f"{len(response['body']['string'])} bytes") from None
    if not text:
        return plain
    if not is_json or not text.startswith(("{", "[")):
        is_xml = "xml" in kept.get("content-type", "")
        return {**plain, "body": _broken_into_lines(text) if is_xml else text}
    body = json.loads(text)
    frame = _FRAME.fullmatch(body["result"]) if isinstance(body, dict) and "result" in body else None
    if frame is not None:
        body = {"exitCode": body["exitCode"], "answer": _unpacked(json.loads(frame[2]))}
    return {**plain, "body": body}


def response_of(answer: Plain, nonce: str) -> dict[str, Any]:
    """Return vcrpy's representation of an answer to a request with this nonce."""
    body = answer.get("body", "")
    if isinstance(body, dict) and "answer" in body:
        framed = f"\n{nonce} {json.dumps(_packed(body['answer']))}\n"
        body = {"exitCode": body["exitCode"], "result": framed}
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {name: [value] for name, value in answer["headers"].items()}
    return {
        "status": {"code": answer["status"], "message": answer["reason"]},
        "headers": {**headers, "content-length": [str(len(data))]},
        "body": {"string": data},
    }


def _execution(sent: Plain) -> tuple[Plain, str]:
    env, script = dict(sent.get("envs") or {}), _BOOT.fullmatch(sent["command"])
    if script is None or f"{ENV_PREFIX}REQUEST0" not in env:
        return {**sent, "envs": sorted(env)}, ""
    _variable(env, "PROGRAM")
    source, text = _variable(env, "SOURCE"), _variable(env, "REQUEST")
    call = ast.literal_eval(text if text.startswith("{") else _unpacked_text(text))
    plain: Plain = {
        "guest": call["entry"],
        "carries": "source" if source else "digest",
        "timeout": sent.get("timeout"),
        "request": _plain(call["request"]),
    }
    if script["secret"] is not None:
        plain["secret"] = sorted(json.loads(binascii.a2b_base64(script["secret"])))
    if env:
        plain["env"] = sorted(env)
    return plain, call["nonce"]


def _variable(env: dict[str, str], name: str) -> str:
    """Remove the variables of a value from ``env`` and return the value; "" for none."""
    names = (f"{ENV_PREFIX}{name}{number}" for number in itertools.count())
    return "".join(env.pop(part) for part in itertools.takewhile(env.__contains__, names))


def _unpacked_text(value: str) -> str:
    return zlib.decompress(binascii.a2b_base64(value)).decode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {name: _plain(item) for name, item in value.items()}
        if isinstance(value.get("mount"), dict):
            plain["mount"]["request"] = json.loads(value["mount"]["request"])
            if value["mount"]["program"]["source"]:
                plain["mount"]["program"]["source"] = "<source>"
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _readable(value) if isinstance(value, bytes) else value


def _uploads(body: Any, content_type: str) -> list[Plain]:
    """Return the files of an upload."""
    message = email.message_from_bytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + _bytes(body), policy=email.policy.HTTP
    )
    parts = [part for part in message.walk() if part.get_filename()]
    return [{"path": part.get_filename(), **_digest(part.get_payload(decode=True))} for part in parts]


def _readable(data: bytes) -> str | Plain:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _digest(data)
    return text if len(text) <= LONGEST_TEXT else _digest(data)


def _digest(data: bytes) -> Plain:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _unpacked(answer: Plain) -> Plain:
    plain: Plain = {}
    for name, value in answer.items():
        if name in PACKED and isinstance(value, str):
            try:
                plain[f"{name}_text"] = binascii.a2b_base64(value).decode()
                continue
            except ValueError:
                pass  # not text: kept unchanged
        plain[name] = value
    return plain


def _packed(plain: Plain) -> Plain:
    texts = {f"{name}_text": name for name in PACKED}
    return {
        texts.get(name, name): binascii.b2a_base64(value.encode(), newline=False).decode()
        if name in texts
        else value
        for name, value in plain.items()
    }


def _broken_into_lines(text: str) -> str:
    """Insert line breaks between XML elements; their text is not changed."""
    text = re.sub(r"(</[^<>]+>)(?=<)", r"\1\n", text)
    return re.sub(r"(<[^/<>][^<>]*>)(?=<[^/])", r"\1\n", text)


def _unchunked(data: bytes) -> bytes:
    """Return the content of an aws-chunked body, which ends with a checksum."""
    whole, at = b"", 0
    while (size := _CHUNK.match(data, at)) and int(size[1], 16):
        whole += data[size.end() : size.end() + int(size[1], 16)]
        at = size.end() + int(size[1], 16) + 2
    return whole


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if hasattr(body, "read"):
        at = body.tell()
        data: bytes = body.read()
        body.seek(at)
        return data
    if isinstance(body, Iterable) and not isinstance(body, Mapping):
        return b"".join(body)
    raise TypeError(f"a body of type {type(body).__name__}")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
