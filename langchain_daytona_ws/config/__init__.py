"""The configuration: frozen pydantic models of the JSON document.

``SandboxConfig.model_validate(json_dict)`` accepts an object of settings, or an envelope ``{"name": …, "config": …}``
around this object. Keys are in camelCase or snake_case. One `ConfigError` reports all problems.
"""

from langchain_daytona_ws.config.models import (
    LifecycleConfig,
    NetworkConfig,
    NetworkMode,
    PermissionMode,
    SandboxConfig,
)
from langchain_daytona_ws.config.namespace import namespace_of, validate_namespace
from langchain_daytona_ws.config.options import SandboxOptions, SandboxResources
from langchain_daytona_ws.config.values import ImageDefinition

__all__ = [
    "ImageDefinition",
    "LifecycleConfig",
    "NetworkConfig",
    "NetworkMode",
    "PermissionMode",
    "SandboxConfig",
    "SandboxOptions",
    "SandboxResources",
    "namespace_of",
    "validate_namespace",
]
