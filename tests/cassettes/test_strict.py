"""Replays of changed cassettes fail, except for changes of the guest program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from langchain_daytona_ws._core.guest_rpc import payload as script
from tests.cassettes.record import RECORDED, RUNTIMES
from tests.cassettes.tape import load
from tests.cassettes.test_replay import replay

pytestmark = pytest.mark.usefixtures("nothing_else")

Interactions = list[dict[str, Any]]


def _execution(interactions: Interactions) -> dict[str, Any]:
    """Return the first request to a guest."""
    body: dict[str, Any] = next(
        item["request"]["body"]
        for item in interactions
        if item["request"]["url"].endswith("/process/execute")
    )
    return body


def _with(interactions: Interactions, header: str) -> dict[str, Any]:
    return next(item["request"] for item in interactions if header in item["request"].get("headers", {}))


def _another_command(interactions: Interactions) -> None:
    _execution(interactions)["request"]["command"] += " "


def _another_key(interactions: Interactions) -> None:
    _execution(interactions)["request"]["key"] = "0" * 32


def _another_time_out(interactions: Interactions) -> None:
    _execution(interactions)["timeout"] += 1


def _another_guest(interactions: Interactions) -> None:
    _execution(interactions)["guest"] = "files"


def _another_sandbox(interactions: Interactions) -> None:
    request = interactions[1]["request"]
    request["url"] = request["url"].replace("000000000001", "000000000009")


def _another_method(interactions: Interactions) -> None:
    interactions[-1]["request"]["method"] = "POST"


def _another_label(interactions: Interactions) -> None:
    interactions[0]["request"]["body"]["labels"]["namespace"] = "other"


def _another_order(interactions: Interactions) -> None:
    interactions[1], interactions[2] = interactions[2], interactions[1]


def _one_less(interactions: Interactions) -> None:
    del interactions[-1]


def _one_more(interactions: Interactions) -> None:
    interactions.append(interactions[-1])


def _another_upload(interactions: Interactions) -> None:
    upload = next(item["request"] for item in interactions if item["request"]["url"].endswith("bulk-upload"))
    upload["body"]["uploads"][0]["sha256"] = "0" * 64


def _another_etag(interactions: Interactions) -> None:
    _with(interactions, "if-match")["headers"]["if-match"] = '"0"'


def _no_condition(interactions: Interactions) -> None:
    del _with(interactions, "if-none-match")["headers"]["if-none-match"]


def _another_mark(interactions: Interactions) -> None:
    name = "x-amz-meta-langchain-daytona-ws-calls"
    _with(interactions, name)["headers"][name] += "0"


def _another_query(interactions: Interactions) -> None:
    listing = next(item["request"] for item in interactions if "list-type=2" in item["request"]["url"])
    listing["url"] = listing["url"].replace("max-keys=", "max-keys=1")


def _a_wider_policy(interactions: Interactions) -> None:
    interactions[0]["request"]["body"]["Policy"]["Statement"][0]["Resource"] = "*"


def _another_mount(interactions: Interactions) -> None:
    _execution(interactions)["request"]["mount"]["request"]["mounts"][0]["read_only"] = True


def _no_secret(interactions: Interactions) -> None:
    del _execution(interactions)["secret"]


CHANGES = {
    "command": (
        _another_command, _another_key, _another_time_out, _another_guest, _another_sandbox, _another_method,
        _another_label, _another_order, _one_less, _one_more,
    ),
    "files": (_another_upload,),
    "s3": (_another_etag, _no_condition, _another_mark, _another_query),
    "role": (_a_wider_policy, _another_mount, _no_secret),
}  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(name, change, id=f"{name}{change.__name__}")
        for name, changes in CHANGES.items()
        for change in changes
    ],
)
@pytest.mark.one_in(3)
def test_a_replay_that_differs_fails(
    tmp_path: Path, name: str, runtime: str, change: Callable[[Interactions], None]
) -> None:
    cassette = load(RECORDED / f"{name}-{runtime}.yaml")
    change(cassette["interactions"])
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(cassette, sort_keys=False))
    with pytest.raises(AssertionError, match=r"request \d+ of \d+:|assert \["):
        replay(changed, name, is_async=RUNTIMES[runtime])


def test_the_first_difference_is_shown(tmp_path: Path) -> None:
    cassette = load(RECORDED / "command-sync.yaml")
    _execution(cassette["interactions"])["request"]["command"] = "echo something else"
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(cassette, sort_keys=False))
    with pytest.raises(
        AssertionError, match=r"request 2 of 6:(.|\n)*-.*command: echo something else\n.*\+.*echo one"
    ):
        replay(changed, "command", is_async=False)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_changed_program_needs_no_new_recording(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    monkeypatch.setattr(script, "_source", lambda program: script._packed(f"# other: {program}", level=9))
    replay(RECORDED / f"command-{runtime}.yaml", "command", is_async=RUNTIMES[runtime])
