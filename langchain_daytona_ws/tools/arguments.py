"""Validate tool arguments: accept common variants sent by models and approvers, and report all problems at once."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from langchain_daytona_ws.permissions import AnswerUnusable, legible

ERROR_LIMIT = 4000
NAME_CHARS = 60
UNKNOWN_SHOWN = 10

Problem = tuple[str, str]
"""An argument's name, and a description of the problem."""


class ToolInput(BaseModel):
    """Base class of a tool's arguments.

    For an optional argument, ``null`` means the default. ``""`` also means the default, except for the arguments in
    `may_be_empty`. Models also send arguments of other tools (`foreign_names`). A foreign argument is ignored if it is
    null or false. The arguments in `ignored_if_true` are also ignored if they are true. Any other foreign argument is
    refused, and the error names this tool's argument for it or gives a remark. All problems are reported at once, but
    at most 10 unknown names.
    """

    model_config = ConfigDict(extra="forbid")

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """Optional arguments for which ``""`` is a value."""
    foreign_names: ClassVar[Mapping[str, str]] = {}
    """Argument of another tool (normalised) → its name in this tool, or a remark for the model."""
    ignored_if_true: ClassVar[frozenset[str]] = frozenset()
    """Keys of `foreign_names` that are also ignored if true, because this tool always behaves as they request."""
    foreign_values: ClassVar[Mapping[str, str]] = {}
    """Operation of another tool (normalised) → its name in this tool."""
    operation_argument: ClassVar[str] = ""
    """The argument that names the operation; ``""`` if the tool has one operation."""

    @classmethod
    def problems(cls, operation: str, values: Mapping[str, Any]) -> Iterable[Problem]:
        """Return the problems that pydantic does not find.

        Args:
            operation: This tool's name of the requested operation; if the name is unknown, the name as sent; ``""`` if
                no operation is requested.
            values: The validated arguments; if one of them is invalid, the unvalidated arguments.
        """
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, Mapping):
            return validate(given)
        kept = {name: value for name, value in given.items() if not cls._is_left_out(name, value)}
        unknown = [name for name in kept if name not in cls.model_fields]
        intended = {name: cls._intended_by(name) for name in unknown[:UNKNOWN_SHOWN]}
        values: Mapping[str, Any] = {
            name: cls._in_range_of_float(name, value)
            for name, value in kept.items()
            if name in cls.model_fields
        }
        operation = cls._operation(values)
        found: list[Problem] = [(_shown(name), _unknown(remark)) for name, remark in intended.items()]
        # pydantic would read true as 1, such as a timeout of one second.
        found += [
            (name, "a number is needed, not true or false")
            for name, value in values.items()
            if isinstance(value, bool) and cls._is_number(name)
        ]
        try:
            made = validate(values)
        except ValidationError as error:
            wrong = [cls._problem(str(item["loc"][0]), item["msg"], operation) for item in error.errors()]
        else:
            values, wrong = dict(made), []
        mentioned = {word for remark in intended.values() for word in remark.split()}
        found += [(name, text) for name, text in wrong if name in values or name not in mentioned]
        mentioned |= {name for name, _ in found}
        found += [(name, text) for name, text in cls.problems(operation, values) if name not in mentioned]
        if unknown:
            found.append(("arguments", f"the valid ones are {', '.join(cls.model_fields)}"))
        if found:
            raise ValidationError.from_exception_data(
                cls.__name__, [_detail(name, text) for name, text in found]
            )
        return made

    @classmethod
    def _is_number(cls, name: str) -> bool:
        return cls.model_fields[name].annotation in (int, float, int | None, float | None)

    @classmethod
    def _in_range_of_float(cls, name: str, value: object) -> object:
        """Replace an integer that is too large for a float by infinity: `problems` computes with the values."""
        is_float = cls.model_fields[name].annotation in (float, float | None)
        is_too_large = isinstance(value, int) and abs(value) > sys.float_info.max
        return math.inf if is_float and is_too_large else value

    @classmethod
    def _is_left_out(cls, name: object, value: object) -> bool:
        field = cls.model_fields.get(name) if isinstance(name, str) else None
        if field is None:
            normalised = _normalised(name)
            if value is None or value is False:
                return normalised in cls.foreign_names
            return value is True and normalised in cls.ignored_if_true
        if field.is_required():
            return False
        return value is None or (value == "" and name not in cls.may_be_empty)

    @classmethod
    def _intended_by(cls, name: object) -> str:
        """Return the argument that an unknown name probably stands for, a remark about the name, or ""."""
        normalised = _normalised(name)
        by_normalised = {_normalised(own): own for own in cls.model_fields}
        if normalised in by_normalised:
            return by_normalised[normalised]
        if normalised in cls.foreign_names:
            return cls.foreign_names[normalised]
        similar = difflib.get_close_matches(normalised[:NAME_CHARS], by_normalised, n=1, cutoff=0.75)
        return by_normalised[similar[0]] if similar else ""

    @classmethod
    def _operation(cls, values: Mapping[str, Any]) -> str:
        """Return this tool's name of the requested operation; an unknown name is returned unchanged."""
        value = values.get(cls.operation_argument)
        return cls.foreign_values.get(_normalised(value), value) if isinstance(value, str) else ""

    @classmethod
    def _problem(cls, name: str, text: str, operation: str) -> Problem:
        is_known = name == cls.operation_argument and operation in cls.foreign_values.values()
        return name, f"{text}; use {operation}" if is_known else text

    @classmethod
    def from_edit(cls, arguments: Mapping[str, object]) -> Self:
        """Validate the arguments that an approver edited.

        Raises:
            AnswerUnusable: The arguments are invalid. The text gives the reason, without the values of arguments.
        """
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            raise AnswerUnusable(problem_line(error)) from error


def explain(error: ValidationError) -> str:
    """Return the text of the error for the model: all problems of the arguments, without the values."""
    return f"[bad_arguments] Nothing was done. {problem_line(error)}"[:ERROR_LIMIT]


def problem_line(error: ValidationError) -> str:
    """Return all problems on one line, without the values."""
    problems = [
        f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(problems)


def _unknown(remark: str) -> str:
    if not remark:
        return "there is no such argument"
    is_name = re.fullmatch(r"\w+( and \w+)*", remark) is not None
    return f"there is no such argument, {'use ' if is_name else ''}{remark}"


def _normalised(name: object) -> str:
    """Normalise a name for comparison: filePath, file-path and FILE_PATH become the same."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower()) if isinstance(name, str) else ""


def _shown(name: object) -> str:
    return legible.one_line(str(name), NAME_CHARS)


def _detail(name: str, text: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("argument", text), loc=(name,), input=None)


def by_foreign_name(table: Mapping[str, str]) -> dict[str, str]:
    """Map each name that other tools use, normalised, to this tool's name or to a remark.

    Args:
        table: This tool's name, or a remark → the names that other tools use instead, separated by spaces.
    """
    return {_normalised(other): meaning for meaning, others in table.items() for other in others.split()}
