"""Read the guest's answers, which are hostile input in size, types and encodings."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from langchain_daytona_ws.errors import OutcomeUnknown, SandboxError

Answer = dict[str, object]

MAX_NUMBER = 1 << 62
MAX_PATH = 8192  # characters; PATH_MAX is 4096 bytes
MAX_ROWS = 10_000  # entries of a list
MAX_TEXT = 4 << 20  # characters
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[\w.+:@-]{1,15}", re.ASCII)
_NAMES_MAX = 5
_UNREADABLE = (
    "The machine's answer could not be read. The call may have taken effect: check before you do it again."
)

_NOT_FOUND = 127  # exit code of every shell that has not found python3; the guest never ends with it
# The daemon's message if there is no shell.
_NO_SHELL = re.compile(r'exec: "[^"\n]*": executable file not found in \$PATH')


def read_frame(printed: str, nonce: str, exit_code: int) -> dict[str, object]:
    """Return the guest's answer: the JSON on the line that begins with the nonce. Other processes may print lines too.

    ``exit_code`` is that of the request: of the guest, or of the shell that did not find Python.

    Raises:
        SandboxError: ``code="no_python"`` if no shell or no Python was found.
        UnreadableAnswer: The output does not contain exactly one well-formed answer, for example because it was cut
            off.
    """
    lines = [line for line in printed.split("\n") if line.startswith(nonce + " ")]
    if len(lines) == 1:
        try:
            answer = json.loads(lines[0][len(nonce) + 1 :])
        except (ValueError, RecursionError):  # RecursionError: nested too deeply
            answer = None
        if isinstance(answer, dict):
            if f"\n{nonce}+ " in printed:
                answer["ended"] = _killed_processes(printed, nonce)
            return answer
    if not lines and (exit_code == _NOT_FOUND or _NO_SHELL.fullmatch(printed.strip())):
        raise SandboxError(
            "The sandbox has no python3 in its PATH, which the workspace tools need. Use a snapshot or image with "
            "Python 3.8 or later and Node (options.snapshot or options.image). A PATH in envVars must have all "
            "directories: it replaces the image's PATH, and $PATH in it is not expanded.",
            code="no_python",
            op="execute",
            for_model="This machine cannot run the workspace tools: python3 is missing. Tell the user.",
        )
    raise unreadable(f"{len(lines)} answers in {len(printed):,} characters")


def _killed_processes(printed: str, nonce: str) -> list[str]:
    """Return the names of processes that the guest killed because they kept the call's output open."""
    for line in printed.split("\n"):
        if line.startswith(f"{nonce}+ "):
            try:
                return process_names(json.loads(line[len(nonce) + 2 :]))
            except (ValueError, RecursionError):
                return []
    return []


def process_names(value: object) -> list[str]:
    """Return up to `_NAMES_MAX` process names of a list; leave out names with unusual characters and other values."""
    names = value if isinstance(value, list) else []
    return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)][:_NAMES_MAX]


class UnreadableAnswer(OutcomeUnknown):
    """The answer cannot be from a guest program, or is incomplete: the call may have run."""


def unreadable(detail: str) -> UnreadableAnswer:
    """Return the error for an answer that is incomplete or not from a guest program."""
    return UnreadableAnswer(
        f"The sandbox's answer could not be read ({detail}).",
        code="unreadable_answer",
        op="execute",
        retryable=True,
        for_model=_UNREADABLE,
    )


def decode_base64(value: object) -> bytes:
    """Decode a base64 field of an answer; raise `UnreadableAnswer` if it is not base64 text."""
    try:
        return binascii.a2b_base64(value if isinstance(value, str) else b"?", strict_mode=True)
    except ValueError:
        raise UnreadableAnswer(
            "A field of the sandbox's answer is not what it should be.",
            code="unreadable_answer",
            op="execute",
            for_model=_UNREADABLE,
        ) from None


class Reply:
    """Reads the fields of a guest's answer, which may be forged. Each unexpected value raises `UnreadableAnswer`."""

    def __init__(self, op: str, answer: object) -> None:
        self.op = op
        if not isinstance(answer, Mapping):
            raise self.malformed("answer")
        self._answer: Mapping[Any, Any] = answer

    def malformed(self, part: str) -> UnreadableAnswer:
        return UnreadableAnswer(
            f"The sandbox returned an invalid answer to '{self.op}' ({part}). "
            "A process in it may have changed its Python. A change may have been made: look before you repeat it.",
            code="garbled_answer",
            op=self.op,
            for_model=f"The sandbox returned an invalid answer to '{self.op}'. Use a shell command instead. If it was "
            "to change something, first check whether it did.",
        )

    def __contains__(self, name: str) -> bool:
        return self._answer.get(name) is not None

    @property
    def is_from_record(self) -> bool:
        """True if this is the recorded answer of an earlier call or attempt with the same key: nothing ran again."""
        return self._answer.get("from_record") is True

    def part(self, name: str) -> object:
        """Return a field unchecked: another `Reply` must check it."""
        return self._answer.get(name)

    def flag(self, name: str) -> bool:
        return self._flag(self._answer.get(name), name)

    def number(self, name: str, least: int = 0) -> int:
        return self._number(self._answer.get(name), name, least=least)

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(self._number(value, name) for value in self._list(name))

    def raw(self, name: str, max_length: int = MAX_PATH) -> str:
        """Return a string unchanged. Use it for names: they may contain lone surrogates."""
        return self._raw(self._answer.get(name), name, max_length)

    def text(self, name: str, max_length: int = MAX_TEXT) -> str:
        """Return a string without lone surrogates. Use it for content."""
        return encodable(self.raw(name, max_length))

    def maybe(self, name: str) -> str:
        """Return a text; ``""`` if the field is missing. A text of more than 4096 characters is an invalid answer."""
        value = self._answer.get(name)
        return "" if value is None else encodable(self._raw(value, name, 4096))

    def sha256(self, name: str) -> str:
        value = self.raw(name)
        if not _SHA256.fullmatch(value):
            raise self.malformed(name)
        return value

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(self._raw(value, name, MAX_PATH) for value in self._list(name))

    def _list(self, name: str) -> list[object]:
        value = self._answer.get(name)
        if not isinstance(value, list) or len(value) > MAX_ROWS:
            raise self.malformed(name)
        return value

    def _flag(self, value: object, where: str) -> bool:
        if not isinstance(value, bool):
            raise self.malformed(where)
        return value

    def _number(self, value: object, where: str, least: int = 0) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_NUMBER:
            raise self.malformed(where)
        return value

    def _raw(self, value: object, where: str, max_length: int) -> str:
        if not isinstance(value, str) or len(value) > max_length:
            raise self.malformed(where)
        return value


def encodable(text: str) -> str:
    """Replace each lone surrogate by ``?``, so that UTF-8 can encode the text."""
    return text.encode("utf-8", "replace").decode()
