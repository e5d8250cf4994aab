"""A model that runs the user's message as a command, to try the server without a model: ``MODEL=offline``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable


class OfflineModel(BaseChatModel):
    """Calls `bash` with the user's message, and then answers with the result."""

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, HumanMessage):
            call = {"name": "bash", "args": {"command": last.text}, "id": f"call_{uuid.uuid4().hex}"}
            answer = AIMessage("", tool_calls=[call])
        else:
            answer = AIMessage(f"The result is:\n{last.text}")
        return ChatResult(generations=[ChatGeneration(message=answer)])
