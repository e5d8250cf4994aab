"""Settings that are parsed and validated, and that this version does not carry out yet."""

from __future__ import annotations

from pydantic import BaseModel

from langchain_daytona_ws.config.models import SandboxConfig
from langchain_daytona_ws.config.problems import FOR_MODEL
from langchain_daytona_ws.errors import NotSupportedYet

# Whoever implements a setting deletes its line, and only that.
_REMEDIES = {
    "onCreate": "leave it out, and run the commands through the session or build them into the snapshot",
    "onResume": "leave it out, and run the commands through the session",
}


def refuse_unsupported(config: SandboxConfig) -> None:
    """Refuse a configuration that asks for more than this version does, rather than ignore it silently.

    A setting asks for something when it was given and is neither null nor false.

    Raises:
        NotSupportedYet: Naming every such setting and what to do about it.
    """
    asked = [path for path in _REMEDIES if _asks(config, path)]
    if not asked:
        return
    listed = "".join(f"\n- {path}: not supported yet; {_REMEDIES[path]}" for path in asked)
    raise NotSupportedYet(
        f"This version of langchain-daytona-ws does not do all that the configuration asks for:{listed}",
        op="validate",
        context={"paths": asked},
        for_model=FOR_MODEL,
    )


def _asks(config: SandboxConfig, path: str) -> bool:
    value: object = config
    for key in path.split("."):
        assert isinstance(value, BaseModel)  # noqa: S101 - a path of the table above, held by a test
        name = next(name for name, field in type(value).model_fields.items() if field.alias == key)
        if name not in value.model_fields_set:
            return False
        value = getattr(value, name)
    return value is not None and value is not False
