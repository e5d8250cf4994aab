"""Implementation of `WorkspaceBackend`. Needs the extra ``deepagents``."""

from importlib.util import find_spec

if find_spec("deepagents") is None:
    raise ImportError(
        "WorkspaceBackend needs Deep Agents, which is not installed; run "
        "pip install 'langchain-daytona-ws[deepagents]'"
    )
