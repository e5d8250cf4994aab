"""The LangGraph server of examples/langgraph_server: `langgraph dev`, with its detection of blocking calls."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from langchain_daytona_ws import WorkspaceSession, namespace_of
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.servers.process import ROOT, ServerProcess

SLOWLY = "echo {0} > f; for i in 1 2 3; do echo {0}-$i; sleep 0.3; done"
APPROVE = {"resume": {"decisions": [{"type": "approve"}]}}


@pytest.fixture
def start(server: LocalDaytona, tmp_path: Path) -> Iterator[Callable[[], tuple[ServerProcess, Any]]]:
    """Return a function that starts the server, and returns its process and the address."""
    folder = tmp_path / "server"
    shutil.copytree(
        ROOT / "examples" / "langgraph_server", folder, ignore=shutil.ignore_patterns(".*", "__*")
    )
    env = {"MODEL": "offline", "DAYTONA_API_URL": server.api_url, "DAYTONA_API_KEY": server.api_key}
    made: list[ServerProcess] = []

    def begin() -> tuple[ServerProcess, Any]:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            port = str(chosen.getsockname()[1])
        module = ["langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", port]
        made.append(ServerProcess(*module, folder=folder, log=tmp_path / f"log-{len(made)}", env=env))
        return made[-1], f"http://127.0.0.1:{port}"

    yield begin
    for running in made:
        running.kill()


class Thread:
    """A conversation on the server."""

    def __init__(self, client: Any, thread_id: str) -> None:
        self._client = client
        self.id = thread_id
        self.output = ""
        self.answered_after_output = False

    async def run(self, **asked: Any) -> None:
        """Send a message, or resume; collect the output that is streamed while a command runs."""
        modes = ["custom", "updates"]
        async for part in self._client.runs.stream(self.id, "agent", stream_mode=modes, **asked):
            assert part.event != "error", part.data
            if part.event == "custom":
                self.output += part.data["text"]
            elif part.event == "updates" and "tools" in part.data:
                self.answered_after_output = bool(self.output)

    async def ask_for(self, command: str) -> None:
        await self.run(input={"messages": [{"role": "user", "content": command}]})

    async def question(self) -> str:
        """Return the call that waits for approval."""
        state = await self._client.threads.get_state(self.id)
        ((interrupt,),) = [task["interrupts"] for task in state["tasks"]]
        (request,) = interrupt["value"]["action_requests"]
        return str(request["args"]["command"])

    async def answer(self) -> str:
        state = await self._client.threads.get_state(self.id)
        return str(state["values"]["messages"][-1]["content"])


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Any]:
    """Yield a client of the server, once the server answers."""
    until = time.monotonic() + 120
    async with get_client(url=address) as client:
        while True:
            try:
                await client.assistants.search()
                break
            except httpx.ConnectError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)
        yield client


@pytest.mark.full
def test_a_server_over_its_restart(
    server: LocalDaytona, start: Callable[[], tuple[ServerProcess, Any]]
) -> None:
    running, address = start()

    async def two_threads() -> list[str]:
        async with connected(address) as client:
            threads = [Thread(client, (await client.threads.create())["thread_id"]) for _ in range(2)]
            asking = [thread.ask_for(SLOWLY.format(n)) for n, thread in enumerate(threads)]
            await asyncio.gather(*asking)
            assert [await thread.question() for thread in threads] == [SLOWLY.format(n) for n in range(2)]
            assert server.sandboxes == [], "no machine is needed before the approval"
            await asyncio.gather(*(thread.run(command=APPROVE) for thread in threads))
            for n, thread in enumerate(threads):
                assert thread.output == f"{n}-1\n{n}-2\n{n}-3\n"
                assert thread.answered_after_output
                assert await thread.answer() == f"The result is:\n{thread.output}[exit code 0]"
            await threads[0].ask_for("cat f")
            return [thread.id for thread in threads]

    async def after_restart(ids: list[str]) -> None:
        async with connected(address) as client:
            first, second = (Thread(client, thread_id) for thread_id in ids)
            assert await first.question() == "cat f"
            await first.run(command=APPROVE)
            assert await first.answer() == "The result is:\n0\n[exit code 0]"
            await second.ask_for("cat f")
            await second.run(command=APPROVE)
            assert await second.answer() == "The result is:\n1\n[exit code 0]"

    ids = asyncio.run(two_threads())
    assert running.end(signal.SIGTERM) == -signal.SIGTERM
    made = {sandbox.id for sandbox in server.sandboxes}
    assert len(made) == 2

    again, address = start()
    asyncio.run(after_restart(ids))
    assert again.end(signal.SIGTERM) == -signal.SIGTERM
    assert {sandbox.id for sandbox in server.sandboxes} == made
    for process in (running, again):
        assert "Traceback" not in process.output, process.output
        assert "blocking" not in process.output.lower(), process.output
    for thread_id in ids:
        WorkspaceSession(config_for(server, persistent=True), namespace=namespace_of(thread_id)).release()
