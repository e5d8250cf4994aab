"""The arguments of a tool call as models and approvers really send them, and one answer with all that is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from langchain_daytona_ws.permissions import AnswerUnusable, legible

ERROR_LIMIT = 4000
NAME_CHARS = 60
UNKNOWN_SHOWN = 10

Problem = tuple[str, str]
"""An argument's name, and what is wrong with it."""


class ToolInput(BaseModel):
    """Arguments of a tool.

    ``null`` for an optional argument means its default, and so does ``""`` where that is no value of its own. An
    argument of another tool is ignored if it is null or false, and otherwise refused with the name that is meant here.
    All problems are reported at once.
    """

    model_config = ConfigDict(extra="forbid")

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """The optional arguments for which ``""`` is a value."""
    foreign_names: ClassVar[Mapping[str, str]] = {}
    """Arguments of other tools, as `_plain` writes them → the name here, or why there is none."""
    always_so: ClassVar[frozenset[str]] = frozenset()
    """Those of them that ask, with true, for what is done anyway."""
    foreign_values: ClassVar[Mapping[str, str]] = {}
    """What other tools call the operations of this one → the name here."""
    verb: ClassVar[str] = ""
    """The argument that names the operation, if there is one."""

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """Return what is wrong with arguments together.

        Args:
            values: The arguments; as they were given, if some of them are wrong by themselves.
        """
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, Mapping):
            return validate(given)
        known = {name: value for name, value in given.items() if not cls._is_left_out(name, value)}
        unknown = [name for name in known if name not in cls.model_fields]
        meant = {name: cls._meant_by(name) for name in unknown[:UNKNOWN_SHOWN]}
        values: Mapping[str, Any] = {name: value for name, value in known.items() if name in cls.model_fields}
        found: list[Problem] = [(_shown(name), _unknown(remark)) for name, remark in meant.items()]
        try:
            made = validate(values)
        except ValidationError as error:
            wrong = [cls._worded(str(item["loc"][0]), item["msg"], values) for item in error.errors()]
        else:
            values, wrong = dict(made), []
        spoken_of = {word for remark in meant.values() for word in remark.split()}
        found += [(name, text) for name, text in wrong if name in values or name not in spoken_of]
        spoken_of |= {name for name, _ in found}
        found += [(name, text) for name, text in cls.problems(values) if name not in spoken_of]
        if unknown:
            found.append(("arguments", f"the valid ones are {', '.join(cls.model_fields)}"))
        if found:
            raise ValidationError.from_exception_data(
                cls.__name__, [_detail(name, text) for name, text in found]
            )
        return made

    @classmethod
    def _is_left_out(cls, name: object, value: object) -> bool:
        field = cls.model_fields.get(name) if isinstance(name, str) else None
        if field is None:
            plain = _plain(name)
            if value is None or value is False:
                return plain in cls.foreign_names
            return value is True and plain in cls.always_so
        if field.is_required():
            return False
        return value is None or (value == "" and name not in cls.may_be_empty)

    @classmethod
    def _meant_by(cls, name: object) -> str:
        """Return the name that is likely meant, or what to know in its place; "" if neither is known."""
        plain = _plain(name)
        by_plain = {_plain(own): own for own in cls.model_fields}
        if plain in by_plain:
            return by_plain[plain]
        if plain in cls.foreign_names:
            return cls.foreign_names[plain]
        alike = difflib.get_close_matches(plain[:NAME_CHARS], by_plain, n=1, cutoff=0.75)
        return by_plain[alike[0]] if alike else ""

    @classmethod
    def operation(cls, values: Mapping[str, Any]) -> str:
        """Return the name here of the operation that is asked for, as far as it is known."""
        value = values.get(cls.verb)
        return cls.foreign_values.get(_plain(value), value) if isinstance(value, str) else ""

    @classmethod
    def _worded(cls, name: str, text: str, values: Mapping[str, Any]) -> Problem:
        meant = cls.operation(values) if name == cls.verb else ""
        return name, f"{text}; use {meant}" if meant in cls.foreign_values.values() else text

    @classmethod
    def of_edit(cls, arguments: Mapping[str, object]) -> Self:
        """Read the arguments that an approver edited.

        Raises:
            AnswerUnusable: They are not valid; its text says why, and quotes no value.
        """
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            raise AnswerUnusable(worded(error)) from error


def explain(error: ValidationError) -> str:
    """Tell the model what was wrong with its arguments, without quoting them back."""
    return f"[bad_arguments] Nothing was done. {worded(error)}"[:ERROR_LIMIT]


def worded(error: ValidationError) -> str:
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


def _plain(name: object) -> str:
    """Return a name as it is looked up: filePath, file-path and FILE_PATH are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower()) if isinstance(name, str) else ""


def _shown(name: object) -> str:
    return legible.one_line(str(name), NAME_CHARS)


def _detail(name: str, text: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("argument", text), loc=(name,), input=None)


def names(text: str) -> dict[str, str]:
    """Read a table: each line has other tools' names, ``->``, and what they mean here."""
    table = {}
    for line in text.strip().splitlines():
        others, _, meaning = line.partition("->")
        table.update({_plain(other): meaning.strip() for other in others.split()})
    return table
