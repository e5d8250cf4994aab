"""Daytona cannot be reached: an untrusted certificate, a refused port, proxies; each a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.sandbox.lifecycle import FIRST_REACH_S
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.local import LocalDaytona

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, *PROXY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Waited:
    """A clock that waits for nothing, and adds up what it should have waited for."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def time(self) -> float:
        return 1_700_000_000.0 + self.waited_s

    def monotonic(self) -> float:
        return self.waited_s

    def sleep(self, seconds: float) -> None:
        self.waited_s += seconds

    async def asleep(self, seconds: float) -> None:
        self.waited_s += seconds


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request 401, as Daytona does a wrong key, and every CONNECT 407, as a proxy does."""

    server: Listening

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))  # unread, it would end in a reset
        self.server.heads.append((self.requestline, dict(self.headers)))
        body = b'{"statusCode":401,"message":"Invalid credentials"}'
        self.send_response(407 if self.command == "CONNECT" else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    do_POST = do_CONNECT = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, *_: Any) -> None: ...


class Listening(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Refusing)
        self.context = context
        self.connections = 0
        self.heads: list[tuple[str, dict[str, str]]] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1  # a refused handshake ends here, in this connection's own thread
        try:
            wrapped = self.context.wrap_socket(request, server_side=True) if self.context else request
        except (ssl.SSLError, OSError):
            return
        with wrapped:
            super().finish_request(wrapped, client_address)


@contextmanager
def serving(server: Listening) -> Iterator[Listening]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A company's own authority, which no machine trusts by itself."""
    return trustme.CA()


@pytest.fixture
def intercepted(authority: trustme.CA) -> Iterator[Listening]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(Listening(context)) as server:
        yield server


@pytest.fixture
def refusing_port() -> Iterator[int]:
    with socket.socket() as held:  # bound and not listening: no other program can use it
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def failure(api_url: str, runtime: str, *, clock: Any = None, **config: Any) -> WorkspaceError:
    config = {"options": {"apiUrl": api_url, "apiKey": "key"}, **config}
    session = WorkspaceSession(config, namespace="demo", clock=clock or Waited())
    run = session.run if runtime == "sync" else lambda command: asyncio.run(session.arun(command))
    with pytest.raises(WorkspaceError) as caught:
        run("true")
    session.close()
    return caught.value


RUNTIMES = pytest.mark.parametrize("runtime", ["sync", "async"])


class TestACertificateThatIsNotTrusted:
    @RUNTIMES
    @pytest.mark.parametrize("persistent", [False, True])
    def test_is_one_error_at_once_that_names_the_variables(
        self, intercepted: Listening, runtime: str, persistent: bool
    ) -> None:
        clock = Waited()
        error = failure(
            f"https://localhost:{intercepted.server_port}/api", runtime, clock=clock, persistent=persistent
        )
        assert (error.code, error.retryable) == ("certificate", False)
        assert "SSL_CERT_FILE" in error.message
        assert "local issuer" in error.message
        assert clock.waited_s == 0
        # The SDK's async client tries a connection three times within a second; nothing else does.
        assert intercepted.connections <= (1 if runtime == "sync" else 3)

    @RUNTIMES
    @pytest.mark.parametrize("variable", CA_VARIABLES)
    def test_the_variables_that_are_named_are_those_that_are_read(  # noqa: PLR0917 - fixtures
        self,
        intercepted: Listening,
        authority: trustme.CA,
        runtime: str,
        variable: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "company.pem")
        subprocess.run(["openssl", "rehash", tmp_path], check=True, capture_output=True)
        file = tmp_path if variable == "SSL_CERT_DIR" else tmp_path / "company.pem"
        monkeypatch.setenv(variable, str(file))
        error = failure(f"https://localhost:{intercepted.server_port}/api", runtime)
        read = variable in ("SSL_CERT_FILE", "SSL_CERT_DIR")
        assert error.code == ("unauthorized" if read else "certificate")  # what the server behind it answers

    def test_file_transfers_of_the_sync_side_read_them_too(
        self,
        intercepted: Listening,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        address = f"https://localhost:{intercepted.server_port}/"
        authority.cert_pem.write_to_path(tmp_path / "company.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))
        port = SyncDaytonaPort(Account(api_key="key", api_url=address, target=None))
        assert port._daytona()._http_client.get(address).status_code == 401
        port.close()

    def test_another_name_than_the_certificates_is_told_as_that(self, intercepted: Listening) -> None:
        error = failure(f"https://127.0.0.1:{intercepted.server_port}/api", "sync")
        assert error.code == "certificate"


def test_an_sts_that_is_not_trusted_names_botos_variable(
    intercepted: Listening, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    options = {
        "mountAwsS3Buckets": True,
        "workspaceBucketName": "workspaces",
        "awsRegion": "eu-central-1",
        "mountRoleArn": "arn:aws:iam::123456789012:role/agent",
        "stsEndpoint": f"https://localhost:{intercepted.server_port}",
    }
    config = {"options": {"apiKey": "key", **options}}

    def code() -> str:
        with WorkspaceSession(config, namespace="demo") as session, pytest.raises(WorkspaceError) as caught:
            session.run("true")
        return caught.value.code

    assert code() == "sts_certificate"
    authority.cert_pem.write_to_path(tmp_path / "company.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "company.pem"))
    assert code() not in ("sts_certificate", "sts_unreachable")


class TestAPortThatRefuses:
    @RUNTIMES
    @pytest.mark.parametrize("persistent", [False, True])
    def test_ends_the_first_request_of_a_session_soon(
        self, refusing_port: int, runtime: str, persistent: bool
    ) -> None:
        clock = Waited()
        error = failure(f"http://127.0.0.1:{refusing_port}/api", runtime, clock=clock, persistent=persistent)
        assert (error.code, error.retryable) == ("unreachable", True)
        assert "options.apiUrl" in error.message
        assert 0 < clock.waited_s <= FIRST_REACH_S


class TestProxies:
    @RUNTIMES
    @pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://[::1:9", "http://proxy:port"])
    def test_an_unusable_address_is_a_configuration_error(
        self, runtime: str, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", address)
        error = failure("https://daytona.invalid/api", runtime)
        assert (error.code, "has no usable host and port" in error.message) == ("client", True)

    @RUNTIMES
    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
    def test_both_sides_go_through_the_environments(
        self, runtime: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(Listening()) as proxy:
            monkeypatch.setenv(name, f"http://some%40one:%73ecret@127.0.0.1:{proxy.server_port}")
            error = failure("https://daytona.invalid/api", runtime)
        assert error.code == "unreachable"
        assert "ecret" not in error.message
        line, headers = proxy.heads[0]
        assert line.startswith("CONNECT daytona.invalid:443 HTTP/1.")
        given = {key.lower(): value for key, value in headers.items()}["proxy-authorization"]
        assert base64.b64decode(given.removeprefix("Basic ")) == b"some@one:secret"

    @RUNTIMES
    def test_neither_does_where_no_proxy_names_the_host(
        self, runtime: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(Listening()) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
            monkeypatch.setenv("NO_PROXY", "daytona.invalid")
            error = failure("https://daytona.invalid/api", runtime)
        assert error.code == "unreachable"
        assert proxy.connections == 0

    def test_the_sync_side_reaches_this_machine_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(Listening()) as proxy, LocalDaytona() as server:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
            config = {"options": {"apiUrl": server.api_url, "apiKey": server.api_key}}
            with WorkspaceSession(config, namespace="demo") as session:
                assert session.run("echo ok").output == "ok\n"
        assert proxy.connections == 0

    @RUNTIMES
    @pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
    @pytest.mark.parametrize(
        "value", ["proxy.example:3128", "user:secret@proxy.example:3128", "proxy.example"]
    )
    def test_one_without_a_scheme_is_an_error_of_the_configuration(
        self, runtime: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        error = failure("https://daytona.invalid/api", runtime)
        assert (error.code, error.op) == ("client", "connect")
        assert name in error.message
        assert "http://host:port" in error.message
        assert "secret" not in error.message

    @pytest.mark.parametrize("address", ["socks5://someone:secret@127.0.0.1:1", "ftp://127.0.0.1:1"])
    def test_async_calls_name_the_variable_of_a_proxy_that_they_cannot_use(
        self, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", address)
        error = failure("https://daytona.invalid/api", "async")
        assert error.code == "client"
        assert (
            f"HTTPS_PROXY (or https_proxy) in the environment is a {address.partition(':')[0]} proxy"
            in error.message
        )
        assert "secret" not in error.message
        monkeypatch.setenv("NO_PROXY", "daytona.invalid")
        assert failure("https://daytona.invalid/api", "async").code == "unreachable"


@pytest.mark.full
def test_an_address_that_never_answers_takes_no_longer_than_a_connection_may() -> None:
    """A full backlog drops what asks to connect, as a firewall does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # In a process of its own: what fills the backlog must not outlive the test, and the limit is the adapters'.
        script = f"""
import socket
from langchain_daytona_ws._adapters import answers
answers.CONNECT_TIMEOUT_S = 0.2
from tests.integration_tests.test_unreachable import failure
fill = [socket.socket() for _ in range(8)]
for one in fill:
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", {port}))
import asyncio, time
for side in ("sync", "async"):
    print(side, failure("http://127.0.0.1:{port}/api", side).code)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False
        )
    assert done.stdout == "sync unreachable\nasync unreachable\n", done.stderr
