"""The toolbox's endpoints: each is handed to the daemon inside the sandbox."""

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
# An unsigned number of 32 bits.
LONGEST_TIMEOUT_S = 2**32 - 1
# Converting so much takes the time of many requests.
MUCH_OUTPUT_BYTES = 256 * 1024
BYTEWISE = "langchain_daytona_ws.bytewise"
# What ends the parts of a download, the same each time: a file that holds this text breaks them.
OLD_BOUNDARY = "DAYTONA-FILE-BOUNDARY"
_SURROGATE = re.compile("[\ud800-\udfff]")
# What counts as blank: the White_Space property of Unicode. Python's own strip takes four more.
_BLANK = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_BLANK += "\u2028\u2029\u202f\u205f\u3000"
# The characters that need no escape in a header's extended value (RFC 5987).
_PLAIN_IN_HEADERS = "!#$&+-.^_`|~"


def _replace_bytewise(error: UnicodeError) -> tuple[str, int]:
    """Write one U+FFFD for every undecodable byte, as Go does; Python's "replace" writes one for several."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(BYTEWISE, _replace_bytewise)


class Proxy:
    """Finds the sandbox of a toolbox request and keeps it awake while the request is open.

    Args:
        fleet: The sandboxes.
        clock: The server's time.
        kind: The daemon that answers: as it was measured in version 0.190, or as the models of SDK 0.226 describe a
            newer one.
    """

    def __init__(self, fleet: Fleet, clock: Clock, kind: DaemonKind) -> None:
        self._fleet = fleet
        self._clock = clock
        self._kind = kind

    def to(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint that hands requests to `handler` with a link to their sandbox."""

        async def answer(request: Request) -> Response:
            try:
                record = self._fleet.get(request.path_params["sandbox"])
            except ApiError:
                raise ApiError(404, "sandbox container not found") from None
            request.scope["sandbox_id"] = record.id
            request.scope["is_newer"] = self._kind != "0.190"
            request.scope["now"] = timestamp(self._clock.now())
            if record.state != "started" or record.running is None:
                raise ApiError(400, NOT_RUNNING)
            # Awake until the last byte of the answer is out.
            request.scope["cleanup"].enter_context(self._awake(record))
            try:
                return await handler(record.running.link, request)
            except DaemonError as error:
                return json_reply(_body(error, request, request.scope["path"]), error.status)

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


def silent(handler: Handler) -> Handler:
    """Return the handler whose refusals, in 0.190, are a status and nothing more."""

    async def answer(link: Link, request: Request) -> Response:
        try:
            return await handler(link, request)
        except DaemonError as error:
            if request.scope["is_newer"]:
                raise
            return Response(status_code=error.status)

    return answer


def since_newer(handler: Handler) -> Handler:
    """Return the handler of what 0.190 does not know."""

    async def answer(link: Link, request: Request) -> Response:
        return await (handler if request.scope["is_newer"] else unknown)(link, request)

    return answer


async def unknown(link: Link, request: Request) -> Response:
    return Response("404 page not found", 404, media_type="text/plain")


def _body(error: DaemonError, request: Request, path: str) -> dict[str, object]:
    return error.body(request.method, path, request.scope["now"], newer=request.scope["is_newer"])


async def execute(link: Link, request: Request) -> Response:
    body = await _object(request)
    command = _text(body, "command") or ""
    cwd, timeout = _text(body, "cwd"), body.get("timeout")
    is_number = isinstance(timeout, int) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 <= timeout <= LONGEST_TIMEOUT_S):
        raise DaemonError(
            400, f"invalid request body: timeout is a whole number from 0 to {LONGEST_TIMEOUT_S}"
        )
    if not command.strip(_BLANK):
        raise DaemonError(400, "command cannot be empty or blank")
    # No limit unless one is asked for.
    header = {"op": "execute", "cwd": cwd, "env": body.get("envs"), "timeout_s": timeout or None}
    answer, output = await link.call(header, command.encode())
    if len(output) < MUCH_OUTPUT_BYTES:
        return _executed(answer, output)
    return await asyncio.to_thread(_executed, answer, output)


async def _object(request: Request, code: str = "") -> dict[str, Any]:
    """Return the JSON object in the body; what is no Unicode in it becomes U+FFFD."""
    try:
        value = _washed(json.loads((await request.body()).decode("utf-8", BYTEWISE)))
    except (ValueError, RecursionError):  # the latter for a hundred thousand brackets
        value = None
    if not isinstance(value, dict):
        raise DaemonError(400, "invalid request body: it is no JSON object", code, everywhere=bool(code))
    return value


def _washed(value: Any) -> Any:
    """Replace halves of surrogate pairs, which JSON can hold and no text can."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_washed(key): _washed(one) for key, one in value.items()}
    return [_washed(one) for one in value] if isinstance(value, list) else value


def _text(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise DaemonError(400, f"invalid request body: {key} is no string")
    return value


def _executed(answer: dict[str, Any], output: bytes) -> Response:
    return json_reply({"exitCode": answer["exitCode"], "result": output.decode("utf-8", BYTEWISE)})


def call(op: str, *parts: str, status: int = 200) -> Handler:
    """Return a handler that passes on parts of the request, written as in "path=query" or "session=path".

    A `?` at the end makes a part optional, a `!` makes it true or false. An empty one counts as missing.
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
    name, _, place = part.rstrip("?!").partition("=")
    value = {"query": request.query_params, "path": request.path_params}[place].get(name)
    if part.endswith("!"):
        return name, value == "true"
    if not value and not part.endswith("?"):
        raise DaemonError(400, f"{name} is required")
    return name, value


def files_call(op: str, *parts: str, status: int = 200) -> Handler:
    """Return the handler of a file operation: `call`, whose refusals have no body in 0.190."""
    return silent(call(op, *parts, status=status))


async def replace(link: Link, request: Request) -> Response:
    body = await _object(request)
    files, pattern, new = body.get("files"), _text(body, "pattern"), _text(body, "newValue")
    if not isinstance(files, list) or not all(isinstance(path, str) for path in files):
        raise DaemonError(400, "invalid request body: files is no list of strings")
    if not pattern or new is None:
        raise DaemonError(400, "invalid request body: pattern and newValue are required")
    header = {"op": "replace", "files": files, "pattern": pattern, "new": new}
    reply, _ = await link.call(header)
    return json_reply(reply["value"])


async def update_env(link: Link, request: Request) -> Response:
    body = await _object(request)
    reply, _ = await link.call({"op": "env", "set": body.get("set"), "unset": body.get("unset")})
    return json_reply(reply["value"])


async def session_create(link: Link, request: Request) -> Response:
    invalid = "INVALID_REQUEST_BODY"
    session = (await _object(request, invalid)).get("sessionId")
    if not isinstance(session, str):
        raise DaemonError(400, "invalid request body: sessionId is no string", invalid, everywhere=True)
    await link.call({"op": "session.create", "session": session})
    return Response(status_code=201)


async def session_execute(link: Link, request: Request) -> Response:
    body = await _object(request)
    command = _text(body, "command") or ""
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
    """Write `files[0].file` to `files[0].path` and so on; what fails is reported, the others are written.

    The parts are taken in their order: a file whose path comes after it has none.
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
        raise DaemonError(400, error.message, error.code) from error  # here no failure of the daemon's own
    return StreamingResponse(chunks, media_type="application/octet-stream")


async def download_many(link: Link, request: Request) -> Response:
    """Answer with one part a file; a file that cannot be read gets an `error` part in its place."""
    try:
        paths = (await _object(request)).get("paths")
    except DaemonError:
        paths = None
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        return json_reply({"error": "request body must be {paths: [ ... ]} and non-empty"}, 400)
    boundary = secrets.token_hex(16) if request.scope["is_newer"] else OLD_BOUNDARY
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
                raise DaemonError(400, "the path is empty", "INVALID_FILE_PATH", everywhere=True)
            async with link.receive({"op": "read", "path": path}) as (header, chunks):
                kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
                headers = f"Content-Type: {kind}\r\nContent-Length: {int(header['size'])}\r\n"
                yield _part_head(boundary, "file", path, headers.encode())
                async for chunk in chunks:
                    yield chunk
        except DaemonError as error:
            error.everywhere = True  # the codes of files are those that 0.190 has, too, here
            yield _part_head(boundary, "error", path, b"Content-Type: application/json; charset=utf-8\r\n")
            yield json.dumps(_body(error, request, path)).encode()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _part_head(boundary: str, name: str, path: str, headers: bytes) -> bytes:
    """Write a part's head. It names the file twice: as Latin-1, with a _ for what that has not, and escaped."""
    plain = path.replace("\\", "\\\\").replace('"', '\\"')
    plain = re.sub(r"[\r\n\0]", "", plain)
    plain = re.sub(r"[\x01-\x1f\x7f]|[^\0-\xff]", "_", plain)
    escaped = urllib.parse.quote(path, safe=_PLAIN_IN_HEADERS)
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
