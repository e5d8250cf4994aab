"""Forged answers of Daytona's API: every call ends with a result or with an error of this package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws import WorkspaceError, WorkspaceSession
from langchain_daytona_ws._adapters.faults import MESSAGE_LIMIT
from langchain_daytona_ws.local import LocalDaytona
from langchain_daytona_ws.local.faults import Fault
from tests.hostile.forged import InstantClock, examples, forgeries, junk
from tests.integration_tests.conftest import config_for
from tests.sample import sample

# Requests of a session to the API → the configuration that causes the request.
ASKED: dict[str, dict[str, Any]] = {"create": {}, "execute": {}, "get": {"persistent": True}, "delete": {}}
JSON = {"Content-Type": "application/json"}


@st.composite
def refusals(draw: st.DrawFn) -> Fault:
    status = draw(
        st.sampled_from([400, 401, 402, 403, 404, 405, 409, 410, 418, 422, 451, 500, 501, 505, 520])
    )
    messages = junk.map(lambda value: json.dumps({"statusCode": 400, "message": value}).encode())
    later = draw(
        st.none() | st.sampled_from(["0", "-5", "nan", "inf", "1e400", "soon", "Fri, 31 Dec 1999 23:59:59"])
    )
    headers = JSON if later is None else {**JSON, "Retry-After": later}
    return Fault("status", status=status, body=draw(messages | st.binary(max_size=80)), headers=headers)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDaytona]:
    with LocalDaytona() as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(server: LocalDaytona) -> Iterator[None]:
    yield
    server.faults.clear()
    for sandbox in server.sandboxes:
        server.destroy_sandbox(sandbox.id)


def used(server: LocalDaytona, asynchronous: bool, namespace: str = "forgeries", **settings: Any) -> None:
    """Run a command and close; only errors of this package may be raised."""
    session = WorkspaceSession(config_for(server, **settings), namespace=namespace, clock=InstantClock())
    failed: WorkspaceError | None = None
    try:
        if asynchronous:
            asyncio.run(_used(session))
        else:
            with session:
                session.run("echo ok")
    except WorkspaceError as error:
        failed = error
    if failed is not None:
        assert len(failed.message) < MESSAGE_LIMIT + 1500
        assert failed.message.replace("\n", " ").isprintable()
        assert server.api_key not in failed.message
        failed.for_model.encode("utf-8")
    server.faults.clear()
    session.close()  # may be repeated after a failure


async def _used(session: WorkspaceSession) -> None:
    async with session:
        await session.arun("echo ok")


def true_sandbox(server: LocalDaytona) -> dict[str, Any]:
    with WorkspaceSession(config_for(server), namespace="true") as session:
        session.run(":")
        return server.sandboxes[0].dto(f"{server.api_url.removesuffix('/api')}/toolbox")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("action", sample(list(ASKED), "create", "execute"))
@given(data=st.data())
@examples(8)
def test_an_answer_with_wrong_types(
    server: LocalDaytona, action: str, asynchronous: bool, data: st.DataObject
) -> None:
    real = {"exitCode": 0, "result": "x"} if action == "execute" else true_sandbox(server)
    state = real.pop("state", None)  # a session waits while it is "creating"
    forged = data.draw(forgeries(real) | junk)
    if isinstance(forged, dict) and state is not None:
        forged["state"] = data.draw(st.sampled_from([state, "error", "destroyed", "no state", None, 7]))
    body = json.dumps(forged).encode()
    server.faults.add(Fault("status", action=action, status=200, body=body, headers=JSON))
    used(server, asynchronous, **ASKED[action])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("action", sample(list(ASKED), "create", "execute"))
@given(refusal=refusals())
@examples(8)
def test_a_refusal_in_whatever_words(
    server: LocalDaytona,
    action: str,
    asynchronous: bool,
    refusal: Fault,
) -> None:
    server.faults.add(replace(refusal, action=action))
    used(server, asynchronous, **ASKED[action])
