"""Problems of a configuration document. A problem has a location and a text with a remedy, and contains no secret.

Pydantic's own texts are not used, because they describe Python types. Pydantic's errors also contain the rejected
input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from langchain_daytona_ws.errors import ConfigError

Location = tuple[str | int, ...]

FOR_MODEL = "The workspace is not configured correctly. Only the person who runs this agent can correct that."

_TEXTS = {
    "missing": "is required; add it",
    "string_type": "must be a string; write it in quotes",
    "string_unicode": "is not valid Unicode text; remove the broken characters",
    "bool_type": "must be true or false, written without quotes",
    "dict_type": "must be an object with names as keys",
    "model_type": "must be an object of settings",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must not be empty; leave it out instead",
}


class Problem(NamedTuple):
    """One problem: its location in the user's document, and a text that ends with a remedy."""

    at: Location
    text: str

    @property
    def path(self) -> str:
        return path_of(self.at)


def path_of(at: Location) -> str:
    """Return a location as a JSON path, such as ``config.network.allowCidrs[0]``."""
    path = ""
    for step in at:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f"{'.' if path else ''}{_key(step)}"
    return path


def _key(key: str) -> str:
    # If the key is a whole assignment by mistake ("NAME=value"), hide the value.
    name, assigned, _ = key.partition("=")
    shown = quoted(name)[1:-1]
    return f"{shown}=…" if assigned else shown


def quoted(text: str, limit: int = 60) -> str:
    """Return a value in quotes for a message: one line of printable characters, cut after ``limit`` characters.

    Do not pass secrets.
    """
    shown = text if len(text) <= limit else text[:limit] + "…"
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + '"'


def refusal(text: str) -> PydanticCustomError:
    """Return the error that a validator of a value raises. Its text becomes the problem's text."""
    return PydanticCustomError("config", "{text}", {"text": text})


def problems_of(error: ValidationError) -> list[Problem]:
    """Return the problems in a pydantic error, with this package's texts and without the rejected inputs."""
    details = error.errors(include_url=False)
    return [Problem(_location(detail["loc"]), _text(detail)) for detail in details]


def _location(location: Location) -> Location:
    # Pydantic appends "[key]" to the location if the key of a mapping is invalid.
    return location[:-1] if location[-1:] == ("[key]",) else location


def _text(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "config":
        return detail["msg"]
    if kind == "literal_error":
        # Do not quote the value: it may be a secret in the wrong place.
        return f"must be {detail['ctx']['expected'].replace(chr(39), chr(34))}"
    # For an unknown kind of error, show only the kind: pydantic's message may quote the value.
    return _TEXTS.get(kind, f"is not acceptable ({kind})")


def validation_error(title: str, problems: Iterable[Problem]) -> ValidationError:
    lines: list[InitErrorDetails] = [
        {"type": refusal(problem.text), "loc": problem.at, "input": None} for problem in problems
    ]
    return ValidationError.from_exception_data(title, lines, hide_input=True)


def config_error(title: str, problems: Sequence[Problem]) -> ConfigError:
    lines = [f"{problem.path or 'the document'}: {problem.text}" for problem in problems]
    if len(lines) == 1:
        message = f"{title}: {lines[0]}"
    else:
        message = "\n".join([f"{title} has {len(lines)} problems:", *(f"- {line}" for line in lines)])
    context: Mapping[str, Any] = {"paths": [problem.path for problem in problems]}
    return ConfigError(message, op="validate", context=context, for_model=FOR_MODEL)
