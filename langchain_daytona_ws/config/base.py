"""The base class of the configuration models: normalise the keys, validate, and report all problems in one error."""

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


class _NormalizedObject(dict[str, Any]):
    """An object with known keys in camelCase. Missing values were read from environment variables."""


_SPELLINGS = {"timeout_s": "timeout", "memory_gib": "memoryGiB", "disk_gib": "diskGiB"}
"""The keys that differ from the camelCase of their field's name.

They are not aliases of the fields: type checkers without pydantic's plugin would accept only the alias as an argument.
"""


def _key(name: str) -> str:
    return _SPELLINGS.get(name) or to_camel(name)


class ConfigModel(BaseModel):
    """A frozen model that accepts its known keys in camelCase or snake_case, and reports all problems in one error.

    Raises:
        ConfigError: The values are invalid. Raised by ``Model(...)``, ``Model.model_validate`` and
            ``Model.model_validate_json``. If the model is a field of another pydantic model, pydantic's own error is
            raised, with the same texts and without the input.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_key,
        populate_by_name=True,
        hide_input_in_errors=True,
        field_title_generator=lambda name, _: name.removesuffix("_s").replace("_", " "),
    )

    _envelope_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of this model that an envelope, such as ``{"name": …, "config": {…}}``, has outside of ``config``."""

    def __init__(self, **data: Any) -> None:
        __tracebackhide__ = True
        _or_config_error(type(self), lambda: super(ConfigModel, self).__init__(**data))

    # With this mark (RootModel has it too), pydantic does not call this __init__ for nested objects. Otherwise each
    # nested object would raise a separate error.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Validate a dictionary, or return an instance unchanged.

        Args:
            obj: The dictionary or instance.
            kwargs: Options of pydantic's ``model_validate``.

        Raises:
            ConfigError: Lists all problems of the document.
        """
        __tracebackhide__ = True
        return _or_config_error(cls, lambda: super(ConfigModel, cls).model_validate(obj, **kwargs))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        """Validate a JSON document; a repeated key in an object is an error.

        Args:
            json_data: The document.
            kwargs: Options of pydantic's ``model_validate``.

        Raises:
            ConfigError: Lists all problems of the document, or reports the position of a JSON syntax error.
        """
        __tracebackhide__ = True
        return cls.model_validate(_parsed(cls.__name__, json_data), **kwargs)

    @classmethod
    def _unwrap(cls, data: Mapping[Any, Any]) -> tuple[Any, Location, list[Problem]]:
        """Return the object inside the envelope, its location, and the problems of the envelope."""
        return data, (), []

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (key, problem) for each conflict between settings.

        Args:
            given: The normalised object. Its values are not validated yet.
        """
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Normalise the keys of the whole document, validate its values, and raise one error with all problems."""
        if isinstance(data, _NormalizedObject | cls):
            return handler(data)
        outer: Location = ()
        problems: list[Problem] = []
        if isinstance(data, Mapping):
            data, outer, problems = cls._unwrap(data)
        document = _Document(cls, outer)
        normalized = document.normalized(cls, data, outer)
        problems += document.problems
        instance: Self | None = None
        try:
            instance = handler(normalized)
        except ValidationError as error:
            problems += [document.located(problem) for problem in problems_of(error)]
        # Raise the new error outside the `except` block, so that its __context__ is not the error with the input.
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
        # Do not chain the error: it contains the whole document with its secrets.
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        problem = f"is not JSON: byte {error.start} is not UTF-8"
    except (ValueError, RecursionError, TypeError) as error:
        problem = f"is not readable JSON ({type(error).__name__})"
    raise config_error(title, [Problem((), problem)])


def _no_constant(name: str) -> object:
    raise ValueError(name)


class _Document:
    """Normalises a document before its values are validated, and collects the problems of its keys.

    Args:
        root: The model of the whole document.
        outer: Location of that model's object in the document (``("config",)`` in an envelope).
    """

    def __init__(self, root: type[ConfigModel], outer: Location) -> None:
        self.root = root
        self.outer = outer
        self.problems: list[Problem] = []
        self._remedies: dict[Location, str] = {}

    def normalized(self, model: type[BaseModel], data: Any, at: Location) -> Any:
        """Return the object with camelCase keys and values from the environment; record the problems of its keys."""
        if not isinstance(data, Mapping):
            return data
        result = self._with_known_keys(model, data, at)
        for key, field in keys.fields(model):
            # If null is the default, it means "not given".
            if key in result and result[key] is None and field.default is None:
                del result[key]
            self._fill_from_environment(result, key, field, (*at, key))
            inner = keys.nested(field)
            if inner and (key in result or field.default_factory):
                result[key] = self.normalized(inner, result.get(key, {}), (*at, key))
            elif key in result:
                self._report_repeated_keys(result[key], (*at, key))
        if issubclass(model, ConfigModel):
            self.problems += [Problem((*at, key), text) for key, text in model._conflicts(result)]
        return result

    def located(self, problem: Problem) -> Problem:
        """Return a pydantic problem with its location in the document.

        If the setting has an environment variable, add a remedy that names the variable.
        """
        is_in_envelope = problem.at[:1] and problem.at[0] in self.root._envelope_keys
        at = problem.at if is_in_envelope else (*self.outer, *problem.at)
        return Problem(at, problem.text + self._remedies.get(at, ""))

    def _with_known_keys(
        self, model: type[BaseModel], data: Mapping[Any, Any], at: Location
    ) -> _NormalizedObject:
        known = keys.spellings(model)
        result = _NormalizedObject()
        spellings: dict[str, str] = {}
        self._report_repeated_keys(data, at)
        for key, value in data.items():
            name = known.get(key) if isinstance(key, str) else None
            if name is None:
                location = (*at, str(key))
                self.problems.append(
                    Problem(location, keys.unknown_key_text(self.root, self.outer, location))
                )
            elif name in spellings:
                self.problems.append(Problem((*at, name), keys.repeated_key_text(spellings[name], key)))
            else:
                spellings[name] = key
                result[name] = value
        return result

    def _report_repeated_keys(self, data: object, at: Location) -> None:
        if isinstance(data, keys.JsonObject):
            self.problems += [Problem((*at, key), keys.repeated_key_text(key, key)) for key in data.repeated]

    def _fill_from_environment(
        self, result: _NormalizedObject, key: str, field: FieldInfo, at: Location
    ) -> None:
        variables = keys.variables_of(field)
        if not variables:
            return
        found = None if key in result else keys.from_environment(field)
        if found is None:
            self._remedies[at] = (
                f"; or leave it out and set the environment variable {' or '.join(variables)}"
            )
        else:
            variable, result[key] = found
            self._remedies[at] = (
                f"; it comes from the environment variable {variable}: "
                f"correct or unset that, or set {path_of(at)}"
            )
