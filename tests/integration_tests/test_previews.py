"""Preview links of a session, the tool, and pages from servers that jobs started."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from langchain_daytona_ws import (
    CommandRefused,
    PermissionDecision,
    PermissionRequest,
    PreviewUrl,
    WorkspaceSession,
    WorkspaceToolkit,
)
from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import Bucket, bucket, host_keys

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]

SERVER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.path} {self.headers.get('x-custom')}".encode()
        self.send_response(418 if "teapot" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Mine", "yes")
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
print("listening", flush=True)
server.serve_forever()
"""


def preview(workspace: Driven, port: int, **given: Any) -> PreviewUrl:
    if workspace.runner is None:
        return workspace.session.preview_url(port, **given)
    return workspace.runner.run(workspace.session.apreview_url(port, **given))


def serve(workspace: Driven) -> int:
    """Start a server in a job, on a free port of this machine, whose network the sandbox shares."""
    find = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    workspace.files("write", "server.py", SERVER)
    for _ in range(50):
        port = 3000 + int(workspace.run(f'python3 -c "{find}"').output) % 7000
        job = workspace.session.jobs.start(f"python3 server.py {port}")
        if next(workspace.session.jobs.follow(job.id)).text == "listening\n":
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def page(server: LocalDaytona, open_session: OpenSession) -> tuple[Driven, int]:
    workspace = open_session(server, network={"mode": "deny-all"})
    return workspace, serve(workspace)


def test_a_page_is_fetched_from_a_server_that_a_job_started(page: tuple[Driven, int]) -> None:
    workspace, port = page
    link = preview(workspace, port)
    assert abs(link.expires_at - time.time() - 3600) < 60
    assert link.sandbox_id == workspace.session.sandbox_id
    assert link.url not in repr(link)
    got = httpx.get(f"{link.url}/a%20b?c=d", headers={"x-custom": "1"})
    assert (got.status_code, got.text, got.headers["x-mine"]) == (200, "/a%20b?c=d 1", "yes")
    assert httpx.get(link.url).text == "/ None"
    assert httpx.get(f"{link.url}/teapot").status_code == 418
    assert httpx.post(f"{link.url}/", content=b"x" * 300_000 + b"y").content == b"y" + b"x" * 300_000


def test_a_link_is_for_one_port_and_ends(server: LocalDaytona) -> None:
    clock = ManualClock()
    with LocalDaytona(clock=clock) as other:
        session = WorkspaceSession(config_for(other, network={"mode": "deny-all"}), namespace="demo")
        with session:
            workspace = Driven(session, None)
            port = serve(workspace)
            link = session.preview_url(port, expires_s=60)
            assert httpx.get(link.url).status_code == 200
            assert httpx.get(link.url.replace(f"/{port}-", f"/{port + 1}-")).status_code == 401
            assert httpx.get(f"{link.url}x").status_code == 401
            dead = session.preview_url(9999 if port != 9999 else 9998, expires_s=60)
            refused = httpx.get(dead.url)
            assert (refused.status_code, "connection refused" in refused.text) == (502, True)
            clock.advance(61)
            assert httpx.get(link.url).status_code == 401


def test_there_must_be_a_sandbox_and_a_valid_port(server: LocalDaytona, workspace: Driven) -> None:
    with pytest.raises(CommandRefused, match="Start the server first"):
        preview(workspace, 3000)
    with pytest.raises(CommandRefused, match="from 3000 to 9999"):
        preview(workspace, 80)
    assert server.requests == []


def test_a_stopped_persistent_sandbox_is_started(server: LocalDaytona, open_session: OpenSession) -> None:
    workspace = open_session(server, persistent=True)
    workspace.run("true")
    server.stop_sandbox(server.sandboxes[0].id)
    server.faults.add(Fault("status", action="preview-url", status=503))
    preview(workspace, 3000)
    assert server.sandboxes[0].state == "started"
    assert "started again" in workspace.run("true").notices[0]


class TestTool:
    @pytest.mark.parametrize(("mode", "asks"), [("ask", True), ("edit", True), ("bypass", False)])
    def test_it_asks_before_it_opens_a_port(
        self, server: LocalDaytona, open_session: OpenSession, mode: str, asks: bool
    ) -> None:
        asked: list[PermissionRequest] = []

        def approver(request: PermissionRequest) -> PermissionDecision:
            asked.append(request)
            return PermissionDecision.allow()

        workspace = open_session(server, permissionMode=mode, approver=approver)
        workspace.run("true")
        toolkit = WorkspaceToolkit(session=workspace.session, previews=True)
        assert [tool.name for tool in toolkit.get_tools()][-1] == "preview_url"
        message = workspace.call(toolkit.preview, port=3000, expires_s=90)
        assert [request.summary for request in asked] == [
            "preview_url: open port 3000 to anyone with the link for 90 seconds"
        ] * asks
        assert message.status == "success"
        assert message.artifact["port"] == 3000
        assert message.content == f"{message.artifact['url']}\n[port 3000, for 90 seconds]"

    def test_wrong_calls(self, workspace: Driven) -> None:
        tool = WorkspaceToolkit(session=workspace.session).preview
        for wrong, phrase in (({"port": 80}, "3000"), ({"port": 22222}, "9999"), ({"url": "x"}, "port")):
            message = workspace.call(tool, **wrong)
            assert (message.status, phrase in message.content) == ("error", True)
        message = workspace.call(tool, port=3000)
        assert (
            message.content == "[no_server] No server runs yet. Start it first: bash with background: true."
        )

    def test_it_is_optional(self, workspace: Driven) -> None:
        names = [tool.name for tool in WorkspaceToolkit(session=workspace.session).get_tools()]
        assert names == ["bash", "workspace_file", "bash_job"]


@pytest.mark.usefixtures("host_keys")
def test_a_link_to_a_persistent_sandbox_needs_no_credentials_for_s3(
    bucket: Bucket, open_session: Callable[..., Driven]
) -> None:
    bucket.session(open_session, role=True, persistent=True).run("true")
    later = bucket.session(
        open_session, role=True, persistent=True, options={"stsEndpoint": "http://127.0.0.1:9"}
    )
    link = (
        later.runner.run(later.session.apreview_url(3000))
        if later.runner
        else later.session.preview_url(3000)
    )
    assert link.port == 3000
    bucket.session(open_session, role=True, persistent=True).session.release()
