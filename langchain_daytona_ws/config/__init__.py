"""The configuration: frozen pydantic models of the JSON, read once, refused with every remedy.

``SandboxConfig.model_validate(json_dict)`` takes the ``{"name", "config"}`` envelope or the inner object,
in camelCase or snake_case. Everything wrong with it comes out as one `ConfigError`.
"""

from langchain_daytona_ws.config.models import (
    LifecycleConfig,
    NetworkConfig,
    NetworkMode,
    PermissionMode,
    SandboxConfig,
)
from langchain_daytona_ws.config.namespace import validate_namespace
from langchain_daytona_ws.config.options import SandboxOptions
from langchain_daytona_ws.config.values import ImageDefinition

__all__ = [
    "ImageDefinition",
    "LifecycleConfig",
    "NetworkConfig",
    "NetworkMode",
    "PermissionMode",
    "SandboxConfig",
    "SandboxOptions",
    "validate_namespace",
]
