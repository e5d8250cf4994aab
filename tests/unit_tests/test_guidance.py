"""The guidance for an agent about its workspace."""

from __future__ import annotations

from typing import Literal

import pytest

from langchain_daytona_ws._core.hints.guidance import LOCAL_CACHES, S3_BASH_LINES, guidance


def test_the_lines_for_the_tool_are_few_and_formatted_like_the_others() -> None:
    assert S3_BASH_LINES.startswith("- ")
    assert not S3_BASH_LINES.endswith("\n")
    # A token is about four characters of English; the names and signs in here are shorter.
    assert len(S3_BASH_LINES) <= 370
    for word in (
        "Logs",
        "cuts it off",
        "mv",
        ">>",
        "sed -i",
        "chmod",
        "git init",
        "venv",
        "SQLite",
        "zip",
        "/tmp",
    ):
        assert word in S3_BASH_LINES


def test_s3() -> None:
    text = guidance(s3_mode="mount", skills_path="/mnt/skills", file_access="s3")
    for message in (
        "relative paths",
        "S3",
        "/tmp",
        "lost with",
        "closed",
        "logs under /tmp",
        "never overwrite",
        "/mnt/skills",
        "read-only",
    ):
        assert message in text
    assert len(text) <= 1300


def test_the_guarantee_is_promised_only_where_it_holds() -> None:
    text = guidance(s3_mode="mount", skills_path=None, file_access="sandbox")
    assert "never overwrite" not in text
    assert "neither bash nor workspace_file" in text


@pytest.mark.parametrize("file_access", ["s3", "sandbox"])
def test_a_synchronised_directory_has_one_line_about_saving(file_access: str) -> None:
    text = guidance(s3_mode="sync", skills_path=None, file_access=file_access)
    assert "relative paths" in text
    assert "saved when each call returns" in text
    assert len(text.splitlines()) == 3
    for message in ("S3", "mv", "cp ", "git", "skills", "agent"):
        assert message not in text


@pytest.mark.parametrize("file_access", ["s3", "sandbox"])
def test_an_ordinary_directory(file_access: str) -> None:
    text = guidance(s3_mode=None, skills_path=None, file_access=file_access)
    assert "relative paths" in text
    assert "lost with it" in text
    for message in ("S3", "mv", "skills", "Skills", "agent"):
        assert message not in text
    assert len(text) <= 250


@pytest.mark.parametrize("s3_mode", ["mount", "sync", None])
@pytest.mark.parametrize("file_access", ["s3", "sandbox"])
def test_a_deep_agent_is_told_of_its_own_tools_and_of_absolute_paths(
    s3_mode: Literal["mount", "sync"] | None, file_access: str
) -> None:
    text = guidance(
        s3_mode=s3_mode,
        skills_path="/mnt/skills",
        file_access=file_access,
        deep_agent_in="/mnt/workspaces/demo",
    )
    assert "/mnt/workspaces/demo/" in text
    assert "absolute paths" in text
    assert "edit_file" in text or s3_mode != "mount"
    for message in ("relative", "workspace_file", "bash,", "bash may", "nor bash", "with bash", "{"):
        assert message not in text


def test_skills_without_s3() -> None:
    assert "/opt/skills, read-only" in guidance(s3_mode=None, skills_path="/opt/skills", file_access="s3")


@pytest.mark.parametrize("s3_mode", ["mount", "sync", None])
def test_it_is_a_list_of_single_lines(s3_mode: Literal["mount", "sync"] | None) -> None:
    first, *lines = guidance(s3_mode=s3_mode, skills_path="/mnt/skills", file_access="s3").split("\n")
    assert first == "The workspace:"
    assert all(line.startswith("- ") and line.endswith(".") for line in lines)


def test_caches_are_on_local_disk_and_apart() -> None:
    paths = [value.rpartition("=")[2] for value in LOCAL_CACHES.values()]
    assert all(location.startswith("/tmp/") for location in paths)
    assert len(set(paths)) == len(paths)
    assert not any(" " in location or "'" in location for location in paths)
