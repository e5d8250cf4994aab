"""An agent for a LangGraph server: each thread has a persistent workspace, and commands need approval."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig

from langchain_daytona_ws import (
    InterruptApprover,
    SandboxConfig,
    WorkspaceSession,
    WorkspaceToolkit,
    namespace_of,
)

# The account is read from DAYTONA_API_KEY. A persistent sandbox outlives this process: after a restart, and in any
# other worker, a thread finds its files again. Without requests it is stopped after 15 minutes.
CONFIG = SandboxConfig(persistent=True, permission_mode="edit")

MODEL = os.environ.get("MODEL", "anthropic:claude-sonnet-4-5")

if MODEL == "offline":
    from offline_model import OfflineModel

    model: BaseChatModel = OfflineModel()
else:
    model = init_chat_model(MODEL)


@asynccontextmanager
async def make_graph(config: RunnableConfig) -> AsyncIterator[Any]:
    """Make the graph of one run."""
    # The server also calls this without a thread, to read the graph's schema. Opening a session creates no sandbox.
    namespace = namespace_of(config["configurable"].get("thread_id", "no-thread"))
    async with WorkspaceSession(CONFIG, namespace=namespace, approver=InterruptApprover()) as session:
        yield create_agent(
            model,
            WorkspaceToolkit(session=session).get_tools(),
            system_prompt=f"You are a software engineer with a workspace.\n\n{session.guidance()}",
        )
