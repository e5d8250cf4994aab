"""The sandboxes that remain after a server has ended: the table in docs/deploying.md, with real processes."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.servers.process import ROOT, ServerProcess

CLOSED_BY = ("nothing", "close_on_sigterm()", "lifespan")
LANGGRAPH = {
    "dependencies": ["."],
    "graphs": {"agent": "tests.integration_tests.servers.app:graph"},
    "http": {"app": "tests.integration_tests.servers.app:app"},
}


def cells() -> Iterator[Any]:
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    table = re.search(r"<!-- ends -->\n(.*?)\n<!-- /ends -->", page, re.DOTALL)
    assert table is not None
    heading, _, *rows = [
        [cell.strip(" `") for cell in row.strip("|").split("|")] for row in table[1].splitlines()
    ]
    assert tuple(heading[2:]) == CLOSED_BY
    for server, ended_by, *results in rows:
        for closed_by, result in zip(CLOSED_BY, results, strict=True):
            is_quick = (server, ended_by, closed_by) == ("uvicorn", "SIGTERM", "lifespan")
            name = f"{server}, {ended_by}, {closed_by}"
            marks = () if is_quick else pytest.mark.full
            yield pytest.param((server, ended_by, closed_by, result), id=name, marks=marks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "langgraph.json").write_text(json.dumps(LANGGRAPH))
    (tmp_path / "changed.py").write_text("")
    return tmp_path


def arguments(server: str) -> list[str]:
    program, *options = server.split()
    if program == "uvicorn":
        watched = ["--reload-dir", "."] if options == ["--reload"] else []
        return ["uvicorn", "tests.integration_tests.servers.app:app", "--uds", "socket", *options, *watched]
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = str(chosen.getsockname()[1])
    return ["langgraph_cli", *options, "--no-browser", "--port", port]


@pytest.mark.parametrize("cell", list(cells()))
def test_the_table_of_the_documentation(
    server: LocalDaytona, folder: Path, cell: tuple[str, str, str, str]
) -> None:
    started, ended_by, closed_by, result = cell
    expected = re.fullmatch(r"(\d) → (\d)(?: to (\d))?", result)
    assert expected is not None
    before, fewest, most = int(expected[1]), int(expected[2]), int(expected[3] or expected[2])
    env = {"CLOSED_BY": closed_by, "CONFIG": json.dumps(config_for(server))}
    running = ServerProcess(*arguments(started), folder=folder, log=folder / "log", env=env)
    try:
        running.wait_for("ready", before // 2)
        opened = {sandbox.id for sandbox in server.sandboxes}
        assert len(opened) == before
        if ended_by == "reload":
            (folder / "changed.py").write_text("changed = True\n")
            running.wait_for("ready", 2)
        else:
            running.end(signal.Signals[ended_by])
        left = opened & {sandbox.id for sandbox in server.sandboxes}
        assert fewest <= len(left) <= most, running.output
    finally:
        running.kill()


@pytest.mark.full
def test_a_running_request_ends_in_a_limited_time(server: LocalDaytona, folder: Path) -> None:
    env = {"CLOSED_BY": "lifespan", "CONFIG": json.dumps(config_for(server))}
    command = [*arguments("uvicorn"), "--timeout-graceful-shutdown", "1"]
    running = ServerProcess(*command, folder=folder, log=folder / "log", env=env)
    try:
        running.wait_for("ready")
        before = server.count("execute")
        with (
            ThreadPoolExecutor() as pool,
            httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "socket"))) as client,
        ):
            request = pool.submit(client.get, "http://server/sleep", timeout=120)
            until = time.monotonic() + 60
            while server.count("execute") == before:
                assert time.monotonic() < until
                time.sleep(0.02)
            running.end(signal.SIGTERM)
            assert request.exception() or request.result().status_code == 500
        assert server.sandboxes == []
    finally:
        running.kill()
