"""Findings of a diagnosis: about the sandbox, about clocks, about S3's answers; without secrets."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from langchain_daytona_ws._core.doctor import s3, sandbox
from langchain_daytona_ws._core.doctor.clock import judge_clock, off_by_s
from langchain_daytona_ws._core.doctor.finding import (
    WITHHELD,
    Finding,
    Status,
    any_failed,
    failed,
    from_error,
    from_fault,
    ok,
)
from langchain_daytona_ws._core.doctor.settings import judge_settings
from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ProvisionError

NONCE = "facts0123456789abcdef"
WELL = {
    "bash": "GNU bash, version 5.2.15(1)-release",
    "python3": "3.11.2",
    "node": "v20.20.2",
    "rg": "ripgrep 13.0.0",
    "grep": "grep (GNU grep) 3.8",
    "git": "git version 2.39.5",
    "mount-s3": "mount-s3 1.24.0",
    "fuse": "there",
    "uid": "1000",
    "user": "agent",
    "helper": "there",
    "time": "1000",
}


def judged(*, on_s3: bool = True, without: tuple[str, ...] = (), **changes: str) -> dict[str, Finding]:
    facts = {name: text for name, text in {**WELL, **changes}.items() if name not in without}
    found = sandbox.judge_sandbox(facts, is_mounted=on_s3, before_s=1000.0, after_s=1001.0)
    return {finding.check: finding for finding in found}


class TestASandbox:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "sh"])
    def test_tells_what_it_has_in_any_shell(self, shell: str) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"there is no {shell}")
        before_s = time.time()
        done = subprocess.run(
            [program], input=sandbox.facts_script(NONCE), capture_output=True, text=True, check=True
        )
        facts = sandbox.read_facts(done.stdout, NONCE)
        assert done.stderr == ""
        assert facts["bash"].startswith("GNU bash, version ")
        assert facts["python3"].startswith("3.")
        assert facts["uid"].isdigit()
        assert int(before_s) <= int(facts["time"]) <= time.time()

    @pytest.mark.parametrize("shell", ["bash", "zsh", "dash"])
    def test_without_programs_says_nothing_of_them(self, shell: str, tmp_path: Path) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"there is no {shell}")
        for name in ("head", "id", "date"):
            tmp_path.joinpath(name).symlink_to(str(shutil.which(name)))
        tmp_path.joinpath("python3").write_text("#!/bin/sh\necho 3.7.17\necho more\n")
        tmp_path.joinpath("python3").chmod(0o755)
        done = subprocess.run(
            [program],
            input=sandbox.facts_script(NONCE),
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": str(tmp_path)},
        )
        facts = sandbox.read_facts(done.stdout, NONCE)
        assert facts["python3"] == "3.7.17"
        assert not {"bash", "node", "rg", "grep", "git", "mount-s3", "sudo"} & set(facts)

    def test_that_has_everything(self) -> None:
        assert {item.status for item in judged().values()} == {Status.OK}
        assert list(judged()) == list(sandbox.CHECKS) == list(judged(on_s3=False))

    @pytest.mark.parametrize(
        ("without", "check", "status"),
        [
            (("bash",), "bash", Status.FAILED),
            (("python3",), "python", Status.FAILED),
            (("node",), "node", Status.FAILED),
            (("rg",), "search", Status.WARNING),
            (("rg", "grep"), "search", Status.FAILED),
            (("git",), "git", Status.WARNING),
            (("mount-s3",), "mount-s3", Status.FAILED),
            (("fuse",), "fuse", Status.FAILED),
            (("helper",), "user", Status.FAILED),
            (("time",), "sandbox-clock", Status.WARNING),
        ],
    )
    def test_that_lacks_something(self, without: tuple[str, ...], check: str, status: Status) -> None:
        findings = judged(without=without)
        assert findings[check].status is status
        assert findings[check].remedy
        assert {item.check for item in findings.values() if item.status is not Status.OK} == {check}

    @pytest.mark.parametrize(
        ("version", "status"),
        [
            ("3.8.0", Status.OK),
            ("3.14.1", Status.OK),
            ("4.0", Status.OK),
            ("3.7.17", Status.FAILED),
            ("2.7.18", Status.FAILED),
            ("", Status.FAILED),
            ("None", Status.FAILED),
        ],
    )
    def test_needs_a_python_that_is_new_enough(self, version: str, status: Status) -> None:
        assert judged(python3=version)["python"].status is status

    def test_without_s3_needs_nothing_to_mount(self) -> None:
        findings = judged(on_s3=False, without=("mount-s3", "fuse", "helper"))
        assert not any_failed(findings.values())
        assert findings["fuse"].status is Status.SKIPPED

    @pytest.mark.parametrize("changes", [{"uid": "0", "user": "root"}, {"sudo": "general"}])
    def test_whose_user_may_do_anything_hides_nothing(self, changes: dict[str, str]) -> None:
        finding = judged(**changes)["user"]
        assert finding.status is Status.WARNING
        for expected in ("prevents accidents only", "session policy", "expiry"):
            assert expected in finding.found

    def test_with_a_clock_of_its_own(self) -> None:
        assert judged(time="1090")["sandbox-clock"].status is Status.WARNING
        assert judged(time="9999")["sandbox-clock"].status is Status.FAILED
        assert judged(time="9" * 400)["sandbox-clock"].status is Status.WARNING
        assert judged(time="٣")["sandbox-clock"].status is Status.WARNING

    def test_may_print_anything(self) -> None:
        printed = "\n".join(
            [
                "bash=not ours",
                f"{NONCE} bash=first",
                f"{NONCE} bash=second",
                f"{NONCE} node=\x1b[31mred\x1b[0m\u202e",
                f"{NONCE} BAD=x",
                f"{NONCE} git",
                f"{NONCE} rg={'x' * 1000}",
                f"{NONCE}x uid=0",
            ]
        )
        facts = sandbox.read_facts(printed, NONCE)
        assert facts["bash"] == "first"
        assert facts["node"].isprintable()
        assert len(facts["rg"]) == sandbox.LONGEST
        assert set(facts) == {"bash", "node", "rg"}


class TestClocks:
    @pytest.mark.parametrize(
        ("reported", "off"),
        [(100.0, 0.0), (104.0, 0.0), (110.0, 5.0), (99.5, 0.0), (90.0, -9.0)],
    )
    def test_are_off_by_what_no_delay_explains(self, reported: float, off: float) -> None:
        assert off_by_s(reported, 100.0, 105.0) == off

    @pytest.mark.parametrize(
        ("off", "status"),
        [
            (0.0, Status.OK), (59.0, Status.OK), (-59.0, Status.OK), (61.0, Status.WARNING),
            (-61.0, Status.WARNING), (300.0, Status.WARNING), (301.0, Status.FAILED), (-301.0, Status.FAILED),
        ],
    )  # fmt: skip
    def test_may_be_a_little_off(self, off: float, status: Status) -> None:
        finding = judge_clock("clock", "its", off, "set it")
        assert finding.status is status
        assert (finding.remedy == "set it") == (status is not Status.OK)

    def test_say_which_way(self) -> None:
        assert "70 s ahead of" in judge_clock("clock", "its", 70.0, "").found
        assert "70 s behind" in judge_clock("clock", "its", -70.0, "").found


class TestAFinding:
    def test_holds_no_secret(self) -> None:
        finding = failed("bash", "it said longer-secret and secret!", "do secret!", "code")
        clean = finding.without({"secret!", "longer-secret", "said", ""})
        assert clean.found == f"it said {WITHHELD} and {WITHHELD}"
        assert clean.remedy == f"do {WITHHELD}"
        assert (clean.check, clean.status, clean.code) == ("bash", Status.FAILED, "code")

    def test_of_an_error_has_its_code(self) -> None:
        finding = from_error("sandbox", ProvisionError("No. Do this.", code="no"))
        assert (finding.found, finding.code, finding.status) == ("No. Do this.", "no", Status.FAILED)

    @pytest.mark.parametrize(
        ("fault", "code", "expected"),
        [
            (PortFault(FaultKind.UNAUTHORIZED, "401"), "unauthorized", "DAYTONA_API_KEY"),
            (PortFault(FaultKind.REFUSED, "the key is expired"), "api_key_expired", "new API key"),
            (PortFault(FaultKind.REFUSED, "no"), "refused", "states why Daytona refused"),
        ],
    )
    def test_of_a_fault_has_a_remedy(self, fault: PortFault, code: str, expected: str) -> None:
        finding = from_fault("api", "it did not answer", fault)
        assert finding.code == code
        assert expected in finding.remedy
        assert finding.found == f"it did not answer: {fault.message}"

    def test_settings_are_judged_as_a_whole(self) -> None:
        options = {
            "apiKey": "key",
            "mountAwsS3Buckets": True,
            "workspaceBucketName": "b-1",
            "awsRegion": "x-1",
        }
        findings = judge_settings(SandboxConfig.model_validate({"options": options}), "-no")
        assert [item.code for item in findings] == ["namespace", "credentials_missing"]


def test_s3s_answers_have_remedies() -> None:
    findings = [
        s3.content_differs(),
        s3.condition_ignored("If-Match"),
        s3.unexpected_object(),
        s3.missing_is_forbidden(lists_below=True, has_role=True),
        s3.missing_is_forbidden(lists_below=True, has_role=False),
        s3.missing_is_forbidden(lists_below=False, has_role=True),
        s3.boundary("read", has_role=True),
        s3.boundary(None, has_role=False),
        s3.given_keys(has_token=True),
    ]
    assert all(item.remedy for item in findings)
    assert [item.status for item in findings] == [Status.FAILED] * 7 + [Status.WARNING] * 2
    assert s3.boundary(None, has_role=True) == ok("s3-boundary", "another namespace's prefix is refused")
