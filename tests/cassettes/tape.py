"""A cassette that people can read: vcrpy's, with requests by their meaning, played in their order and no other."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import urllib3.connectionpool as urllib3_pool
import yaml
from urllib3 import HTTPHeaderDict
from vcr.cassette import Cassette
from vcr.record_mode import RecordMode
from vcr.stubs import urllib3_stubs

from tests.cassettes.leaks import leaks
from tests.cassettes.settled import Settler
from tests.cassettes.wire import Plain, answer_of, request_of, response_of

HOST = "https://daytona.test"
S3_HOST = "https://s3.test"


class Leaked(Exception):
    """A recording was not written, since there is a secret in it."""


class Departed(BaseException):
    """A request was not the next one. No client may take it for a failed connection, and try again."""


class _Headers:
    """vcrpy's connection, with headers as urllib3 has them: the SDK's models refuse another mapping."""

    def getresponse(self, *arguments: Any, **named: Any) -> Any:
        response = super().getresponse(*arguments, **named)  # type: ignore[misc]
        response.headers = HTTPHeaderDict(response.headers.items())
        return response


class _Connection(_Headers, urllib3_stubs.VCRRequestsHTTPConnection):  # type: ignore[misc]
    pass


class _SecureConnection(_Headers, urllib3_stubs.VCRRequestsHTTPSConnection):  # type: ignore[misc]
    pass


_PATCHES = (
    (urllib3_pool.HTTPConnectionPool, "ConnectionCls", _Connection),
    (urllib3_pool.HTTPSConnectionPool, "ConnectionCls", _SecureConnection),
)


class Tape(Cassette):  # type: ignore[misc]
    """One recording. Use it through `recording` and `playing`.

    Attributes:
        wrong: The first request that was not the next one, with what was expected; None when there was none.
    """

    settle: Settler
    wrong: str | None = None

    def __init__(self, path: Path, settle: Settler, **options: Any) -> None:
        super().__init__(str(path), custom_patches=_PATCHES, **options)
        self.settle = settle
        self.interactions: list[Plain] = []
        self.position = 0

    @classmethod
    def recording(cls, names: dict[str, str]) -> Any:
        """Return a context that records.

        Args:
            names: What the recording's own settings are called → what they are called in the cassette.
        """
        return cls.use(path=Path("recording"), settle=Settler(names), record_mode=RecordMode.ALL)

    @classmethod
    def playing(cls, path: Path) -> Any:
        """Return a context that plays, and sends nothing."""
        return cls.use(path=path, settle=Settler(), record_mode=RecordMode.NONE)

    @property
    def unplayed(self) -> list[str]:
        """The recorded requests that were not made."""
        return [_line(one["request"]) for one in self.interactions[self.position :]]

    # --- what vcrpy asks ---

    def append(self, request: Any, response: Any) -> None:
        told, _ = self._told(request)
        answer = answer_of(response, is_json="daytona.test/" in told["url"])
        self.interactions.append({"request": told, "response": self.settle(answer)})

    def can_play_response_for(self, request: Any) -> bool:
        told, _ = self._told(request)
        return self.record_mode is RecordMode.NONE and told == self._next

    def play_response(self, request: Any) -> Any:
        answer = self.interactions[self.position]["response"]
        self.position += 1
        return response_of(answer, self._told(request)[1])

    def find_requests_with_most_matches(self, request: Any) -> list[Any]:
        """End the replay: vcrpy asks this, for its message, when a request cannot be played.

        Raises:
            Departed: Always. What was wrong at first is kept, since clean-up may send more.
        """
        if self.wrong is None:
            told = self._told(request)[0]
            difference = difflib.unified_diff(
                written(self._next).splitlines(), written(told).splitlines(), "recorded", "sent", lineterm=""
            )
            self.wrong = f"request {self.position + 1} of {len(self.interactions)}:\n" + "\n".join(difference)
        raise Departed(self.wrong)

    def _load(self) -> None:
        self.rewound = True
        if self.record_mode is RecordMode.NONE:
            self.interactions = load(Path(self._path))["interactions"]

    def _save(self, force: bool = False) -> None:
        """Nothing: what was recorded is written when it is known to be good."""

    # --- inside ---

    @property
    def _next(self) -> Plain | None:
        left = self.interactions[self.position : self.position + 1]
        return left[0]["request"] if left else None

    def _told(self, request: Any) -> tuple[Plain, str]:
        """Say what a request means, as found before it was sent: a form is empty afterwards."""
        if not hasattr(request, "told"):
            told, nonce = request_of(request.method, request.uri, request.headers, request.body)
            request.told = self.settle(told), nonce
        answer: tuple[Plain, str] = request.told
        return answer


def load(path: Path) -> Plain:
    """Read a cassette: ``recorded``, ``settings`` and ``interactions``."""
    loaded: Plain = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return loaded


def save(path: Path, cassette: Plain, *, secrets: list[str]) -> None:
    """Write a cassette.

    Args:
        path: Where.
        cassette: As `load` returns it.
        secrets: What must not be in it, beside what looks like a secret.

    Raises:
        Leaked: It holds one; nothing was written.
    """
    text = "# Recorded with `make record`; see tests/cassettes/record.py.\n" + written(cassette)
    found = leaks(text) + [
        "one of the recorder's own secrets" for secret in secrets if secret and secret in text
    ]
    if found:
        raise Leaked(f"{path.name} was not written; there seems to be in it: {', '.join(found)}")
    path.write_text(text)


class _Dumper(yaml.CSafeDumper):
    """Writes texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)


def written(value: Any) -> str:
    """Write a value as cassettes are written."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _line(request: Plain) -> str:
    return f"{request['method']} {request['url']}"
