"""The agent's part, written down: for a demo without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from examples.demo.project import BROKEN, BROKEN_FILE, PUBLISHED, TESTS

_SCRIPT: Sequence[tuple[str, str | None, dict[str, Any]]] = [
    (
        "I'll run the tests first, to see what fails.",
        "bash",
        {"command": TESTS, "description": "Run the project's tests"},
    ),
    (
        "All failures are about encoding object identifiers. Where is that?",
        "workspace_file",
        {
            "command": "grep",
            "pattern": "class ObjectIdentifierEncoder",
            "path": "pyasn1",
            "output_mode": "content",
        },
    ),
    (
        "",
        "workspace_file",
        {"command": "read", "path": BROKEN_FILE, "offset": 326, "limit": 28},
    ),
    (
        "The octets of a long arc are collected from the last to the first, and have to be turned round before "
        "they are added; here they are not.",
        "workspace_file",
        {"command": "edit", "path": BROKEN_FILE, "old_string": BROKEN, "new_string": PUBLISHED},
    ),
    (
        "Now the tests again.",
        "bash",
        {"command": TESTS, "description": "Run the project's tests again"},
    ),
    ("ObjectIdentifierEncoder wrote the octets of long arcs in reverse order. That is repaired.", None, {}),
]


class ScriptedModel(BaseChatModel):
    """A chat model that says the next line of the script, whatever it is told."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        text, tool, arguments = _SCRIPT[min(said, len(_SCRIPT) - 1)]
        calls = [{"name": tool, "args": arguments, "id": f"scripted-{said}"}] if tool else []
        message = AIMessage(content=text, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)
