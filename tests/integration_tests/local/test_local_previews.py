"""Previews of the local server through the SDK."""

from __future__ import annotations

import httpx
import pytest
from daytona import Daytona, Sandbox
from daytona.common.errors import DaytonaError, DaytonaValidationError

from langchain_daytona_ws.local import LocalDaytona

# A server for one request per connection, with an answer that it is given.
SERVE = """python3 - <<'END'
import socket
answer = {answer!r}
server = socket.create_server(("127.0.0.1", 8000))
import os
if os.fork(): os._exit(0)
os.setsid()
for fd in (0, 1, 2): os.close(fd)
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    connection.sendall(answer)
    connection.close()
END"""


@pytest.fixture
def sandbox(daytona: Daytona) -> Sandbox:
    from daytona import CreateSandboxFromSnapshotParams

    return daytona.create(CreateSandboxFromSnapshotParams(network_block_all=True))


def answering(sandbox: Sandbox, answer: bytes) -> str:
    assert sandbox.process.exec(SERVE.format(answer=answer)).exit_code == 0
    return sandbox.create_signed_preview_url(8000, 600).url


def test_a_signed_link_needs_no_header_and_can_be_ended(sandbox: Sandbox, server: LocalDaytona) -> None:
    url = answering(sandbox, b"HTTP/1.0 200 OK\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello")
    got = httpx.get(url)
    assert (got.status_code, got.text, got.headers.get_list("x-a")) == (200, "hello", ["1", "2"])
    assert server.count("preview") == 1
    token = url.rpartition("-")[2]
    sandbox.expire_signed_preview_url(8001, token)
    assert httpx.get(url).status_code == 200
    sandbox.expire_signed_preview_url(8000, token)
    assert httpx.get(url).status_code == 401


def test_a_standard_link_needs_its_token(sandbox: Sandbox) -> None:
    answering(sandbox, b"HTTP/1.1 204 No Content\r\n\r\n")
    link = sandbox.get_preview_link(8000)
    assert httpx.get(link.url).status_code == 401
    assert httpx.get(link.url, headers={"x-daytona-preview-token": "wrong"}).status_code == 401
    assert httpx.get(link.url, headers={"x-daytona-preview-token": link.token}).status_code == 204


def test_chunks_are_passed_on(sandbox: Sandbox) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert httpx.get(answering(sandbox, chunked)).text == "abcde"


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"])
def test_an_answer_that_is_not_http(sandbox: Sandbox, answer: bytes) -> None:
    got = httpx.get(answering(sandbox, answer))
    assert (got.status_code, "sent no HTTP response" in got.text) == (502, True)


def test_invalid_links(sandbox: Sandbox, server: LocalDaytona) -> None:
    for port, seconds in ((0, 60), (65_536, 60), (3000, 0), (3000, 86_401)):
        with pytest.raises(DaytonaValidationError):
            sandbox.create_signed_preview_url(port, seconds)
    base = server.api_url.removesuffix("/api")
    for name in ("x", "3000", "3000-", "99999999-a"):
        assert httpx.get(f"{base}/preview/{name}/").status_code in (401, 404)


def test_a_stopped_sandbox_has_no_previews(sandbox: Sandbox) -> None:
    url = answering(sandbox, b"HTTP/1.1 204 No Content\r\n\r\n")
    sandbox.stop()
    assert httpx.get(url).status_code == 400
    sandbox.delete()
    assert httpx.get(url).status_code == 404
    with pytest.raises(DaytonaError):
        sandbox.create_signed_preview_url(8000)
