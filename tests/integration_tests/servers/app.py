"""An app that opens two sandboxes when it starts. ``CLOSED_BY`` says how they are closed, ``CONFIG`` is their JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from langgraph.graph import START, MessagesState, StateGraph
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from langchain_daytona_ws import WorkspaceSession, close_on_sigterm

if os.environ["CLOSED_BY"] == "close_on_sigterm()":
    close_on_sigterm()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    config = json.loads(os.environ["CONFIG"])
    async with AsyncExitStack() as ends_with_app:
        app.state.sessions = [WorkspaceSession(config, namespace=f"{os.getpid()}-{n}") for n in range(2)]
        await asyncio.gather(*(session.arun("true") for session in app.state.sessions))
        if os.environ["CLOSED_BY"] == "lifespan":
            for session in app.state.sessions:
                await ends_with_app.enter_async_context(session)
        print("ready", flush=True)
        yield


async def sleep(request: Request) -> None:
    await request.app.state.sessions[0].arun("sleep 600", timeout_s=600)


app = Starlette(lifespan=lifespan, routes=[Route("/sleep", sleep)])

# For `langgraph dev`, which serves a graph and the app.
graph = StateGraph(MessagesState).add_node("nothing", lambda _: {}).add_edge(START, "nothing").compile()
