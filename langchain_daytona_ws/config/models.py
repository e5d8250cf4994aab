"""The configuration models: one class for each JSON object, with the defaults, units and ranges of its settings."""

# No `from __future__ import annotations`: pydantic would evaluate the text of each annotation.

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from langchain_daytona_ws.config import keys, values
from langchain_daytona_ws.config.addresses import Cidr, Domain
from langchain_daytona_ws.config.base import ConfigModel
from langchain_daytona_ws.config.options import SandboxOptions
from langchain_daytona_ws.config.problems import FOR_MODEL, Location, Problem, refusal
from langchain_daytona_ws.config.values import Flag, Line, WholeNumber
from langchain_daytona_ws.errors import ConfigError

PermissionMode = Literal["ask", "edit", "bypass"]
OnTimeout = Literal["kill", "background"]
NetworkMode = Literal["allow-all", "deny-all", "restricted"]

DAY_S = 24 * 60 * 60


class NetworkConfig(ConfigModel):
    """Hosts that the sandbox may reach. Without this object, the organization's setting applies."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"mode": {"const": "restricted"}}},
            "then": {
                "anyOf": [
                    {"required": [key], "properties": {key: {"minItems": 1}}}
                    for key in ("allowCidrs", "allowDomains")
                ]
            },
            "else": {"properties": {key: {"maxItems": 0} for key in ("allowCidrs", "allowDomains")}},
        }
    )

    mode: NetworkMode = Field(
        description=(
            "`allow-all`, `deny-all`, or `restricted` = only `allowCidrs` and, if they are enforced, "
            "`allowDomains`."
        ),
    )
    allow_cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="IPv4 ranges that may be reached, in CIDR notation. Only with `restricted`.",
    )
    allow_domains: tuple[Domain, ...] = Field(
        default=(),
        description=(
            "Domains that may be reached, such as `pypi.org` or `*.example.com`. Only with `restricted`."
        ),
    )

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        lists = [key for key in ("allowCidrs", "allowDomains") if given.get(key)]
        if given.get("mode") == "restricted" and not lists:
            # Never send an empty allow list: the API may treat it as "no restriction".
            yield "mode", '"restricted" needs allowCidrs or allowDomains; add one of them, or use "deny-all"'
        if given.get("mode") in ("allow-all", "deny-all"):
            for key in lists:
                yield key, 'is for the mode "restricted" only; leave it out or change network.mode'


class LifecycleConfig(ConfigModel):
    """Times after which a persistent sandbox is stopped and deleted."""

    idle_timeout_seconds: Annotated[int, WholeNumber(1, 7 * DAY_S, "seconds")] = Field(
        default=900,
        description="Seconds without use after which the sandbox is stopped, rounded up to minutes.",
    )
    max_lifetime_seconds: Annotated[int, WholeNumber(1, 30 * DAY_S, "seconds")] = Field(
        default=7 * DAY_S,
        description=(
            "Seconds for which a stopped sandbox is kept before it is deleted, rounded up to minutes. If given, also "
            "the maximum age of the sandbox."
        ),
    )


def _only_daytona(value: object) -> object:
    if value != "daytona":
        raise refusal('is not supported; the only provider of this package is "daytona"')
    return value


class SandboxConfig(ConfigModel):
    """The configuration of a `WorkspaceSession`, from JSON, keyword arguments or the environment.

    A JSON document is an object of settings, or an envelope ``{"name": …, "config": …}`` around this object. Keys are
    in camelCase or snake_case. For a setting whose default is null, null means "not given". A setting that is not given
    is read from its environment variable (``x-env`` in the schema) when the configuration is validated. An empty
    variable counts as unset.

    A pickle contains no secret. At unpickling, the API key is read from ``DAYTONA_API_KEY``. A configuration with
    envVars can't be pickled, because the sandbox would be different without them.

    Raises:
        ConfigError: The configuration is invalid. The error lists each problem with its JSON path and its remedies, and
            never contains a secret.
    """

    # In the JSON Schema, this description replaces the docstring.
    model_config = ConfigDict(
        json_schema_extra={"description": "The settings of a workspace and its sandbox."}
    )

    _envelope_keys: ClassVar[frozenset[str]] = frozenset({"name"})

    name: Line | None = Field(default=None, description="Name of this configuration, for people.")
    provider: Annotated[Literal["daytona"], BeforeValidator(_only_daytona)] = Field(
        default="daytona",
        description="The sandbox provider; only `daytona`.",
    )
    permission_mode: PermissionMode = Field(
        default="ask",
        description=(
            "What needs approval. `ask`: commands and changes of files. `edit`: commands. `bypass`: nothing. "
            "Stopping a job and opening a preview link count as commands."
        ),
    )
    env_vars: values.Variables = Field(
        default_factory=dict,
        description=(
            "Environment variables of the sandbox and of every command: names and their values. The values "
            f"are treated as secrets. Names starting with `{values.RESERVED_PREFIX}` are reserved."
        ),
        json_schema_extra={
            "propertyNames": {"pattern": f"^(?!{values.RESERVED_PREFIX})[A-Za-z_][A-Za-z0-9_]*$"}
        },
    )
    timeout_s: Annotated[int, WholeNumber(1, 600, "seconds")] = Field(
        default=120,
        description="Seconds that a command may take.",
    )
    on_timeout: OnTimeout = Field(
        default="kill",
        description=(
            "Action at a command's time-out: `kill`, or `background` = continue it as a background job for at most an "
            "hour."
        ),
    )
    output_limit_bytes: Annotated[int, WholeNumber(1024, 262_144, "bytes")] = Field(
        default=65_536,
        description=(
            "Maximum number of bytes of a command's output to return. If the output is longer, its middle is "
            "left out."
        ),
    )
    network: NetworkConfig | None = Field(
        default=None,
        description="Hosts that the sandbox may reach. Default: the organization's setting.",
    )
    persistent: Flag = Field(
        default=False,
        description="Use one sandbox per workspace for all sessions, instead of one per session.",
    )
    lifecycle: LifecycleConfig | None = Field(
        default=None,
        description="Times after which a persistent sandbox is stopped and deleted.",
    )
    on_create: values.Commands | None = Field(
        default=None,
        description="Shell command, or list of commands, to run once in a new sandbox.",
    )
    on_resume: values.Commands | None = Field(
        default=None,
        description=(
            "Shell command, or list of commands, to run when a session first uses a sandbox, and after each "
            "restart of it."
        ),
    )
    options: SandboxOptions = Field(
        default_factory=SandboxOptions,
        description="Daytona and S3 settings: account, source of the sandbox, mount directories.",
    )

    @classmethod
    def from_env(cls) -> Self:
        """Return a configuration with the defaults and the values of environment variables.

        Raises:
            ConfigError: The value of a variable is invalid. A missing API key is reported later, by `require_api_key`.
        """
        return cls.model_validate({})

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Return the configuration in a JSON file. Settings that the file lacks come from environment variables.

        Args:
            path: The file.

        Raises:
            ConfigError: The file cannot be read, or the configuration is invalid. The error lists all problems.
        """
        try:
            text = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = "the path has a NUL byte or is not valid Unicode"
            if isinstance(error, OSError):
                reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"The configuration {fspath(path)!r} cannot be read: {reason}. Name a JSON file.",
                code="config_unreadable",
                op="validate",
                for_model=FOR_MODEL,
            ) from None
        return cls.model_validate_json(text)

    def require_api_key(self) -> SecretStr:
        """Return the Daytona API key.

        Raises:
            ConfigError: There is no API key.
        """
        if self.options.api_key is not None:
            return self.options.api_key
        raise ConfigError(
            "options.apiKey: is missing; set options.apiKey in the configuration, or set the environment "
            "variable DAYTONA_API_KEY before the configuration is read",
            code="api_key_missing",
            op="validate",
            context={"paths": ["options.apiKey"]},
            for_model=FOR_MODEL,
        )

    def plain_env_vars(self) -> dict[str, str]:
        """Return envVars as plain text. The values are secrets: use the result only for a request that needs them."""
        return {name: value.get_secret_value() for name, value in self.env_vars.items()}

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON Schema of a document: an object of settings, or an envelope around it.

        ``["$defs"]["SandboxConfig"]`` is the schema of the object of settings. It has the description, default, range
        and environment variable (``x-env``) of each setting.

        Args:
            args: Positional arguments of pydantic's ``model_json_schema``.
            kwargs: Keyword arguments of pydantic's ``model_json_schema``.
        """
        inner = super().model_json_schema(*args, **kwargs)
        template = args[1] if len(args) > 1 else kwargs.get("ref_template", DEFAULT_REF_TEMPLATE)
        return _with_envelope(inner, ref_template=template)

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if given.get("lifecycle") is not None and given.get("persistent") is not True:
            yield "lifecycle", "is for persistent sandboxes; set persistent to true, or leave it out"

    @classmethod
    def _unwrap(cls, data: Mapping[Any, Any]) -> tuple[Any, Location, list[Problem]]:
        if "config" not in data:
            return data, (), []
        problems = [
            Problem((str(key),), _envelope_key_text(cls, key))
            for key in data
            if key not in ("name", "config")
        ]
        problems += [
            Problem((key,), keys.repeated_key_text(key, key)) for key in getattr(data, "repeated", ())
        ]
        inner = data["config"]
        if "name" not in data or not isinstance(inner, Mapping):
            return inner, ("config",), problems
        if "name" in inner:
            problems.append(
                Problem(("config", "name"), "the envelope already has a name; leave this one out")
            )
        problems += [
            Problem(("config", key), keys.repeated_key_text(key, key))
            for key in getattr(inner, "repeated", ())
        ]
        return {**inner, "name": data["name"]}, ("config",), problems

    def __getstate__(self) -> dict[Any, Any]:
        """Refuse to pickle a configuration with envVars. `SandboxOptions` omits the API key."""
        if self.env_vars:
            raise ConfigError(
                "envVars: a configuration with envVars can't be pickled, because a pickle must contain no secret; "
                "validate the configuration again in the other process",
                code="not_picklable",
                op="pickle",
                context={"paths": ["envVars"]},
                for_model=FOR_MODEL,
            )
        return super().__getstate__()


def _envelope_key_text(model: type[SandboxConfig], key: object) -> str:
    inside = keys.spellings(model).get(str(key))
    if inside:
        return f"belongs inside config; did you mean config.{inside}?"
    return 'unknown key; the keys of an envelope are "name" and "config"'


def _with_envelope(inner: dict[str, Any], *, ref_template: str) -> dict[str, Any]:
    """Return the schema of a document: an object of settings, or an envelope around this object.

    Args:
        inner: Schema of the object of settings. In the result it is in ``$defs``, under its title. Its own ``$defs``
            are moved to the result.
        ref_template: Format of the references, with ``{model}`` for the title of a schema.
    """
    definitions = inner.pop("$defs", {})
    title = inner["title"]
    name = inner["properties"]["name"]
    envelope = {
        "title": f"{title}Envelope",
        "description": "A named configuration.",
        "type": "object",
        "properties": {"name": name, "config": {"$ref": ref_template.format(model=title)}},
        "required": ["config"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{title}Document",
        "description": "A workspace's configuration: an object of settings, or a named envelope around it.",
        "anyOf": [{"$ref": ref_template.format(model=model)} for model in (envelope["title"], title)],
        "$defs": {**definitions, title: inner, envelope["title"]: envelope},
    }
