"""The demo, from end to end; its package was downloaded by the set-up of `make test`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import boto3
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from rich.console import Console

from examples.demo import __main__ as demo
from examples.demo import agent, picture, storage
from examples.demo.project import BROKEN, BROKEN_FILE, DemoFailed, Package, TestRun
from examples.demo.screen import printable
from examples.demo.scripted import SCRIPT
from examples.scripted import ScriptedModel
from langchain_daytona_ws.local import LocalDaytona


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_repairs_a_real_package(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_ORGANIZATION_ID", "somebody-else")
    assert demo.main(["--yes"], console) == 0, shown(console)
    text = shown(console)
    assert "a scripted model plays the agent's part" in text
    assert text.count("May the agent do this?") == 3
    assert "+                octets.extend(reversed(res))" in text
    assert "✔ pyasn1's own tests: 1261 passed after the repair, 9 of 1261 failed before it" in text


@pytest.mark.full
def test_the_picture_of_the_readme_is_of_this_demo() -> None:
    drawn, committed = picture.draw(), picture.PICTURE.read_text("utf-8")
    assert picture.texts(drawn) == picture.texts(committed), "run make picture"


@pytest.mark.full
@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    ("option", "how"),
    [("--s3", "synchronised with every call"), ("--s3-mount", "mounted there with mount-s3")],
)
def test_it_repairs_a_real_package_on_s3(
    console: Console, monkeypatch: pytest.MonkeyPatch, option: str, how: str
) -> None:
    # Accounts in the environment are ignored, and restored afterwards.
    monkeypatch.setenv("AWS_PROFILE", "somebody-else")
    monkeypatch.setenv("SANDBOX_MOUNT_ROLE_EXTERNAL_ID", "somebody-elses")
    before = dict(os.environ)
    assert demo.main(["--yes", option], console) == 0, shown(console)
    assert dict(os.environ) == before
    text = shown(console)
    assert f"The workspace is s3://demo-workspaces/sandbox/demo/, {how}." in text
    assert (
        "The sandbox is gone; boto3 reads the repaired file from s3://demo-workspaces/sandbox/demo/pyasn1/"
        in text
    )
    assert "✔ pyasn1's own tests: 1261 passed after the repair, 9 of 1261 failed before it" in text


def test_a_file_on_s3_that_is_not_repaired_fails_it() -> None:
    with storage.own_environment(s3=True), LocalDaytona(s3=True) as server:
        storage.options_for(server, "sync")
        with contextlib.closing(boto3.client("s3", endpoint_url=server.s3_endpoint)) as s3:
            s3.put_object(Bucket=storage.BUCKET, Key=f"sandbox/demo/{BROKEN_FILE}", Body=BROKEN.encode())
        with pytest.raises(DemoFailed, match="is not repaired"):
            storage.repaired_object(server, "demo")


@pytest.mark.full
def test_an_agent_that_repairs_nothing_fails_it(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [
        turn for turn in SCRIPT if not any(call["args"].get("action") == "edit" for call in turn.tool_calls)
    ]
    monkeypatch.setattr(agent, "SCRIPT", idle)
    assert demo.main(["--yes"], console) == 1
    assert "✘ the agent changed no file with workspace_file" in shown(console)
    assert "✔" not in shown(console)


def test_without_a_terminal_it_asks_for_yes(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert demo.main([], console) == 2
    assert "make demo ARGS=--yes" in shown(console)


def test_an_unavailable_model_is_reported_in_one_message(console: Console) -> None:
    assert demo.main(["--yes", "--model", "nobody:nothing"], console) == 1
    assert "the model nobody:nothing is not available" in shown(console)


def test_a_missing_download_names_the_command(
    console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr("examples.demo.project.DOWNLOADS", tmp_path)
    with pytest.raises(DemoFailed, match="run the demo with `make demo`"):
        Package.pinned()


def test_another_archive_than_the_pinned_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = Package.pinned()
    (tmp_path / f"{package.name}-{package.version}.tar.gz").write_bytes(b"something else")
    monkeypatch.setattr("examples.demo.project.DOWNLOADS", tmp_path)
    with pytest.raises(DemoFailed, match="is not the pinned archive"):
        Package.pinned()


@pytest.mark.parametrize(
    ("output", "run"),
    [
        ("...\nRan 12 tests in 0.1s\n\nOK\n", TestRun(12, 0)),
        ("Ran 1 test in 0.1s\n\nOK (skipped=1)\n", TestRun(1, 0)),
        ("Ran 12 tests in 0.1s\n\nFAILED (failures=2, errors=1, skipped=4)\n", TestRun(12, 3)),
        ("Ran 12 tests in 0.1s\n\nFAILED (unexpected successes=1)\n", TestRun(12, 1)),
        ("python3: command not found\n", None),
        ("OK\n", None),
    ],
)
def test_the_result_of_a_test_run_is_parsed(output: str, run: TestRun | None) -> None:
    assert TestRun.read(output) == run


def good_record() -> agent.WorkRecord:
    record = agent.WorkRecord([TestRun(10, 1)])
    record.changes = 1
    return record


def test_the_check_accepts_a_good_record() -> None:
    good_record().check(TestRun(10, 0), tests_unchanged=True)


@pytest.mark.parametrize(
    ("runs", "changes", "final", "tests_unchanged", "message"),
    [
        ([], 1, TestRun(10, 0), True, "did not show the planted bug"),
        ([TestRun(10, 0)], 1, TestRun(10, 0), True, "did not show the planted bug"),
        ([TestRun(10, 1)], 0, TestRun(10, 0), True, "changed no file"),
        ([TestRun(10, 1)], 1, TestRun(10, 0), False, "changed the package's tests"),
        ([TestRun(10, 1)], 1, TestRun(10, 1), True, "not green"),
        ([TestRun(10, 1)], 1, TestRun(9, 0), True, "not green"),
    ],
)
def test_the_check_refuses_other_records(runs, changes, final, tests_unchanged, message) -> None:
    record = agent.WorkRecord(runs)
    record.changes = changes
    with pytest.raises(DemoFailed, match=message):
        record.check(final, tests_unchanged=tests_unchanged)


def test_the_scripted_model_follows_its_script() -> None:
    model = ScriptedModel(script=SCRIPT)
    first = model.invoke([HumanMessage("anything")])
    assert first.tool_calls[0]["name"] == "bash"
    assert model.invoke([HumanMessage("anything")]).tool_calls[0]["id"] != first.tool_calls[0]["id"]
    last = model.invoke([HumanMessage("anything"), *[AIMessage("")] * 20])
    assert not last.tool_calls


def test_control_characters_are_escaped() -> None:
    assert printable("a\tb\x1b[2Jc\u202ed\n") == "a       b\\x1b[2Jc\\u202ed\n"
