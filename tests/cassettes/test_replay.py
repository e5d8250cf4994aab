"""The main job, replayed without a network: each request as it was recorded, in that order, and none left over."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import pytest_socket

from tests.cassettes.record import FACES, LOCAL, RECORDED
from tests.cassettes.scenarios import ON_S3, SCENARIOS
from tests.cassettes.sources import StillClock
from tests.cassettes.stage import Stage
from tests.cassettes.tape import Tape, load

CASSETTES = [pytest.param(name, face, id=f"{name}-{face}") for name in SCENARIOS for face in FACES]

pytestmark = pytest.mark.usefixtures("nothing_else")


def replayed(path: Path, name: str, *, is_async: bool) -> None:
    """Replay a cassette; fail at the first request that was not recorded so."""
    stage = Stage(load(path)["settings"], StillClock(), is_async)
    with Tape.playing(path) as tape:
        try:
            stage.play(SCENARIOS[name])
        finally:
            stage.forget_sandboxes()
            assert tape.wrong is None, tape.wrong
    assert tape.unplayed == []


@pytest.mark.parametrize(("name", "face"), CASSETTES)
def test_the_replay_is_as_it_was_recorded(name: str, face: str) -> None:
    replayed(RECORDED / f"{name}-{face}.yaml", name, is_async=FACES[face])


@pytest.mark.parametrize(("name", "face"), CASSETTES)
def test_a_cassette_says_what_it_was_recorded_against(name: str, face: str) -> None:
    recorded = load(RECORDED / f"{name}-{face}.yaml")["recorded"]
    assert recorded["server"].startswith((LOCAL, "Daytona at "))
    assert recorded["sdk"].startswith("daytona ")
    assert recorded["recorder"].startswith("vcrpy ")
    assert recorded.get("aws", "").startswith("boto3 ") == (name in ON_S3)


@pytest.mark.parametrize(("name", "face"), CASSETTES)
def test_a_sandbox_was_started_when_it_was_made_and_no_events_were_listened_to(name: str, face: str) -> None:
    interactions = load(RECORDED / f"{name}-{face}.yaml")["interactions"]
    urls = [one["request"]["url"] for one in interactions]
    assert not any("socket" in url for url in urls)
    made = [
        one["response"]["body"]["state"]
        for one, url in zip(interactions, urls, strict=True)
        if url.endswith("/sandbox")
    ]
    assert made == ([] if name == "s3" else ["started"])


def test_there_is_a_cassette_of_everything_and_of_nothing_else() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == {
        f"{name}-{face}" for name in SCENARIOS for face in FACES
    }


def test_the_network_is_shut() -> None:
    with pytest.raises(pytest_socket.SocketBlockedError), pytest.warns(UserWarning, match="tried to use"):
        socket.socket()
