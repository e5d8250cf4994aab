"""The key of a run's workspace, from the run's `RunnableConfig`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

logger = logging.getLogger("langchain_daytona_ws")

KeyOf: TypeAlias = "Callable[[RunnableConfig], str]"
RunKey: TypeAlias = Literal["thread", "user"] | KeyOf

_NOTHING_RAN = "This run belongs to no workspace, so nothing ran. Tell the user."


def key_of(source: RunKey, run: Mapping[str, Any] | None) -> str:
    """Return the key of a run.

    Raises:
        ConfigError: The run has no key, or the key function failed (``code="no_key"``).
    """
    settings = (run or {}).get("configurable") or {}
    if source == "thread":
        return _thread_id(settings)
    if source == "user":
        return _user_identity(settings)
    return _result_of(source, run or {})


def check_key(source: object) -> None:
    """Refuse a value that no `WorkspacePool` accepts as its ``key``.

    Raises:
        ConfigError: The value is neither ``"thread"`` nor ``"user"`` nor a function, or it is an async function.
    """
    is_async = inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(
        getattr(source, "__call__", None)  # noqa: B004 - an object with an async __call__
    )
    if source in ("thread", "user") or (callable(source) and not is_async):
        return
    given = "an async function" if is_async else repr(source)
    raise ConfigError(
        'key must be "thread", "user", or a function that takes a RunnableConfig and returns the key as a string, not '
        f"{given}"
    )


def _thread_id(settings: Mapping[str, Any]) -> str:
    thread = settings.get("thread_id")
    # LangGraph converts ids of other types to strings too.
    if isinstance(thread, (str, int, UUID)) and not isinstance(thread, bool) and thread != "":
        return str(thread)
    raise _refused(
        "the run has no thread id: invoke the graph with {'configurable': {'thread_id': …}}, or give the WorkspacePool "
        'key="user" or a function'
    )


def _user_identity(settings: Mapping[str, Any]) -> str:
    user = settings.get("langgraph_auth_user")
    # LangGraph's server passes an object. A dict may be a client's JSON, which some servers copy into the config.
    is_authenticated = user is not None and not isinstance(user, dict)
    identity = getattr(user, "identity", None) if is_authenticated else None
    if isinstance(identity, str) and identity and getattr(user, "is_authenticated", True) is True:
        return identity
    raise _refused(
        'the server has authenticated no user for this run: the WorkspacePool has key="user", which reads the object '
        "configurable['langgraph_auth_user'] of a LangGraph server with custom authentication. In another server, give "
        "the pool a function that returns what your program has authenticated"
    )


def _result_of(source: KeyOf, run: Mapping[str, Any]) -> str:
    try:
        key = source(run)  # type: ignore[arg-type]
    except Exception as error:
        if is_control_flow(error):
            raise
        logger.exception("the key function of the WorkspacePool failed")
        raise _refused(f"the key function of the WorkspacePool raised {type(error).__qualname__}") from error
    if isinstance(key, str) and key:
        return key
    given = "an empty string" if key == "" else f"an object of type {type(key).__qualname__}"
    raise _refused(
        f"the key function of the WorkspacePool must return a string that is not empty, and returned {given}"
    )


def _refused(reason: str) -> ConfigError:
    """Log why a run has no key; return the error."""
    logger.warning("no workspace for a run: %s", reason)
    return ConfigError(
        f"No workspace for this run: {reason}.", code="no_key", op="lease", for_model=_NOTHING_RAN
    )
