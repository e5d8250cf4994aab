"""A chat model that follows a script, for reproducible runs without a real model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

# Ids are unique, because a session answers a repeated id with the recorded result.
_numbers = itertools.count(1)


def turn(text: str = "", /, **calls: dict[str, Any]) -> AIMessage:
    """Return one message of the model, with a call of each tool named in `calls` (tool → arguments)."""
    return AIMessage(
        content=text, tool_calls=[{"name": tool, "args": args, "id": None} for tool, args in calls.items()]
    )


class ScriptedModel(BaseChatModel):
    """A chat model that returns the next message of its script. At the end it repeats the last message.

    The next message depends only on the number of AI messages in the input.
    """

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
        count = sum(isinstance(message, AIMessage) for message in messages)
        scripted = self.script[min(count, len(self.script) - 1)]
        calls = [{**call, "id": f"call_{next(_numbers)}"} for call in scripted.tool_calls]
        message = AIMessage(content=scripted.content, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)
