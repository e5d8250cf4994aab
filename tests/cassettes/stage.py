"""Where a scenario plays: the same for a recording and its replay, and for the sync and the async methods."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from langchain_daytona_ws import Clock, WorkspaceSession
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._session import machine
from tests.cassettes.sources import counted

NAMESPACE = "cassette"
_A_FORMS = {"wait": "await_"}
Plain = dict[str, Any]
Scenario = Callable[["Stage"], Coroutine[Any, Any, None]]


@dataclass
class Stage:
    """What a scenario has.

    Attributes:
        settings: The configuration: of a recording the real one, of a replay that of the cassette.
        clock: The sessions' time.
        is_async: Whether the a-forms of all methods are used.
        stop_sandbox: Stops the sandbox of this id from outside, as an idle one is; in a replay it does nothing.
    """

    settings: Plain
    clock: Clock
    is_async: bool
    stop_sandbox: Callable[[str], None] = lambda _: None
    ids: Callable[[], str] = field(default_factory=counted)
    sessions: list[WorkspaceSession] = field(default_factory=list)

    def session(self, **more: Any) -> WorkspaceSession:
        """Make a session; options are laid over those of the settings."""
        settings = copy.deepcopy(self.settings)
        named = {name: more.pop(name) for name in ("approver",) if name in more}
        options = {**settings.pop("options"), **more.pop("options", {})}
        config = {"permissionMode": "bypass", **settings, **more, "options": options}
        self.sessions.append(
            WorkspaceSession(config, namespace=NAMESPACE, ids=self.ids, clock=self.clock, **named)
        )
        return self.sessions[-1]

    async def do(self, thing: Any, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of a session, its files, its jobs or a tool."""
        if self.is_async:
            return await getattr(thing, _A_FORMS.get(name, f"a{name}"))(*arguments, **named)
        return getattr(thing, name)(*arguments, **named)

    def play(self, scenario: Scenario) -> None:
        """Go through a scenario."""
        if self.is_async:
            asyncio.run(scenario(self))
        else:
            drive(scenario(self))

    def forget_sandboxes(self) -> None:
        """Keep what a replay that failed left open from being deleted at exit: there is nobody to ask."""
        for session in self.sessions:
            machine._open_machines.pop(session._machine, None)
