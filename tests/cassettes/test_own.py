"""Plain vcrpy can replay a session with fixed ids and a fixed clock, without this folder's helpers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_socket
import vcr
from vcr.request import Request

from langchain_daytona_ws import BashTool, WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from tests.cassettes.fixed_ids import StillClock, counted


def _bare(request: Request) -> Request:
    request.body = None
    return request


async def _agent(settings: dict[str, Any], **more: Any) -> list[str]:
    session = WorkspaceSession(settings, namespace="mine", ids=counted(), **more)
    async with session:
        bash = BashTool(session=session)
        outputs = [await bash.ainvoke({"command": f"echo {word}"}) for word in ("one", "two")]
        job = await session.jobs.astart("echo three", max_duration_s=60)
        return [*outputs, (await session.jobs.ajoin(job.id)).state]


@pytest.mark.usefixtures("nothing_else")
def test_a_plain_recording_is_replayed_when_the_server_is_gone(tmp_path: Path) -> None:
    recorder = vcr.VCR(
        match_on=["method", "path"], filter_headers=["authorization"], before_record_request=_bare
    )
    path = str(tmp_path / "agent.yaml")
    pytest_socket.enable_socket()
    with LocalDaytona() as server:
        options = {"apiKey": server.api_key, "apiUrl": server.api_url}
        with recorder.use_cassette(path, record_mode="all"):
            recorded = asyncio.run(_agent({"permissionMode": "bypass", "options": options}))
    pytest_socket.disable_socket(allow_unix_socket=True)
    options["apiKey"] = "another"
    with recorder.use_cassette(path, record_mode="none") as cassette:
        second = asyncio.run(_agent({"permissionMode": "bypass", "options": options}, clock=StillClock()))
    assert second == recorded == ["one\n[exit code 0]", "two\n[exit code 0]", "finished"]
    assert cassette.all_played
