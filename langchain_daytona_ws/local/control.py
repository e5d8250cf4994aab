"""The endpoints of the control plane: sandboxes and snapshots."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .clock import Clock
from .errors import ApiError
from .fleet import Fleet
from .record import SandboxRecord, timestamp
from .replies import json_reply, read_object
from .snapshots import Snapshots, require_dockerfile

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 200
LOG_POLL_S = 0.1

# Field of the create request → field of the record and its type.
_CREATE_FIELDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "name": ("name", str),
    "user": ("user", str),
    "target": ("target", str),
    "env": ("env", dict),
    "labels": ("labels", dict),
    "public": ("public", bool),
    "cpu": ("cpu", int),
    "memory": ("memory", int),
    "disk": ("disk", int),
    "volumes": ("volumes", list),
    "networkBlockAll": ("network_block_all", bool),
    "autoStopInterval": ("auto_stop_interval", int),
    "autoArchiveInterval": ("auto_archive_interval", int),
    "autoDeleteInterval": ("auto_delete_interval", int),
    "ttlMinutes": ("ttl_minutes", int),
}
_INTERVALS = {
    "autostop": ("auto_stop_interval", 0),
    "autoarchive": ("auto_archive_interval", 0),
    "autodelete": ("auto_delete_interval", -1),
    "ttl": ("ttl_minutes", 0),
}
_MINIMUM = dict(_INTERVALS.values())
# Higher than any useful value, and low enough for date arithmetic.
_MAXIMUM = 2**31
# The usual limits of an organization (Daytona's documentation). Name and unit are for the error message.
_LARGEST = {"cpu": (4, "CPU", ""), "memory": (8, "Memory", "GB"), "disk": (10, "Disk", "GB")}
_UNENFORCED = ("networkAllowList", "domainAllowList")


class Control:
    def __init__(self, fleet: Fleet, snapshots: Snapshots, clock: Clock) -> None:
        self._fleet = fleet
        self._snapshots = snapshots
        self._clock = clock

    # --- sandboxes ---

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        fields = _create_fields(body)
        build_info, snapshot = body.get("buildInfo"), body.get("snapshot")
        if build_info is not None:
            if snapshot:
                raise ApiError(400, "Cannot specify a snapshot when using a build info entry")
            require_dockerfile(build_info)
            _require_allowed_size(fields)
            now = timestamp(self._clock.now())
            build = {**build_info, "createdAt": now, "updatedAt": now, "snapshotRef": f"local/{uuid.uuid4()}"}
            fields |= {"build_info": build, "snapshot": None}
        else:
            if any(fields.get(name) for name in _LARGEST):
                raise ApiError(400, "Cannot specify Sandbox resources when using a snapshot")
            if snapshot is not None and not isinstance(snapshot, str):
                raise ApiError(400, "snapshot must be a str")
            fields["snapshot"] = snapshot or "default"
            self._snapshots.require(fields["snapshot"], self._clock.now())
        record = await self._fleet.create(fields, request.scope["faults"])
        request.scope["sandbox_id"] = record.id
        return self._reply(request, record)

    async def get(self, request: Request) -> Response:
        return self._reply(request, self._record(request))

    async def list(self, request: Request) -> Response:
        """List the sandboxes, oldest first.

        The cursor identifies the last sandbox of a page: if sandboxes are deleted, later pages do not shift.
        """
        query = request.query_params
        limit = _parse_int(query.get("limit"), DEFAULT_PAGE_SIZE, 1, MAX_PAGE_SIZE, "limit")
        matching = [record for record in self._fleet.all() if _matches(record, request)]
        after = _read_cursor(query.get("cursor"))
        matching = [record for record in matching if after is None or (record.created_at, record.id) > after]
        matching.sort(key=lambda record: (record.created_at, record.id))
        page = matching[:limit]
        url = _toolbox_url(request)
        cursor = _write_cursor(page[-1]) if len(matching) > limit else None
        return json_reply({"items": [record.list_item(url) for record in page], "nextCursor": cursor})

    async def start(self, request: Request) -> Response:
        return await self._change_state(request, self._fleet.start)

    async def stop(self, request: Request) -> Response:
        return await self._change_state(request, self._fleet.stop)

    async def delete(self, request: Request) -> Response:
        return await self._change_state(request, self._fleet.destroy)

    async def labels(self, request: Request) -> Response:
        record = self._record(request)
        labels = (await read_object(request)).get("labels")
        record.labels = _strings(labels, "labels")
        return json_reply({"labels": record.labels})

    def interval(self, kind: str) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint that sets the interval `kind`, such as autostop, in minutes."""
        attribute, lowest = _INTERVALS[kind]

        async def set_interval(request: Request) -> Response:
            record = self._record(request)
            setattr(
                record, attribute, _parse_int(request.path_params["minutes"], 0, lowest, _MAXIMUM, attribute)
            )
            record.updated_at = self._clock.now()
            return self._reply(request, record)

        return set_interval

    async def activity(self, request: Request) -> Response:
        self._record(request).last_activity_at = self._clock.now()
        return Response(status_code=201)

    async def toolbox_url(self, request: Request) -> Response:
        self._record(request)
        return json_reply({"url": _toolbox_url(request)})

    # --- snapshots ---

    async def snapshot_list(self, request: Request) -> Response:
        query = request.query_params
        page = _parse_int(query.get("page"), 1, 1, 2**31, "page")
        limit = _parse_int(query.get("limit"), 100, 1, MAX_PAGE_SIZE, "limit")
        return json_reply(self._snapshots.page(page, limit, self._clock.now()))

    async def snapshot_get(self, request: Request) -> Response:
        return json_reply(self._snapshots.get(request.path_params["snapshot"], self._clock.now()))

    async def snapshot_create(self, request: Request) -> Response:
        body = await read_object(request)
        return json_reply(self._snapshots.create(body, self._clock.now(), request.scope["faults"]))

    async def snapshot_activate(self, request: Request) -> Response:
        return await self.snapshot_get(request)

    async def snapshot_delete(self, request: Request) -> Response:
        self._snapshots.delete(request.path_params["snapshot"], self._clock.now(), request.scope["faults"])
        return Response(status_code=200)

    async def snapshot_log_url(self, request: Request) -> Response:
        self._snapshots.get(request.path_params["snapshot"], self._clock.now())
        path = str(request.scope["path"]).removesuffix("-url")
        return json_reply({"url": f"{_base_url(request)}{path}"})

    async def snapshot_log(self, request: Request) -> Response:
        """Send the lines of the build's log. With ?follow=true, send new lines until the build or the server ends."""
        identifier = request.path_params["snapshot"]
        self._snapshots.get(identifier, self._clock.now())
        follow = request.query_params.get("follow") == "true"
        return StreamingResponse(
            self._log(identifier, follow, request.scope["state"]["closing"]), media_type="text/plain"
        )

    async def _log(self, identifier: str, follow: bool, closing: asyncio.Event) -> AsyncIterator[str]:
        sent = 0
        while True:
            now = self._clock.now()
            try:
                building = self._snapshots.get(identifier, now)["state"] == "building"
                lines = self._snapshots.log(identifier, now)
            except ApiError:
                return  # deleted in the meantime
            for line in lines[sent:]:
                yield f"{line}\n"
            sent = len(lines)
            if not follow or not building or closing.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), LOG_POLL_S)

    # --- internals ---

    def _record(self, request: Request) -> SandboxRecord:
        record = self._fleet.get(request.path_params["sandbox"])
        request.scope["sandbox_id"] = record.id
        return record

    async def _change_state(self, request: Request, change: Callable[..., Any]) -> Response:
        record = self._record(request)
        await change(record, request.scope["faults"])
        return self._reply(request, record)

    def _reply(self, request: Request, record: SandboxRecord) -> Response:
        return json_reply(record.dto(_toolbox_url(request)))


def _create_fields(body: dict[str, Any]) -> dict[str, Any]:
    for key in _UNENFORCED:
        if body.get(key) is not None:
            raise ApiError(400, f"{key} is not enforced by the local server")
    fields: dict[str, Any] = {}
    for key, (attribute, kind) in _CREATE_FIELDS.items():
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ApiError(400, f"{key} must be a {getattr(kind, '__name__', kind)}")
        if isinstance(value, int) and kind is int:
            _require_within(value, _MINIMUM.get(attribute, 0), _MAXIMUM, key)
        fields[attribute] = _strings(value, key) if kind is dict else value
    return fields


def _require_allowed_size(fields: dict[str, Any]) -> None:
    for name, (largest, label, unit) in _LARGEST.items():
        if fields.get(name, 0) > largest:
            raise ApiError(
                403,
                f"{label} request {fields[name]}{unit} exceeds maximum allowed per sandbox ({largest}{unit}).",
            )


def _strings(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ApiError(400, f"{name} must be an object of strings")
    return dict(value)


def _parse_int(text: str | None, default: int, lowest: int, highest: int, name: str) -> int:
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        raise ApiError(400, f"{name} must be an integer number") from None
    _require_within(number, lowest, highest, name)
    return number


def _require_within(number: int, lowest: int, highest: int, name: str) -> None:
    if not lowest <= number <= highest:
        raise ApiError(400, f"{name} must not be less than {lowest} or greater than {highest}")


def _matches(record: SandboxRecord, request: Request) -> bool:
    query = request.query_params
    states = query.getlist("states")
    if states and record.state not in {state for text in states for state in text.split(",")}:
        return False
    if not record.id.startswith(query.get("id", "")) or not record.name.startswith(query.get("name", "")):
        return False
    try:
        labels = json.loads(query.get("labels") or "{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "Invalid labels JSON") from None
    return isinstance(labels, dict) and all(record.labels.get(key) == value for key, value in labels.items())


def _toolbox_url(request: Request) -> str:
    return f"{_base_url(request)}/toolbox"


def _base_url(request: Request) -> str:
    # request.url cannot be used: it raises for some values of the Host header.
    host = request.headers.get("host")
    if host is None:  # HTTP/1.0 allows this
        address, port = request.scope["server"]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{request.scope['scheme']}://{host}"


def _write_cursor(record: SandboxRecord) -> str:
    return base64.urlsafe_b64encode(json.dumps([record.created_at, record.id]).encode()).decode()


def _read_cursor(text: str | None) -> tuple[float, str] | None:
    if not text:
        return None
    try:
        created_at, identifier = json.loads(base64.urlsafe_b64decode(text))
        return float(created_at), str(identifier)
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        raise ApiError(400, "Invalid cursor") from None
