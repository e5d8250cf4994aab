"""The pool of docs/pool.md behind `langgraph dev`: each user whom the server authenticates has a workspace."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from langchain_daytona_ws import namespace_of
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.servers.process import ROOT, ServerProcess

AUTH = """\
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str) -> dict[str, str]:
    return {"identity": authorization}
"""
MODEL = "from offline_model import OfflineModel\n\nmodel = OfflineModel()\n"
SECRET = "echo secret > f; cat f"


@pytest.fixture
def running(server: LocalDaytona, tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Yield the server of the documentation, with ephemeral sandboxes, and its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    page = (ROOT / "docs" / "pool.md").read_text("utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (folder / "workspace_agent.py").write_text(MODEL + code.replace(", persistent=True", ""))
    (settings,) = re.findall(r"^```json\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (folder / "langgraph.json").write_text(json.dumps(json.loads(settings)))
    (folder / "auth.py").write_text(AUTH)
    shutil.copy(ROOT / "examples" / "langgraph_server" / "offline_model.py", folder)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = str(chosen.getsockname()[1])
    env = {"DAYTONA_API_URL": server.api_url, "DAYTONA_API_KEY": server.api_key}
    module = ["langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", port]
    process = ServerProcess(*module, folder=folder, log=tmp_path / "log", env=env)
    yield process, f"http://127.0.0.1:{port}"
    process.kill()


class User:
    """A client of the server."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def new_thread(self) -> str:
        return str((await self.client.threads.create())["thread_id"])

    async def run(self, thread: str, command: str, **claims: Any) -> str:
        message = {"role": "user", "content": command}
        state = await self.client.runs.wait(
            thread, "agent", input={"messages": [message]}, config={"configurable": claims}
        )
        return str(state["messages"][-2]["content"])


@pytest.mark.full
def test_nobody_reaches_the_workspace_of_another(
    server: LocalDaytona, running: tuple[ServerProcess, str]
) -> None:
    process, address = running

    async def main() -> None:
        async with AsyncExitStack() as clients:
            ann, bob = [
                User(
                    await clients.enter_async_context(
                        get_client(url=address, headers={"authorization": name})
                    )
                )
                for name in ("ann@example.com", "bob")
            ]
            await use(ann, bob)

    async def use(ann: User, bob: User) -> None:
        for _ in range(1200):
            try:
                thread = await ann.new_thread()
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.1)
        assert await ann.run(thread, SECRET) == "secret\n[exit code 0]"
        claimed = {"identity": "ann@example.com", "is_authenticated": True}
        for claims in (
            {},
            {"thread_id": thread, "user": "ann@example.com", "user_id": "ann@example.com"},
            {"langgraph_auth_user": claimed, "langgraph_auth_user_id": "ann@example.com"},
        ):
            for id_ in (thread, await bob.new_thread()):
                assert "secret" not in await bob.run(id_, "cat f 2>&1", **claims)
        assert await ann.run(await ann.new_thread(), "cat f") == "secret\n[exit code 0]"

    asyncio.run(main())
    namespaces = {sandbox.labels["namespace"] for sandbox in server.sandboxes}
    assert namespaces == {namespace_of("ann@example.com"), "bob"}
    process.end(signal.SIGTERM)
    assert server.sandboxes == []
    assert "Traceback" not in process.output, process.output
    assert "blocking" not in process.output.lower(), process.output
