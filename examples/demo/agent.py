"""Run the agent, and check its work."""

from __future__ import annotations

from dataclasses import dataclass, field

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from examples.demo.project import TESTS, DemoFailed, TestRun
from examples.demo.screen import Screen
from examples.demo.scripted import SCRIPT
from examples.scripted import ScriptedModel
from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit

TASK = f"""\
This directory holds a Python package. Its tests fail:
  {TESTS}
Run them, find the cause, and correct it in the package's source with workspace_file, not in the tests.
Then run the tests again, and say in two sentences what was wrong."""
MOST_STEPS = 100


@dataclass
class WorkRecord:
    """The agent's test runs and file changes."""

    test_runs: list[TestRun] = field(default_factory=list)
    changes: int = 0
    _called: dict[str, str] = field(default_factory=dict)

    def add(self, message: AIMessage | ToolMessage) -> None:
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                self._called[call["id"] or ""] = f"{call['name']} {call['args'].get('action')}"
            return
        called = self._called.get(message.tool_call_id, "")
        if called.startswith("bash ") and isinstance(message.artifact, dict):
            run = TestRun.read(str(message.artifact.get("output", "")))
            self.test_runs += [run] if run else []
        if called in {"workspace_file edit", "workspace_file write"} and message.status == "success":
            self.changes += 1

    def check(self, final: TestRun, *, tests_unchanged: bool) -> None:
        """Check that the tests failed first, that a file was changed, and that the same tests pass now."""
        if not self.test_runs or not self.test_runs[0].failed:
            raise DemoFailed("the agent's first test run did not show the planted bug")
        if not self.changes:
            raise DemoFailed("the agent changed no file with workspace_file")
        if not tests_unchanged:
            raise DemoFailed("the agent changed the package's tests")
        if final.failed or final.total != self.test_runs[0].total:
            raise DemoFailed(f"the tests are not green after the agent's work: {final}")


def model_for(name: str | None) -> BaseChatModel:
    if name is None:
        return ScriptedModel(script=SCRIPT)
    try:
        return init_chat_model(name)
    except (ImportError, ValueError) as error:
        raise DemoFailed(
            f"the model {name} is not available: {error}\n"
            "Name it as provider:model, install the provider's package (for example .venv/bin/python -m pip install "
            "langchain-openai), and set its API key in the environment."
        ) from error


async def work(model: BaseChatModel, session: WorkspaceSession, screen: Screen) -> WorkRecord:
    agent = create_agent(model, WorkspaceToolkit(session=session).get_tools())
    record = WorkRecord()
    steps = agent.astream(
        {"messages": [HumanMessage(TASK)]}, {"recursion_limit": MOST_STEPS}, stream_mode="updates"
    )
    async for step in steps:
        for update in step.values():
            for message in (update or {}).get("messages", ()):
                if isinstance(message, (AIMessage, ToolMessage)):
                    screen.message(message)
                    record.add(message)
    screen.idle()
    return record
