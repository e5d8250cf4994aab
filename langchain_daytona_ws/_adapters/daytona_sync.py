"""The sync runtime's `SandboxPort`, over the SDK's ``Daytona``. Its coroutines never suspend."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from daytona import Daytona, DaytonaConfig, DaytonaNotFoundError, Sandbox
from urllib3 import Retry

from langchain_daytona_ws._adapters import transfers
from langchain_daytona_ws._adapters.answers import limit_answers, limit_transfers
from langchain_daytona_ws._adapters.background import ThreadTask
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._adapters.faults import translating
from langchain_daytona_ws._adapters.proxies import ProxiedPools, environment_proxies
from langchain_daytona_ws._adapters.sdk import (
    PING_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Account,
    client_config,
    create_params,
    describe,
    making_a_client,
    tracing_is_wanted,
    version_of,
)
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.ports import (
    BackgroundTask,
    ExecReply,
    OnBytes,
    SandboxInfo,
    SandboxSpec,
    UploadSource,
)


class SyncDaytonaPort:
    """A thread-safe `SandboxPort`. All sessions of an account share one client."""

    def __init__(self, account: Account, clock: Clock = SYSTEM_CLOCK) -> None:
        self._account = account
        self._clock = clock
        self.now = clock.monotonic
        self._connections = _Connections()

    def _current(self) -> _Connections:
        """Return the connections of this process. After a fork, the child gets new connections."""
        if self._connections.made_in != os.getpid():
            self._connections = _Connections()
        return self._connections

    def _daytona(self) -> Daytona:
        current = self._current()
        with current.lock:
            if current.shared is None:
                current.shared = _shared_clients().get(self._account)
            return current.shared.client

    def close(self) -> None:
        """Close this process's connections, unless other sessions use them. Later requests open new ones."""
        self._connections = _Connections()

    def _keep(self, sandbox: Sandbox) -> SandboxInfo:
        self._current().sandboxes[sandbox.id] = sandbox
        return describe(sandbox)

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._current().sandboxes.get(sandbox_id)
        if sandbox is None:
            sandbox = self._daytona().get(sandbox_id, request_timeout=REQUEST_TIMEOUT_S)
            self._keep(sandbox)
        return sandbox

    @translating
    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        return self._keep(self._daytona().create(create_params(spec), timeout=timeout_s))

    @translating
    async def get(self, id_or_name: str) -> SandboxInfo | None:
        try:
            return self._keep(self._daytona().get(id_or_name, request_timeout=REQUEST_TIMEOUT_S))
        except DaytonaNotFoundError:
            self._current().sandboxes.pop(id_or_name, None)
            return None

    @translating
    async def start(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._sandbox(sandbox_id).start(timeout=timeout_s)

    @translating
    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._sandbox(sandbox_id).stop(timeout=timeout_s)

    @translating
    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._sandbox(sandbox_id).recover(timeout=timeout_s)

    @translating
    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        self._sandbox(sandbox_id).set_autostop_interval(minutes, request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def set_autodelete(self, sandbox_id: str, minutes: int) -> None:
        self._sandbox(sandbox_id).set_auto_delete_interval(minutes, request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def preview_url(self, sandbox_id: str, port: int, *, expires_s: int) -> str:
        link = self._sandbox(sandbox_id).create_signed_preview_url(
            port, expires_s, request_timeout=REQUEST_TIMEOUT_S
        )
        return link.url

    @translating
    async def set_labels(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        self._sandbox(sandbox_id).set_labels(dict(labels), request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def delete(self, id_or_name: str) -> None:
        try:
            sandbox = self._sandbox(id_or_name)
            self._daytona().delete(sandbox, timeout=REQUEST_TIMEOUT_S)
        except DaytonaNotFoundError:
            return
        finally:
            self._current().sandboxes.pop(id_or_name, None)

    @translating
    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        reply = self._sandbox(sandbox_id).process.exec(script, env=dict(env), timeout=timeout_s)
        return ExecReply(exit_code=int(reply.exit_code), output=reply.result)

    @translating
    async def ping(self, sandbox_id: str) -> None:
        self._sandbox(sandbox_id).fs.get_file_info("/", request_timeout=PING_TIMEOUT_S)

    @translating
    async def upload(
        self, sandbox_id: str, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
    ) -> list[str]:
        return list(transfers.upload(self._sandbox(sandbox_id).fs, files, on_bytes))

    @translating
    async def download(
        self,
        sandbox_id: str,
        path: str,
        write: Callable[[bytes], object],
        on_bytes: OnBytes | None = None,
    ) -> None:
        transfers.download(self._sandbox(sandbox_id).fs, path, write, on_bytes)

    @translating
    async def version(self, sandbox_id: str, path: str) -> str:
        found = self._sandbox(sandbox_id).fs.get_file_info(path, request_timeout=REQUEST_TIMEOUT_S)
        return version_of(found)

    async def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        return ThreadTask(work)

    async def finish(self, work: Coroutine[Any, Any, object], *, within_s: float) -> bool:
        # No time limit is needed: each request has its own time-out. Only Ctrl-C can interrupt the work.
        await work
        return True


class _Connections:
    """The connections and the lock of one process. After a fork, the child must not use those of its parent."""

    def __init__(self) -> None:
        self.made_in = os.getpid()
        self.lock = threading.Lock()
        self.shared: _SharedClient | None = None
        self.sandboxes: dict[str, Sandbox] = {}


class _SharedClients:
    """The clients of this process that sessions use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: weakref.WeakValueDictionary[Account, _SharedClient] = weakref.WeakValueDictionary()

    def get(self, account: Account) -> _SharedClient:
        """Return the account's client; create it if no session uses it."""
        with self._lock:
            shared = self._used.get(account)
            if shared is None:
                shared = self._used[account] = _SharedClient(account)
            return shared


_shared = {os.getpid(): _SharedClients()}


def _shared_clients() -> _SharedClients:
    """Return the clients of this process. After a fork, the child must not use those of its parent."""
    return _shared.setdefault(os.getpid(), _SharedClients())


class _SharedClient:
    """One client for all sessions of an account in this process; the SDK's sync client is thread-safe.

    It is shared because each client reads the system's certificates twice, and has its own connections. The connections
    are closed when no session refers to the client any more, even if a session was never closed.
    """

    def __init__(self, account: Account) -> None:
        with making_a_client():
            self.client = Client(client_config(account))
        self.client._target = account.target
        weakref.finalize(self, _close, self.client, os.getpid()).atexit = False


def _close(client: Client, made_in: int) -> None:
    """Close the connections; the SDK keeps them until garbage collection. A forked child closes nothing."""
    if made_in == os.getpid():
        client._api_client.rest_client.pool_manager.clear()
        client._toolbox_api_client.rest_client.pool_manager.clear()
        client._http_client.close()


# urllib3 repeats only idempotent requests, such as GET, PUT and DELETE. The core repeats other requests, because it
# knows whether they may have run. The SDK's own retries are replaced: they would repeat a POST (its
# RemoteDisconnectedRetry), repeat a request after a refused certificate or connection, and wait for Retry-After, up to
# six hours (urllib3).
_RETRIES = Retry(total=3, connect=0, other=0, respect_retry_after_header=False)


class Client(Daytona):
    """The SDK's client, with limits for answers and fewer retries. .env files cannot enable its tracing."""

    def __init__(self, config: DaytonaConfig) -> None:
        super().__init__(config)
        proxies = environment_proxies()
        for api in (self._api_client, self._toolbox_api_client):
            pools = api.rest_client.pool_manager
            pools.connection_pool_kw["retries"] = _RETRIES
            if proxies:
                api.rest_client.pool_manager = ProxiedPools(pools, proxies)
            limit_answers(api)
        limit_transfers(self._http_client)

    def _init_otel(self, sdk_version: str) -> None:
        if tracing_is_wanted():
            super()._init_otel(sdk_version)
