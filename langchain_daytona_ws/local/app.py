"""The ASGI application: its routes, and the middleware for journal, faults, authentication and errors."""

from __future__ import annotations

import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from . import proxy
from .clock import Clock
from .control import Control
from .errors import ApiError, DaemonGone
from .faults import Faults, apply_before, find_fault, injected_answer, send_answer
from .fleet import Fleet
from .journal import Journal
from .previews import Previews
from .proxy import Proxy
from .record import timestamp
from .replies import json_reply

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class Middleware:
    """Records a request, injects faults, checks the API key, and converts errors to answers.

    It is applied to every request, except a request below /api whose path does not accept its method: Starlette
    answers this request with 405.
    """

    def __init__(self, *, api_key: str, journal: Journal, faults: Faults, fleet: Fleet, clock: Clock) -> None:
        self._authorization = f"Bearer {api_key}".encode()
        self._journal = journal
        self._faults = faults
        self._fleet = fleet
        self._clock = clock
        self._without_key: list[Endpoint] = [_unknown]

    def route(self, method: str, path: str, action: str, endpoint: Endpoint) -> Route:
        return Route(path, self.wrap(action, endpoint), methods=[method])

    def wrap(self, action: str, endpoint: Endpoint, *, needs_key: bool = True) -> ASGIApp:
        if not needs_key:
            self._without_key.append(endpoint)
        return _WrappedEndpoint(self, action, endpoint)

    async def serve(
        self, action: str, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = Request(scope, receive)
        path = scope["path"]
        faults = self._faults.take(action, path)
        scope["faults"] = faults
        scope["sandbox_id"] = scope.get("path_params", {}).get("sandbox")
        number = self._journal.add(request.method, path, action, scope["sandbox_id"])
        status: int | None = None
        try:
            if not await apply_before(faults, request):
                return
            if find_fault(faults, "lost") is not None and scope["sandbox_id"]:
                await self._destroy(scope["sandbox_id"])
            async with contextlib.AsyncExitStack() as scope["cleanup"]:
                response = injected_answer(faults) or await self._answer(endpoint, request)
                if await send_answer(faults, response, scope, receive, send):
                    status = response.status_code
        except ClientDisconnect:
            return  # the client has closed the connection
        finally:
            self._journal.finish(number, status, scope["sandbox_id"])

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        now = timestamp(self._clock.now())
        path = request.scope["path"]
        try:
            if endpoint not in self._without_key and not self._authorized(request):
                raise ApiError(401, "Invalid credentials")
            return await endpoint(request)
        except ApiError as error:
            return json_reply(error.body(path, now), error.status)
        except DaemonGone:
            return Response(status_code=502)
        except ClientDisconnect:
            return Response(status_code=400)  # for the journal only: the client does not read it
        except Exception:
            logger.exception("%s %s failed", request.method, path)
            return json_reply(ApiError(500, "Internal server error").body(path, now), 500)

    def _authorized(self, request: Request) -> bool:
        header = next((value for name, value in request.scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(header, self._authorization)

    async def _destroy(self, id_or_name: str) -> None:
        try:
            await self._fleet.destroy(self._fleet.get(id_or_name), force=True)
        except ApiError:
            return  # the sandbox does not exist


class _WrappedEndpoint:
    """An endpoint with the middleware. Starlette would not treat a function as an ASGI application."""

    def __init__(self, middleware: Middleware, action: str, endpoint: Endpoint) -> None:
        self._middleware = middleware
        self._action = action
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._middleware.serve(self._action, self._endpoint, scope, receive, send)


def build(middleware: Middleware, control: Control, toolbox: Proxy, previews: Previews) -> ASGIApp:
    """Return the application. Routes are matched in order, so frequent routes come first."""
    routes = [
        middleware.route(method, f"/toolbox/{{sandbox}}{path}", action, toolbox.endpoint(handler))
        for method, path, action, handler in _toolbox_routes()
    ]
    unknown = middleware.wrap("unknown", toolbox.endpoint(proxy.unknown))
    routes.append(Route("/toolbox/{sandbox}/{rest:path}", unknown))
    routes += [
        middleware.route(method, f"/api{path}", action, endpoint)
        for method, path, action, endpoint in (*_control_routes(control), *_preview_routes(previews))
    ]
    page = middleware.wrap("preview", previews.page, needs_key=False)
    routes += [Route("/preview/{name}", page), Route("/preview/{name}/{path:path}", page)]
    # socket.io (state events) is not implemented: clients that get a 404 poll instead.
    routes.append(Route("/api/socket.io/", middleware.wrap("socket.io", _unknown)))
    return Router(routes, redirect_slashes=False, default=middleware.wrap("unknown", _unknown))


def _toolbox_routes() -> list[tuple[str, str, str, proxy.Handler]]:
    call, files = proxy.call, proxy.files_call
    session = "/process/session/{session}"
    command = "/process/session/{session}/command/{command}"
    of_command = ("session=path", "command=path")
    of_permissions = ("path=query", "mode=query?", "owner=query?", "group=query?")
    return [
        ("POST", "/process/execute", "execute", proxy.execute),
        ("GET", "/files/info", "files.info", files("info", "path=query")),
        ("POST", "/files/bulk-upload", "upload", proxy.upload_many),
        ("POST", "/files/bulk-download", "download", proxy.download_many),
        ("GET", "/files/download", "download", proxy.without_body(proxy.download_one)),
        ("GET", "/files", "files.list", files("list", "path=query?", "depth=query?")),
        ("DELETE", "/files", "files.delete", files("delete", "path=query", "recursive=query!", status=204)),
        ("POST", "/files/folder", "files.folder", files("folder", "path=query", "mode=query?", status=201)),
        ("POST", "/files/move", "files.move", files("move", "source=query", "destination=query")),
        ("GET", "/files/find", "files.find", files("find", "path=query", "pattern=query")),
        ("GET", "/files/search", "files.search", proxy.without_body(proxy.search)),
        ("POST", "/files/replace", "files.replace", proxy.without_body(proxy.replace)),
        ("POST", "/files/permissions", "files.permissions", files("permissions", *of_permissions)),
        ("GET", "/process/session", "session.list", call("session.list")),
        ("POST", "/process/session", "session.create", proxy.session_create),
        ("GET", session, "session.get", call("session.get", "session=path")),
        ("DELETE", session, "session.delete", call("session.delete", "session=path", status=204)),
        ("POST", f"{session}/exec", "session.execute", proxy.session_execute),
        ("GET", command, "session.command", call("session.command", *of_command)),
        ("GET", f"{command}/logs", "session.logs", call("session.logs", *of_command)),
        ("POST", "/env", "env", proxy.newer_only(proxy.update_env)),
        ("GET", "/work-dir", "info", proxy.home_dir),
        ("GET", "/user-home-dir", "info", proxy.home_dir),
        ("GET", "/version", "info", proxy.version),
    ]  # fmt: skip


def _control_routes(control: Control) -> list[tuple[str, str, str, Endpoint]]:
    return [
        ("POST", "/sandbox", "create", control.create),
        ("GET", "/sandbox", "list", control.list),
        ("GET", "/sandbox/{sandbox}", "get", control.get),
        ("DELETE", "/sandbox/{sandbox}", "delete", control.delete),
        ("POST", "/sandbox/{sandbox}/start", "start", control.start),
        ("POST", "/sandbox/{sandbox}/stop", "stop", control.stop),
        ("PUT", "/sandbox/{sandbox}/labels", "labels", control.labels),
        ("POST", "/sandbox/{sandbox}/last-activity", "activity", control.activity),
        ("GET", "/sandbox/{sandbox}/toolbox-proxy-url", "get", control.toolbox_url),
        *[
            ("POST", f"/sandbox/{{sandbox}}/{kind}/{{minutes}}", "interval", control.interval(kind))
            for kind in ("autostop", "autoarchive", "autodelete", "ttl")
        ],
        ("GET", "/snapshots", "snapshots", control.snapshot_list),
        ("POST", "/snapshots", "snapshots", control.snapshot_create),
        ("GET", "/snapshots/{snapshot}", "snapshots", control.snapshot_get),
        ("DELETE", "/snapshots/{snapshot}", "snapshots", control.snapshot_delete),
        ("POST", "/snapshots/{snapshot}/activate", "snapshots", control.snapshot_activate),
        ("GET", "/snapshots/{snapshot}/build-logs-url", "snapshots.log", control.snapshot_log_url),
        ("GET", "/snapshots/{snapshot}/build-logs", "snapshots.log", control.snapshot_log),
    ]


def _preview_routes(previews: Previews) -> list[tuple[str, str, str, Endpoint]]:
    port = "/sandbox/{sandbox}/ports/{port}"
    return [
        ("GET", f"{port}/preview-url", "preview-url", previews.standard_url),
        ("GET", f"{port}/signed-preview-url", "preview-url", previews.signed_url),
        ("POST", f"{port}/signed-preview-url/{{token}}/expire", "preview-url", previews.expire),
    ]


async def _unknown(request: Request) -> Response:
    raise ApiError(404, f"Cannot {request.method} {request.scope['path']}")
