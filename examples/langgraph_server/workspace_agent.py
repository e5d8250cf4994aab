"""An agent for a LangGraph server: each thread has a persistent workspace, and commands need approval."""

import os

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from starlette.applications import Starlette

from langchain_daytona_ws import InterruptApprover, SandboxConfig, WorkspacePool, WorkspaceToolkit

MODEL = os.environ.get("MODEL", "anthropic:claude-sonnet-4-5")

if MODEL == "offline":
    from offline_model import OfflineModel

    model: BaseChatModel = OfflineModel()
else:
    model = init_chat_model(MODEL)

# The account is read from DAYTONA_API_KEY. A persistent sandbox outlives this process: after a restart, and in any
# other worker, a thread finds its files again. Without requests the sandbox is stopped after 15 minutes.
config = SandboxConfig(persistent=True, permission_mode="edit")
pool = WorkspacePool(config, key="thread", approver=InterruptApprover())

graph = create_agent(
    model,
    WorkspaceToolkit(pool=pool).get_tools(),
    system_prompt=f"You are a software engineer with a workspace.\n\n{pool.guidance()}",
)

# The server closes all sessions when it ends.
app = Starlette(lifespan=pool.lifespan)
