"""The environment of a scenario, for recordings and replays, sync and async."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from langchain_daytona_ws import Clock, WorkspaceSession
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session import process_end
from tests.cassettes.fixed_ids import counted

NAMESPACE = "cassette"
Plain = dict[str, Any]
Scenario = Callable[["Stage"], Coroutine[Any, Any, None]]


@dataclass
class Stage:
    """Runs scenarios, and creates their sessions.

    Attributes:
        settings: The configuration: the real one in a recording, the cassette's in a replay.
        clock: The sessions' clock.
        is_async: Whether to call the async methods.
        stop_sandbox: Stops the sandbox of this id, as Daytona stops an idle one; does nothing in a replay.
    """

    settings: Plain
    clock: Clock
    is_async: bool
    stop_sandbox: Callable[[str], None] = lambda _: None
    ids: Callable[[], str] = field(default_factory=counted)
    sessions: list[WorkspaceSession] = field(default_factory=list)

    def session(self, **more: Any) -> WorkspaceSession:
        """Return a new session; the given options override those of the settings."""
        settings = copy.deepcopy(self.settings)
        named = {name: more.pop(name) for name in ("approver",) if name in more}
        options = {**settings.pop("options"), **more.pop("options", {})}
        config = {"permissionMode": "bypass", **settings, **more, "options": options}
        self.sessions.append(
            WorkspaceSession(config, namespace=NAMESPACE, ids=self.ids, clock=self.clock, **named)
        )
        return self.sessions[-1]

    async def do(self, target: Any, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of a session, its files, its jobs or a tool."""
        if self.is_async:
            return await getattr(target, f"a{name}")(*arguments, **named)
        return getattr(target, name)(*arguments, **named)

    def run(self, scenario: Scenario) -> None:
        """Run a scenario."""
        if self.is_async:
            asyncio.run(scenario(self))
        else:
            run_sync(scenario(self))

    def forget_sandboxes(self) -> None:
        """Prevent the deletion of sandboxes at exit after a failed replay: there is no server."""
        for session in self.sessions:
            process_end.remove(session._state.sandboxes)
