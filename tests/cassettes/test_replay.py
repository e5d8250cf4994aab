"""Replay the cassettes without a network: all requests must be as recorded, and in that order."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import pytest_socket

from tests.cassettes.fixed_ids import StillClock
from tests.cassettes.record import LOCAL, RECORDED, RUNTIMES
from tests.cassettes.scenarios import ON_S3, SCENARIOS
from tests.cassettes.stage import Stage
from tests.cassettes.tape import Tape, load

CASSETTES = [
    pytest.param(name, runtime, id=f"{name}-{runtime}") for name in SCENARIOS for runtime in RUNTIMES
]

pytestmark = pytest.mark.usefixtures("nothing_else")


def replay(path: Path, name: str, *, is_async: bool) -> None:
    """Replay a cassette; fail at the first request that differs from the recording."""
    stage = Stage(load(path)["settings"], StillClock(), is_async)
    with Tape.playing(path) as tape:
        try:
            stage.run(SCENARIOS[name])
        finally:
            stage.forget_sandboxes()
            assert tape.wrong is None, tape.wrong
    assert tape.unplayed == []


@pytest.mark.parametrize(("name", "runtime"), CASSETTES)
def test_the_replay_is_as_it_was_recorded(name: str, runtime: str) -> None:
    replay(RECORDED / f"{name}-{runtime}.yaml", name, is_async=RUNTIMES[runtime])


@pytest.mark.parametrize(("name", "runtime"), CASSETTES)
def test_a_cassette_names_the_recorded_server(name: str, runtime: str) -> None:
    recorded = load(RECORDED / f"{name}-{runtime}.yaml")["recorded"]
    assert recorded["server"].startswith((LOCAL, "Daytona at "))
    assert recorded["sdk"].startswith("daytona ")
    assert recorded["recorder"].startswith("vcrpy ")
    assert recorded.get("aws", "").startswith("boto3 ") == (name in ON_S3)


@pytest.mark.parametrize(("name", "runtime"), CASSETTES)
def test_a_sandbox_was_started_when_it_was_made_and_no_events_were_listened_to(
    name: str, runtime: str
) -> None:
    interactions = load(RECORDED / f"{name}-{runtime}.yaml")["interactions"]
    urls = [item["request"]["url"] for item in interactions]
    assert not any("socket" in url for url in urls)
    made = [
        item["response"]["body"]["state"]
        for item, url in zip(interactions, urls, strict=True)
        if url.endswith("/sandbox")
    ]
    assert made == ([] if name == "s3" else ["started"])


def test_there_is_a_cassette_of_everything_and_of_nothing_else() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == {
        f"{name}-{runtime}" for name in SCENARIOS for runtime in RUNTIMES
    }


def test_the_network_is_shut() -> None:
    with pytest.raises(pytest_socket.SocketBlockedError), pytest.warns(UserWarning, match="tried to use"):
        socket.socket()
