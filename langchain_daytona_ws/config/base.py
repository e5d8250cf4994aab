"""The base of all configuration models: what they accept, and the one error that they raise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from langchain_daytona_ws.config import keys
from langchain_daytona_ws.config.problems import (
    Location,
    Problem,
    config_error,
    path_of,
    problems_of,
    validation_error,
)

T = TypeVar("T")


class _Tidy(dict[str, Any]):
    """An object whose keys have been looked at: camelCase, known, with the environment's values filled in."""


class ConfigModel(BaseModel):
    """A frozen object of known keys, each in camelCase or snake_case, that refuses everything at once.

    Raises:
        ConfigError: From ``Model(...)``, ``Model.model_validate`` and ``Model.model_validate_json``. Inside
            somebody else's pydantic model the same texts come as pydantic's own error, without the input.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        field_title_generator=lambda name, _: name.removesuffix("_s").replace("_", " "),
    )

    _beside: ClassVar[frozenset[str]] = frozenset()
    """Keys that stand beside the object when it comes in an envelope."""

    def __init__(self, **data: Any) -> None:
        __tracebackhide__ = True
        _or_config_error(type(self), lambda: super(ConfigModel, self).__init__(**data))

    # Says that this __init__ adds nothing to pydantic's, as RootModel's does: otherwise a nested object would
    # be built by calling it, and would raise an error of its own instead of adding to the list.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Validate a dictionary, or pass an instance through.

        Raises:
            ConfigError: With every problem of the document.
        """
        __tracebackhide__ = True
        return _or_config_error(cls, lambda: super(ConfigModel, cls).model_validate(obj, **kwargs))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        """Validate a JSON document; a key that stands twice in one object is refused too.

        Raises:
            ConfigError: With every problem of the document, or the place where it stops being JSON.
        """
        __tracebackhide__ = True
        return cls.model_validate(_parsed(cls.__name__, json_data), **kwargs)

    @classmethod
    def _unwrap(cls, data: Mapping[Any, Any]) -> tuple[Any, Location, list[Problem]]:
        """Take the object out of its envelope; return it, where it stands, and what is wrong around it."""
        return data, (), []

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (key, problem) for what does not go together; the values have not been validated yet."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Tidy the keys of the whole document, validate the values, and report both together."""
        if isinstance(data, _Tidy | cls):
            return handler(data)
        outer: Location = ()
        problems: list[Problem] = []
        if isinstance(data, Mapping):
            data, outer, problems = cls._unwrap(data)
        document = _Document(cls, outer)
        tidied = document.tidied(cls, data, outer)
        problems += document.problems
        instance: Self | None = None
        try:
            instance = handler(tidied)
        except ValidationError as error:
            problems += [document.placed(problem) for problem in problems_of(error)]
        # Raised out here: an exception that was raised in the handler would keep the input in its context.
        if problems or instance is None:
            raise validation_error(cls.__name__, problems)
        return instance


def _or_config_error(model: type[BaseModel], build: Callable[[], T]) -> T:
    __tracebackhide__ = True
    try:
        return build()
    except ValidationError as error:
        problems = problems_of(error)
    raise config_error(model.__name__, problems)


def _parsed(title: str, text: str | bytes | bytearray) -> object:
    __tracebackhide__ = True
    try:
        return json.loads(text, object_pairs_hook=keys.JsonObject, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        # Not the error itself: it carries the whole document, secrets and all.
        found = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        found = f"is not JSON: byte {error.start} is not UTF-8"
    except (ValueError, RecursionError, TypeError) as error:
        found = f"is not JSON that can be read ({type(error).__name__})"
    raise config_error(title, [Problem((), found)])


def _no_constant(name: str) -> object:
    raise ValueError(name)


class _Document:
    """One walk over a document, before its values are validated.

    Args:
        root: The model of the whole document.
        outer: Where that model's own object starts in it.
    """

    def __init__(self, root: type[ConfigModel], outer: Location) -> None:
        self.root = root
        self.outer = outer
        self.problems: list[Problem] = []
        self._remedies: dict[Location, str] = {}

    def tidied(self, model: type[BaseModel], data: Any, at: Location) -> Any:
        """Bring the keys into one spelling and fill in the environment's values, all the way down."""
        if not isinstance(data, Mapping):
            return data
        tidy = self._known(model, data, at)
        for key, field in keys.fields(model):
            # Where null is a value at all it says "not given".
            if key in tidy and tidy[key] is None and field.default is None:
                del tidy[key]
            self._fill(tidy, key, field, (*at, key))
            inner = keys.nested(field)
            if inner and (key in tidy or field.default_factory):
                tidy[key] = self.tidied(inner, tidy.get(key, {}), (*at, key))
            elif key in tidy:
                self._note_repeated(tidy[key], (*at, key))
        if issubclass(model, ConfigModel):
            self.problems += [Problem((*at, key), text) for key, text in model._conflicts(tidy)]
        return tidy

    def placed(self, problem: Problem) -> Problem:
        """Say where in the document pydantic's finding stands, and add the remedy that it can't know."""
        beside = problem.at[:1] and problem.at[0] in self.root._beside
        at = problem.at if beside else (*self.outer, *problem.at)
        return Problem(at, problem.text + self._remedies.get(at, ""))

    def _known(self, model: type[BaseModel], data: Mapping[Any, Any], at: Location) -> _Tidy:
        known = keys.spellings(model)
        tidy = _Tidy()
        written: dict[str, str] = {}
        self._note_repeated(data, at)
        for key, value in data.items():
            name = known.get(key) if isinstance(key, str) else None
            if name is None:
                place = (*at, str(key))
                self.problems.append(Problem(place, keys.unknown(self.root, self.outer, place)))
            elif name in written:
                self.problems.append(Problem((*at, name), keys.twice(written[name], key)))
            else:
                written[name] = key
                tidy[name] = value
        return tidy

    def _note_repeated(self, data: object, at: Location) -> None:
        if isinstance(data, keys.JsonObject):
            self.problems += [Problem((*at, key), keys.twice(key, key)) for key in data.repeated]

    def _fill(self, tidy: _Tidy, key: str, field: FieldInfo, at: Location) -> None:
        variables = keys.variables_of(field)
        if not variables:
            return
        found = None if key in tidy else keys.from_environment(field)
        if found is None:
            self._remedies[at] = (
                f"; or leave it out and set the environment variable {' or '.join(variables)}"
            )
        else:
            variable, tidy[key] = found
            self._remedies[at] = (
                f"; it comes from the environment variable {variable}: "
                f"correct or unset that, or set {path_of(at)}"
            )
