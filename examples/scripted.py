"""A chat model whose part is written down: for agents that run without a model, the same way each time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

# Never the same id twice: a session answers a repeated call with the recorded result.
_numbers = itertools.count(1)


def turn(text: str = "", /, **calls: dict[str, Any]) -> AIMessage:
    """Write down one turn of the model: what it says, and which tools it calls with what."""
    return AIMessage(
        content=text, tool_calls=[{"name": tool, "args": args, "id": None} for tool, args in calls.items()]
    )


class ScriptedModel(BaseChatModel):
    """A chat model that says the next turn of its script, whatever it is told; the last one again after the end."""

    script: Sequence[AIMessage]

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
        written = self.script[min(said, len(self.script) - 1)]
        calls = [{**call, "id": f"call_{next(_numbers)}"} for call in written.tool_calls]
        message = AIMessage(content=written.content, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)
