"""The files of the project agree: workflows, make targets, supported versions of Python, changelog."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first = re.search(r"^## \[(.*?)\] - (unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert first is not None
    assert first[1] == PROJECT["version"]


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no .github")
def test_the_workflows_use_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for path in WORKFLOWS:
        for target in re.findall(r"run: make ([\w-]+)", path.read_text("utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (path.name, target)


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no .github")
def test_every_supported_python_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    prefix = "Programming Language :: Python :: "
    supported = [name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(prefix)]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == supported


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_it_is_yaml_without_secrets(path: Path) -> None:
    text = path.read_text("utf-8")
    assert yaml.safe_load(text)
    assert "{{ secrets." not in text, "the release uses trusted publishing"


def test_the_files_that_contributing_names_exist() -> None:
    package = ROOT / "langchain_daytona_ws"
    if not package.exists():
        pytest.skip("the tests of a wheel run without the package's folder")
    folders = [
        ROOT,
        package,
        package / "_core",
        package / "_core" / "s3",
        package / "_guest",
        package / "tools",
        ROOT / "tests/unit_tests",
    ]
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for name in re.findall(r"`([\w./-]+(?:\.py|/))`", text):
        assert any((folder / name).exists() for folder in folders), name
