"""Replace data that differs between recordings by fixed values, and remove secrets."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from langchain_daytona_ws._guest.job_store import ID_CHARACTERS
from tests.cassettes.fixed_ids import START, START_S

Plain = dict[str, Any]

SCRUBBED = "scrubbed"
UUID_START = "00000000-0000-4000-8000-"
_END = START.replace("15:06:40", "16:06:40")

_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_DESTROYED = re.compile(r"(DESTROYED_[\w-]+_)[0-9a-f]{8}\b")
_ELEMENTS = re.compile(
    r"<(AccessKeyId|SecretAccessKey|SessionToken|RequestId|HostId|AssumedRoleId|ID|DisplayName)>[^<]+"
)
_EXPIRATION = re.compile(r"<Expiration>[^<]*")
_SIGNED = re.compile(r"(?i)\?[^\s\"'<>?]*X-Amz-Signature=[^\s\"'<>]*")
_SECRET_NAME = re.compile(r"(?i).*(token|password|apikey|api_key|authorization|credential).*")

# Field → its replacement, for values that depend on secrets, the machine or the time.
_FIXED: dict[str, Any] = {
    "serial": "<serial>",
    "spec": "<spec>",
    "program": "0" * 64,  # digests of programs
    "digest": "0" * 64,
    "expires_at": "<time>",
    "duration_s": 0.5,
    "duration_ms": 500,
    "started_ms": START_S * 1000,
    "ended_ms": START_S * 1000 + 500,
}
# Times of files (2017 to 2065) are in rows without names; no other numbers are as large.
_NOW_NS = range(1_500_000_000 * 10**9, 3_000_000_000 * 10**9)


class Normaliser:
    """Normalises the messages of one recording, in their order.

    Args:
        names: Names of the recording's settings → their replacements in the cassette.
    """

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self._names = dict(names or {})
        self._uuids: dict[str, str] = {}

    def __call__(self, message: Plain) -> Plain:
        self._learn(message)
        normalised: Plain = self._value("", message)
        return normalised

    def _learn(self, value: Any) -> None:
        """Record names that the server has chosen: ids of jobs, and the host of the toolbox proxy."""
        if isinstance(value, list):
            for item in value:
                self._learn(item)
        if not isinstance(value, dict):
            return
        if isinstance(value.get("id"), str) and "started_ms" in value and value["id"] not in self._names:
            self._names[value["id"]] = self._job_name()
        if isinstance(proxy := value.get("toolboxProxyUrl"), str):
            parts = urlsplit(proxy)
            self._names.setdefault(f"{parts.scheme}://{parts.netloc}", "https://proxy.daytona.test")
        for item in value.values():
            self._learn(item)

    def _job_name(self) -> str:
        known = sum(name.startswith("task") for name in self._names.values())
        return "taskaaa" + ID_CHARACTERS[known]

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            if name == "env":
                return dict.fromkeys(value, SCRUBBED)
            normalised = {self._text(key): self._value(key, item) for key, item in value.items()}
            if "ends_ms" in value:
                normalised["ends_ms"] = (
                    START_S * 1000 + round((value["ends_ms"] - value["started_ms"]) / 1000) * 1000
                )
            return normalised
        if isinstance(value, list):
            items = [self._value(name, item) for item in value]
            if name == "jobs":  # in the order of a directory
                items.sort(key=str)
            return items
        if name in _FIXED and value is not None:
            return _FIXED[name]
        if isinstance(value, int) and value in _NOW_NS:
            return START_S * 10**9
        if not isinstance(value, str):
            return value
        return SCRUBBED if _SECRET_NAME.fullmatch(name) else self._text(value)

    def _text(self, text: str) -> str:
        for real in sorted(self._names, key=len, reverse=True):
            text = text.replace(real, self._names[real])
        text = _UUID.sub(self._uuid, text)
        text = _SIGNED.sub("?signed", text)
        text = _DESTROYED.sub(r"\g<1>00000000", text)
        text = _HTTP_DATE.sub("Sun, 15 Jun 2025 15:06:40 GMT", _DATE.sub(START, text))
        text = _ELEMENTS.sub(rf"<\1>{SCRUBBED}", text)
        return _EXPIRATION.sub(f"<Expiration>{_END}", text)

    def _uuid(self, found: re.Match[str]) -> str:
        if found[0].startswith(UUID_START):
            return found[0]
        return self._uuids.setdefault(found[0], f"{UUID_START}{len(self._uuids) + 1:012}")
