"""A readable cassette for vcrpy: requests are stored by their meaning, and replayed in their order only."""

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
from tests.cassettes.normalised import Normaliser
from tests.cassettes.wire import Plain, answer_of, request_of, response_of

HOST = "https://daytona.test"
S3_HOST = "https://s3.test"


class Leaked(Exception):
    """A recording was not written, since it contains a secret."""


class UnexpectedRequest(BaseException):
    """A request was not the next recorded one. A BaseException, so that no client handles it as a connection error."""


class _Headers:
    """vcrpy's connection, with headers of urllib3's type: the SDK's models refuse other mappings."""

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
        wrong: The first unexpected request, with the expected one; None if all were as recorded.
    """

    normalise: Normaliser
    wrong: str | None = None

    def __init__(self, path: Path, normalise: Normaliser, **options: Any) -> None:
        super().__init__(str(path), custom_patches=_PATCHES, **options)
        self.normalise = normalise
        self.interactions: list[Plain] = []
        self.position = 0

    @classmethod
    def recording(cls, names: dict[str, str]) -> Any:
        """Return a context that records.

        Args:
            names: Names of the recording's settings → their replacements in the cassette.
        """
        return cls.use(path=Path("recording"), normalise=Normaliser(names), record_mode=RecordMode.ALL)

    @classmethod
    def playing(cls, path: Path) -> Any:
        """Return a context that replays, and sends nothing."""
        return cls.use(path=path, normalise=Normaliser(), record_mode=RecordMode.NONE)

    @property
    def unplayed(self) -> list[str]:
        """The recorded requests that were not made."""
        return [_line(item["request"]) for item in self.interactions[self.position :]]

    # --- called by vcrpy ---

    def append(self, request: Any, response: Any) -> None:
        plain, _ = self._meaning(request)
        answer = answer_of(response, is_json="daytona.test/" in plain["url"])
        self.interactions.append({"request": plain, "response": self.normalise(answer)})

    def can_play_response_for(self, request: Any) -> bool:
        plain, _ = self._meaning(request)
        return self.record_mode is RecordMode.NONE and plain == self._next

    def play_response(self, request: Any) -> Any:
        answer = self.interactions[self.position]["response"]
        self.position += 1
        return response_of(answer, self._meaning(request)[1])

    def find_requests_with_most_matches(self, request: Any) -> list[Any]:
        """End the replay: vcrpy calls this, for its message, if a request cannot be replayed.

        Raises:
            UnexpectedRequest: Always, with the first unexpected request: clean-up may send more.
        """
        if self.wrong is None:
            plain = self._meaning(request)[0]
            difference = difflib.unified_diff(
                written(self._next).splitlines(), written(plain).splitlines(), "recorded", "sent", lineterm=""
            )
            self.wrong = f"request {self.position + 1} of {len(self.interactions)}:\n" + "\n".join(difference)
        raise UnexpectedRequest(self.wrong)

    def _load(self) -> None:
        self.rewound = True
        if self.record_mode is RecordMode.NONE:
            self.interactions = load(Path(self._path))["interactions"]

    def _save(self, force: bool = False) -> None:
        """Do not save: `save` writes the recording after its scenario has succeeded."""

    # --- inside ---

    @property
    def _next(self) -> Plain | None:
        left = self.interactions[self.position : self.position + 1]
        return left[0]["request"] if left else None

    def _meaning(self, request: Any) -> tuple[Plain, str]:
        """Return a request's meaning and its nonce, as read before it is sent: a form is empty afterwards."""
        if not hasattr(request, "meaning"):
            plain, nonce = request_of(request.method, request.uri, request.headers, request.body)
            request.meaning = self.normalise(plain), nonce
        meaning: tuple[Plain, str] = request.meaning
        return meaning


def load(path: Path) -> Plain:
    """Read a cassette: ``recorded``, ``settings`` and ``interactions``."""
    loaded: Plain = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return loaded


def save(path: Path, cassette: Plain, *, secrets: list[str]) -> None:
    """Write a cassette.

    Args:
        path: Its path.
        cassette: The value that `load` returns.
        secrets: Texts that it must not contain, in addition to texts that look like secrets.

    Raises:
        Leaked: It contains a secret; nothing was written.
    """
    text = "# Recorded with `make record`; see tests/cassettes/record.py.\n" + written(cassette)
    found = leaks(text) + [
        "one of the recorder's own secrets" for secret in secrets if secret and secret in text
    ]
    if found:
        raise Leaked(f"{path.name} was not written; it seems to contain: {', '.join(found)}")
    path.write_text(text)


class _Dumper(yaml.CSafeDumper):
    """Writes texts with several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)


def written(value: Any) -> str:
    """Return a value as YAML in the cassettes' format."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _line(request: Plain) -> str:
    return f"{request['method']} {request['url']}"
