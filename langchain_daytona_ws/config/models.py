"""The models: one class an object of the JSON. Defaults, units and ranges stand in them and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from langchain_daytona_ws.config import keys, values
from langchain_daytona_ws.config.addresses import Cidr, Domain
from langchain_daytona_ws.config.base import ConfigModel
from langchain_daytona_ws.config.options import SandboxOptions
from langchain_daytona_ws.config.problems import FOR_MODEL, Location, Problem, refusal
from langchain_daytona_ws.config.schema import with_envelope
from langchain_daytona_ws.config.values import Flag, Line, Whole
from langchain_daytona_ws.errors import ConfigError

PermissionMode = Literal["ask", "edit", "bypass"]
OnTimeout = Literal["kill", "background"]
NetworkMode = Literal["allow-all", "deny-all", "restricted"]

DAY = 24 * 60 * 60


class NetworkConfig(ConfigModel):
    """Which hosts the sandbox may reach. Leave the whole object out for the organization's default."""

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
        description="`allow-all`, `deny-all`, or `restricted` to what `allowCidrs` names.",
    )
    allow_cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="IPv4 ranges that may be reached, in CIDR notation. Only with `restricted`.",
    )
    allow_domains: tuple[Domain, ...] = Field(
        default=(),
        description="Domains that may be reached, each exact or starting with `*.`. Only with `restricted`.",
    )

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        lists = [key for key in ("allowCidrs", "allowDomains") if given.get(key)]
        if given.get("mode") == "restricted" and not lists:
            # An empty allow list must never be sent: the API may read it as "no restriction".
            yield "mode", '"restricted" needs allowCidrs or allowDomains; give one, or use "deny-all"'
        if given.get("mode") in ("allow-all", "deny-all"):
            for key in lists:
                yield key, 'is for the mode "restricted" only; leave it out or change network.mode'


class LifecycleConfig(ConfigModel):
    """How long a persistent sandbox is kept."""

    idle_timeout_seconds: Annotated[int, Whole(1, 7 * DAY, "seconds")] = Field(
        default=900,
        description="Seconds without use after which the sandbox is stopped, rounded up to minutes.",
    )
    max_lifetime_seconds: Annotated[int, Whole(1, 30 * DAY, "seconds")] = Field(
        default=7 * DAY,
        description="Seconds after which the sandbox is deleted, rounded up to minutes.",
    )


def _only_daytona(value: object) -> object:
    if value != "daytona":
        raise refusal('is not supported; the one provider of this package is "daytona"')
    return value


class SandboxConfig(ConfigModel):
    """What a `WorkspaceSession` is to work with, read from JSON, keyword arguments or the environment.

    Takes the ``{"name", "config"}`` envelope or the inner object, keys in camelCase or snake_case, and null
    for an optional setting that is not given. For what is not given, the environment variables that the schema
    names (``x-env``) are read, once, at validation; an empty one counts as unset.

    A pickle holds no secret: the API key is left out, and taken from ``DAYTONA_API_KEY`` where it is
    unpickled; a configuration with envVars refuses to be pickled, since without them the sandbox would not
    be the same.

    Raises:
        ConfigError: With every problem: its JSON path, what is wrong, the remedies; never a secret's value.
    """

    # The docstring above is for the Python reader; this is for the reader of the schema.
    model_config = ConfigDict(
        json_schema_extra={"description": "The settings of a workspace and its sandbox."}
    )

    _beside: ClassVar[frozenset[str]] = frozenset({"name"})

    name: Line | None = Field(default=None, description="Name of this configuration, for people.")
    provider: Annotated[Literal["daytona"], BeforeValidator(_only_daytona)] = Field(
        default="daytona",
        description="The sandbox provider; only `daytona`.",
    )
    permission_mode: PermissionMode = Field(
        default="ask",
        description=(
            "What needs approval: `ask` = commands, writes, edits and deletes; "
            "`edit` = commands; `bypass` = nothing."
        ),
    )
    env_vars: values.Variables = Field(
        default_factory=dict,
        description=(
            "Environment variables of the sandbox and of every command: a name to a string. "
            f"Treated as secrets. Names starting with `{values.RESERVED_PREFIX}` are reserved."
        ),
        json_schema_extra={
            "propertyNames": {"pattern": f"^(?!{values.RESERVED_PREFIX})[A-Za-z_][A-Za-z0-9_]*$"}
        },
    )
    timeout_s: Annotated[int, Whole(1, 600, "seconds")] = Field(
        default=120,
        alias="timeout",
        description="Seconds that a command may take.",
    )
    on_timeout: OnTimeout = Field(
        default="kill",
        description=(
            "What becomes of a command whose time is up: `kill`, or `background` = it goes on as a background job, for "
            "an hour at most."
        ),
    )
    output_limit_bytes: Annotated[int, Whole(1024, 262_144, "bytes")] = Field(
        default=65_536,
        description="Bytes of a command's output that are returned; the middle of a longer one is left out.",
    )
    network: NetworkConfig | None = Field(
        default=None,
        description="Which hosts the sandbox may reach. Left out: the organization's default.",
    )
    persistent: Flag = Field(
        default=False,
        description="Keep one sandbox per workspace and find it again, instead of one per session.",
    )
    lifecycle: LifecycleConfig | None = Field(
        default=None,
        description="How long a persistent sandbox is kept.",
    )
    on_create: values.Commands | None = Field(
        default=None,
        description="Shell command, or list of them, to run once in a new sandbox.",
    )
    on_resume: values.Commands | None = Field(
        default=None,
        description="Shell command, or list of them, to run whenever a sandbox is taken into use.",
    )
    options: SandboxOptions = Field(
        default_factory=SandboxOptions,
        description="Daytona and S3: account, where the sandbox comes from, where the workspace is mounted.",
    )

    @classmethod
    def from_env(cls) -> Self:
        """Build a configuration of the defaults and the environment variables.

        Raises:
            ConfigError: When a variable's value is not acceptable. A missing API key is
                no error here, see `require_api_key`.
        """
        return cls.model_validate({})

    def require_api_key(self) -> SecretStr:
        """Return the Daytona API key.

        Raises:
            ConfigError: When there is none, with both remedies.
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
        """Return envVars in the clear, for the request that sends them and nothing else."""
        return {name: value.get_secret_value() for name, value in self.env_vars.items()}

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON Schema of the document: the inner object, or the envelope around it.

        Takes pydantic's own arguments. The inner object's schema, with every setting's description, default
        and range, is ``["$defs"]["SandboxConfig"]``; ``x-env`` names the environment variable of a setting
        that has one.
        """
        inner = super().model_json_schema(*args, **kwargs)
        template = args[1] if len(args) > 1 else kwargs.get("ref_template", DEFAULT_REF_TEMPLATE)
        return with_envelope(inner, ref_template=template)

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if given.get("lifecycle") is not None and given.get("persistent") is not True:
            yield "lifecycle", "is for persistent sandboxes; set persistent to true, or leave it out"

    @classmethod
    def _unwrap(cls, data: Mapping[Any, Any]) -> tuple[Any, Location, list[Problem]]:
        if "config" not in data:
            return data, (), []
        problems = [
            Problem((str(key),), _beside_config(cls, key)) for key in data if key not in ("name", "config")
        ]
        problems += [Problem((key,), keys.twice(key, key)) for key in getattr(data, "repeated", ())]
        inner = data["config"]
        if "name" not in data or not isinstance(inner, Mapping):
            return inner, ("config",), problems
        if "name" in inner:
            problems.append(
                Problem(("config", "name"), "the name stands beside config already; leave this one out")
            )
        problems += [Problem(("config", key), keys.twice(key, key)) for key in getattr(inner, "repeated", ())]
        return {**inner, "name": data["name"]}, ("config",), problems

    def __getstate__(self) -> dict[Any, Any]:
        """Refuse to pickle envVars; `SandboxOptions` leaves out the API key."""
        if self.env_vars:
            raise ConfigError(
                "envVars: a configuration with envVars is not pickled, since a pickle must hold no secret; "
                "validate the configuration anew in the other process",
                code="not_picklable",
                op="pickle",
                context={"paths": ["envVars"]},
                for_model=FOR_MODEL,
            )
        return super().__getstate__()


def _beside_config(model: type[SandboxConfig], key: object) -> str:
    inside = keys.spellings(model).get(str(key))
    if inside:
        return f"stands beside config; did you mean config.{inside}?"
    return 'unknown key; an envelope has two, "name" and "config"'
