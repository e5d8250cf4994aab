"""The endpoints of the toolbox (Daytona's API of one sandbox). Each passes its request to the sandbox's daemon."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import mimetypes
import re
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal, TypeAlias

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .clock import Clock
from .errors import ApiError, DaemonError
from .fleet import Fleet
from .link import Link
from .record import SandboxRecord, timestamp
from .replies import json_reply
from .toolbox.wire import CHUNK_BYTES

Handler: TypeAlias = Callable[[Link, Request], Awaitable[Response]]
DaemonKind: TypeAlias = Literal["0.190", "0.226"]
DAEMON_KINDS: tuple[DaemonKind, ...] = ("0.190", "0.226")

NOT_RUNNING = "bad request: failed to get runner info: no IP address found. Is the Sandbox started?"
# The timeout is an unsigned 32-bit number.
MAX_TIMEOUT_S = 2**32 - 1
# Output of this size or more is converted in a thread: in the event loop it would delay other requests.
LARGE_OUTPUT_BYTES = 256 * 1024
BYTEWISE = "langchain_daytona_ws.bytewise"
# The fixed boundary of downloads in 0.190: a file that contains this text breaks the download.
FIXED_BOUNDARY = "DAYTONA-FILE-BOUNDARY"
_SURROGATE = re.compile("[\ud800-\udfff]")
# Blank characters by Unicode's White_Space property; Python's str.strip removes four more.
_BLANK = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_BLANK += "\u2028\u2029\u202f\u205f\u3000"
# The characters that need no escape in a header's extended value (RFC 5987).
_UNESCAPED = "!#$&+-.^_`|~"


def _replace_bytewise(error: UnicodeError) -> tuple[str, int]:
    """Return one U+FFFD for each undecodable byte, as Go does; Python's "replace" returns one for several bytes."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(BYTEWISE, _replace_bytewise)
mimetypes.init()  # reads files, which would block the event loop at the first download


class Proxy:
    """Finds the sandbox of each toolbox request.

    `kind` is the version of the daemon to imitate: 0.190 as measured, or 0.226 as the models of SDK 0.226 describe it.
    """

    def __init__(self, fleet: Fleet, clock: Clock, kind: DaemonKind) -> None:
        self._fleet = fleet
        self._clock = clock
        self._kind = kind

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint that calls `handler` with the link to the request's sandbox."""

        async def answer(request: Request) -> Response:
            try:
                record = self._fleet.get(request.path_params["sandbox"])
            except ApiError:
                raise ApiError(404, "sandbox container not found") from None
            request.scope["sandbox_id"] = record.id
            request.scope["is_newer"] = self._kind != "0.190"
            request.scope["now"] = timestamp(self._clock.now())
            if record.state != "started" or record.processes is None:
                raise ApiError(400, NOT_RUNNING)
            # Keep the sandbox alive until the last byte of the answer is sent.
            request.scope["cleanup"].enter_context(self.keep_alive(record))
            try:
                return await handler(record.processes.link, request)
            except DaemonError as error:
                return json_reply(_body(error, request, request.scope["path"]), error.status)

        return answer

    @contextlib.contextmanager
    def keep_alive(self, record: SandboxRecord) -> Iterator[None]:
        """Prevent the sandbox's auto-stop until the block ends."""
        record.open_requests += 1
        record.last_activity_at = self._clock.now()
        try:
            yield
        finally:
            record.open_requests -= 1
            record.last_activity_at = self._clock.now()


def without_body(handler: Handler) -> Handler:
    """Wrap `handler`: with daemon 0.190, error answers have no body."""

    async def answer(link: Link, request: Request) -> Response:
        try:
            return await handler(link, request)
        except DaemonError as error:
            if request.scope["is_newer"]:
                raise
            return Response(status_code=error.status)

    return answer


def newer_only(handler: Handler) -> Handler:
    """Wrap `handler` for an endpoint that daemon 0.190 does not have: with daemon 0.190, answer 404."""

    async def answer(link: Link, request: Request) -> Response:
        return await (handler if request.scope["is_newer"] else unknown)(link, request)

    return answer


async def unknown(link: Link, request: Request) -> Response:
    return Response("404 page not found", 404, media_type="text/plain")


def _body(error: DaemonError, request: Request, path: str) -> dict[str, object]:
    return error.body(request.method, path, request.scope["now"], newer=request.scope["is_newer"])


async def execute(link: Link, request: Request) -> Response:
    body = await _json_object(request)
    command = _string(body, "command") or ""
    cwd, timeout = _string(body, "cwd"), body.get("timeout")
    is_number = isinstance(timeout, int) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 <= timeout <= MAX_TIMEOUT_S):
        raise DaemonError(400, f"invalid request body: timeout is a whole number from 0 to {MAX_TIMEOUT_S}")
    if not command.strip(_BLANK):
        raise DaemonError(400, "command cannot be empty or blank")
    # A timeout of 0 means no limit.
    header = {"op": "execute", "cwd": cwd, "env": body.get("envs"), "timeout_s": timeout or None}
    answer, output = await link.call(header, command.encode())
    if len(output) < LARGE_OUTPUT_BYTES:
        return _executed(answer, output)
    return await asyncio.to_thread(_executed, answer, output)


async def _json_object(request: Request, code: str = "") -> dict[str, Any]:
    """Return the JSON object in the body; invalid Unicode becomes U+FFFD."""
    try:
        value = _replace_surrogates(json.loads((await request.body()).decode("utf-8", BYTEWISE)))
    except (ValueError, RecursionError):  # RecursionError: a hundred thousand brackets
        value = None
    if not isinstance(value, dict):
        raise DaemonError(400, "invalid request body: not a JSON object", code, in_every_version=bool(code))
    return value


def _replace_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which JSON allows and UTF-8 does not."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(inner) for key, inner in value.items()}
    return [_replace_surrogates(inner) for inner in value] if isinstance(value, list) else value


def _string(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise DaemonError(400, f"invalid request body: {key} is not a string")
    return value


def _executed(answer: dict[str, Any], output: bytes) -> Response:
    return json_reply({"exitCode": answer["exitCode"], "result": output.decode("utf-8", BYTEWISE)})


def call(op: str, *parts: str, status: int = 200) -> Handler:
    """Return a handler that passes parts of the request to the daemon's operation `op`.

    Each of `parts` is a name with its location in the request, such as "path=query" or "session=path". A final `?`
    makes a part optional, a final `!` makes it a boolean. An empty value counts as missing.
    """

    async def answer(link: Link, request: Request) -> Response:
        header = {
            "op": op,
            "newer": request.scope["is_newer"],
            **dict(_part(request, part) for part in parts),
        }
        reply, _ = await link.call(header)
        return json_reply(reply["value"], status) if "value" in reply else Response(status_code=status)

    return answer


def _part(request: Request, part: str) -> tuple[str, Any]:
    name, _, location = part.rstrip("?!").partition("=")
    value = {"query": request.query_params, "path": request.path_params}[location].get(name)
    if part.endswith("!"):
        return name, value == "true"
    if not value and not part.endswith("?"):
        raise DaemonError(400, f"{name} is required")
    return name, value


def files_call(op: str, *parts: str, status: int = 200) -> Handler:
    """Return the handler of a file operation: `call`, wrapped in `without_body`."""
    return without_body(call(op, *parts, status=status))


async def replace(link: Link, request: Request) -> Response:
    body = await _json_object(request)
    files, pattern, new = body.get("files"), _string(body, "pattern"), _string(body, "newValue")
    if not isinstance(files, list) or not all(isinstance(path, str) for path in files):
        raise DaemonError(400, "invalid request body: files is not a list of strings")
    if not pattern or new is None:
        raise DaemonError(400, "invalid request body: pattern and newValue are required")
    header = {"op": "replace", "files": files, "pattern": pattern, "new": new}
    reply, _ = await link.call(header)
    return json_reply(reply["value"])


async def update_env(link: Link, request: Request) -> Response:
    body = await _json_object(request)
    reply, _ = await link.call({"op": "env", "set": body.get("set"), "unset": body.get("unset")})
    return json_reply(reply["value"])


async def session_create(link: Link, request: Request) -> Response:
    invalid = "INVALID_REQUEST_BODY"
    session = (await _json_object(request, invalid)).get("sessionId")
    if not isinstance(session, str):
        raise DaemonError(
            400, "invalid request body: sessionId is not a string", invalid, in_every_version=True
        )
    await link.call({"op": "session.create", "session": session})
    return Response(status_code=201)


async def session_execute(link: Link, request: Request) -> Response:
    body = await _json_object(request)
    command = _string(body, "command") or ""
    if not command.strip(_BLANK):
        raise DaemonError(400, "command cannot be empty or blank")
    run_async = body.get("runAsync") is True or body.get("async") is True
    header = {"op": "session.execute", "session": request.path_params["session"], "text": command}
    reply, _ = await link.call({**header, "run_async": run_async})
    return json_reply(reply["value"], 202 if run_async else 200)


async def search(link: Link, request: Request) -> Response:
    header = {"op": "search", **dict(_part(request, part) for part in ("path=query", "pattern=query"))}
    reply, _ = await link.call(header)
    return json_reply({"files": reply["value"]})


async def upload_many(link: Link, request: Request) -> Response:
    """Write `files[0].file` to `files[0].path` and so on. If a file fails, the other files are still written.

    Parts are processed in order: a path must come before its file.
    """
    errors: list[str] = []
    written: list[dict[str, Any]] = []
    paths: dict[str, str] = {}
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return json_reply({"errors": ["invalid multipart form"]}, 400)
    try:
        form = await request.form(max_files=10_000, max_fields=10_000)
    except (MultiPartException, ValueError):
        return json_reply({"errors": ["invalid multipart form"]}, 400)
    request.scope["cleanup"].push_async_callback(form.close)
    for name, part in form.multi_items():
        number = name.removeprefix("files[").removesuffix("].path").removesuffix("].file")
        if name.endswith(".path"):
            content = (await part.read()).decode("utf-8", BYTEWISE) if isinstance(part, UploadFile) else part
            paths[number] = content.strip(_BLANK)
            if not paths[number]:
                del paths[number]
                errors.append(f"path[{number}]: empty path")
        elif name.endswith(".file"):
            if number not in paths:
                errors.append(f"file[{number}]: its path is missing")
                continue
            try:
                body = _upload_chunks(part) if isinstance(part, UploadFile) else _upload_text(part)
                reply = await link.send({"op": "write", "path": paths[number]}, body)
                written.append({"path": paths[number], "bytes": reply["value"]})
            except DaemonError as error:
                errors.append(str(error))
    if errors:
        return json_reply({"errors": errors, "files": written or None}, 400)
    return json_reply({"files": written or None})


async def download_one(link: Link, request: Request) -> Response:
    path = request.query_params.get("path")
    if not path:
        raise DaemonError(400, "path is required")
    reading = link.receive({"op": "read", "path": path})
    try:
        _, chunks = await request.scope["cleanup"].enter_async_context(reading)
    except DaemonError as error:
        if error.status < 500:
            raise
        raise DaemonError(400, error.message, error.code) from error  # the original reports 400 here
    return StreamingResponse(chunks, media_type="application/octet-stream")


async def download_many(link: Link, request: Request) -> Response:
    """Answer with one part per file; an unreadable file has an `error` part instead."""
    try:
        paths = (await _json_object(request)).get("paths")
    except DaemonError:
        paths = None
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        return json_reply({"error": "request body must be {paths: [ ... ]} and non-empty"}, 400)
    boundary = secrets.token_hex(16) if request.scope["is_newer"] else FIXED_BOUNDARY
    return StreamingResponse(
        _download_parts(link, request, paths, boundary),
        media_type=f"multipart/form-data; boundary={boundary}",
    )


async def _download_parts(
    link: Link, request: Request, paths: list[str], boundary: str
) -> AsyncIterator[bytes]:
    for path in paths:
        try:
            if not path:
                raise DaemonError(400, "the path is empty", "INVALID_FILE_PATH", in_every_version=True)
            async with link.receive({"op": "read", "path": path}) as (header, chunks):
                kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
                headers = f"Content-Type: {kind}\r\nContent-Length: {int(header['size'])}\r\n"
                yield _part_head(boundary, "file", path, headers.encode())
                async for chunk in chunks:
                    yield chunk
        except DaemonError as error:
            error.in_every_version = True  # here daemon 0.190 sends the error codes too
            yield _part_head(boundary, "error", path, b"Content-Type: application/json; charset=utf-8\r\n")
            yield json.dumps(_body(error, request, path)).encode()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _part_head(boundary: str, name: str, path: str, headers: bytes) -> bytes:
    """Return the head of a part.

    The head has the file name twice: in Latin-1, with _ for other characters, and in escaped UTF-8.
    """
    plain = path.replace("\\", "\\\\").replace('"', '\\"')
    plain = re.sub(r"[\r\n\0]", "", plain)
    plain = re.sub(r"[\x01-\x1f\x7f]|[^\0-\xff]", "_", plain)
    escaped = urllib.parse.quote(path, safe=_UNESCAPED)
    filename = f"filename=\"{plain}\"; filename*=utf-8''{escaped}"
    disposition = f'Content-Disposition: form-data; name="{name}"; {filename}\r\n'
    return f"--{boundary}\r\n".encode() + disposition.encode("latin-1") + headers + b"\r\n"


async def _upload_text(part: str) -> AsyncIterator[bytes]:
    yield part.encode()


async def _upload_chunks(part: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await part.read(CHUNK_BYTES):
        yield chunk


async def home_dir(link: Link, request: Request) -> Response:
    reply, _ = await link.call({"op": "home"})
    return json_reply({"dir": reply["value"]})


async def version(link: Link, request: Request) -> Response:
    await link.call({"op": "home"})
    return json_reply({"version": "local"})
