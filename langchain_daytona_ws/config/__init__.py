"""The configuration: frozen pydantic models of the JSON document.

``SandboxConfig.model_validate(json_dict)`` accepts the ``{"name", "config"}`` envelope or the inner object, with keys
in camelCase or snake_case. It reports all problems in one `ConfigError`.
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
