"""The toolbox's endpoints: each is handed to the daemon inside the sandbox."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .clock import Clock
from .errors import ApiError, DaemonError
from .fleet import Fleet
from .link import Link
from .record import SandboxRecord
from .replies import json_reply, read_object
from .toolbox.wire import CHUNK_BYTES

Handler: TypeAlias = Callable[[Link, Request], Awaitable[Response]]

NOT_RUNNING = "bad request: failed to get runner info: no IP address found. Is the Sandbox started?"
# Two weeks: what the system's calls can still wait for.
LONGEST_TIMEOUT_S = 14 * 24 * 3600
# Converting so much takes the time of many requests.
MUCH_OUTPUT_BYTES = 256 * 1024
BYTEWISE = "langchain_daytona_ws.bytewise"


def _replace_bytewise(error: UnicodeError) -> tuple[str, int]:
    """Write one U+FFFD for every undecodable byte, as Go does; Python's "replace" writes one for several."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(BYTEWISE, _replace_bytewise)


class Proxy:
    """Finds the sandbox of a toolbox request and keeps it awake while the request is open."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock

    def to(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint that hands requests to `handler` with a link to their sandbox."""

        async def answer(request: Request) -> Response:
            try:
                record = self._fleet.get(request.path_params["sandbox"])
            except ApiError:
                raise ApiError(404, "sandbox container not found") from None
            request.scope["sandbox_id"] = record.id
            if record.state != "started" or record.running is None:
                raise ApiError(400, NOT_RUNNING)
            # Awake until the last byte of the answer is out.
            request.scope["cleanup"].enter_context(self._awake(record))
            return await handler(record.running.link, request)

        return answer

    @contextlib.contextmanager
    def _awake(self, record: SandboxRecord) -> Iterator[None]:
        record.open_requests += 1
        record.last_activity_at = self._clock.now()
        try:
            yield
        finally:
            record.open_requests -= 1
            record.last_activity_at = self._clock.now()


async def execute(link: Link, request: Request) -> Response:
    body = await read_object(request)
    command = body.get("command")
    if not isinstance(command, str) or not command:
        raise DaemonError(400, "INVALID_REQUEST", "command is required")
    timeout = body.get("timeout")
    if isinstance(timeout, (int, float)) and timeout > LONGEST_TIMEOUT_S:
        raise DaemonError(400, "INVALID_REQUEST", f"timeout must not be greater than {LONGEST_TIMEOUT_S}")
    header = {
        "op": "execute",
        "cwd": body.get("cwd"),
        "env": body.get("envs"),
        # No limit unless one is asked for.
        "timeout_s": timeout if isinstance(timeout, (int, float)) and timeout > 0 else None,
    }
    answer, output = await link.call(header, command.encode("utf-8", "replace"))
    if len(output) < MUCH_OUTPUT_BYTES:
        return _executed(answer, output)
    return await asyncio.to_thread(_executed, answer, output)


def _executed(answer: dict[str, Any], output: bytes) -> Response:
    return json_reply({"exitCode": answer["exitCode"], "result": output.decode("utf-8", BYTEWISE)})


def call(op: str, *parts: str, status: int = 200) -> Handler:
    """Return a handler that passes on parts of the request, written as in "path=query" or "new=body:newValue".

    A `?` at the end makes a part optional, a `!` makes it true or false.
    """

    async def answer(link: Link, request: Request) -> Response:
        body = await read_object(request)
        header = {"op": op, **dict(_part(request, body, part) for part in parts)}
        reply, _ = await link.call(header)
        return json_reply(reply["value"], status) if "value" in reply else Response(status_code=status)

    return answer


def _part(request: Request, body: dict[str, Any], part: str) -> tuple[str, Any]:
    name, _, where = part.rstrip("?!").partition("=")
    place, _, key = where.partition(":")
    source = {"query": request.query_params, "path": request.path_params, "body": body}[place]
    value = source.get(key or name)
    if part.endswith("!"):
        return name, value is True or value in ("true", "1")
    if value is None and not part.endswith("?"):
        raise DaemonError(400, "INVALID_REQUEST", f"{key or name} is required")
    return name, value


async def session_execute(link: Link, request: Request) -> Response:
    body = await read_object(request)
    command = body.get("command")
    if not isinstance(command, str) or not command:
        raise DaemonError(400, "INVALID_REQUEST", "command is required")
    run_async = body.get("runAsync") is True or body.get("async") is True
    header = {"op": "session.execute", "session": request.path_params["session"], "text": command}
    reply, _ = await link.call({**header, "run_async": run_async})
    return json_reply(reply["value"], 202 if run_async else 200)


async def search(link: Link, request: Request) -> Response:
    query = request.query_params
    reply, _ = await link.call(
        {"op": "search", "path": query.get("path", ""), "pattern": query.get("pattern", "")}
    )
    return json_reply({"files": reply["value"]})


async def upload_many(link: Link, request: Request) -> Response:
    """Write `files[0].file` to `files[0].path` and so on; what fails is reported, the others are written."""
    errors: list[str] = []
    try:
        form = await request.form(max_files=10_000, max_fields=10_000)
    except (MultiPartException, ValueError) as error:
        raise DaemonError(400, "INVALID_REQUEST", f"malformed multipart body: {error}") from error
    request.scope["cleanup"].push_async_callback(form.close)
    for name, part in form.multi_items():
        if not isinstance(part, UploadFile):
            continue
        path = form.get(f"{name.removesuffix('.file')}.path")
        if not isinstance(path, str):
            errors.append(f"{name}: missing .path metadata")
            continue
        try:
            await link.send({"op": "write", "path": path}, _upload_chunks(part))
        except DaemonError as error:
            errors.append(str(error))
    return json_reply({"errors": errors}, 400) if errors else Response(status_code=200)


async def download_one(link: Link, request: Request) -> Response:
    path = request.query_params.get("path")
    if not path:
        raise DaemonError(400, "INVALID_REQUEST", "path is required")
    reading = link.receive({"op": "read", "path": path})
    _, chunks = await request.scope["cleanup"].enter_async_context(reading)
    return StreamingResponse(chunks, media_type="application/octet-stream")


async def download_many(link: Link, request: Request) -> Response:
    """Answer with one part a file; a file that cannot be read gets an `error` part in its place."""
    paths = (await read_object(request)).get("paths")
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise DaemonError(400, "INVALID_REQUEST", "request body must be {paths: [ ... ]} and non-empty")
    boundary = secrets.token_hex(16)
    return StreamingResponse(
        _download_parts(link, request, paths, boundary),
        media_type=f"multipart/form-data; boundary={boundary}",
    )


async def _download_parts(
    link: Link, request: Request, paths: list[str], boundary: str
) -> AsyncIterator[bytes]:
    for path in paths:
        try:
            async with link.receive({"op": "read", "path": path}) as (header, chunks):
                size = f"Content-Length: {int(header['size'])}\r\n".encode() if header["size"] else b""
                yield _part_head(boundary, "file", path, b"Content-Type: application/octet-stream\r\n" + size)
                async for chunk in chunks:
                    yield chunk
        except DaemonError as error:
            yield _part_head(boundary, "error", path, b"Content-Type: application/json\r\n")
            yield json.dumps(error.body(request.method, request.scope["path"], "")).encode()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _part_head(boundary: str, name: str, path: str, headers: bytes) -> bytes:
    # The caller matches parts to its requests by this text, so it must come through unharmed.
    if path.isascii() and path.isprintable():
        escaped = path.replace("\\", "\\\\").replace('"', '\\"')
        filename = f'filename="{escaped}"'
    else:
        filename = f"filename*=UTF-8''{urllib.parse.quote(path, safe='')}"
    disposition = f'Content-Disposition: form-data; name="{name}"; {filename}\r\n'
    return f"--{boundary}\r\n{disposition}".encode() + headers + b"\r\n"


async def _upload_chunks(part: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await part.read(CHUNK_BYTES):
        yield chunk


async def home_dir(link: Link, request: Request) -> Response:
    reply, _ = await link.call({"op": "home"})
    return json_reply({"dir": reply["value"]})


async def version(link: Link, request: Request) -> Response:
    await link.call({"op": "home"})
    return json_reply({"version": "local"})
