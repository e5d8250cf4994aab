"""The public API: its names, the modules that it loads, and its documentation."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import langchain_daytona_ws

HEAVY = {"daytona", "daytona_api_client", "boto3", "botocore", "langgraph"}


def _loaded(program: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}


def _top(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


TYPE_ALIASES = {"JobState", "OnChunk", "OnOutput", "OnProgress", "OutputMode", "PermissionMode"}


def test_a_bare_import_loads_nothing_heavy() -> None:
    loaded = _top(_loaded("import langchain_daytona_ws"))
    assert loaded & (HEAVY | {"langchain_core", "pydantic", "starlette"}) == set()


def test_building_the_tools_loads_neither_daytona_nor_boto3() -> None:
    program = (
        "from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit\n"
        "s = WorkspaceSession({}, namespace='demo')\n"
        "tools = WorkspaceToolkit(session=s).get_tools()\n"
        "[(t.name, t.description, t.tool_call_schema.model_json_schema()) for t in tools]\n"
    )
    loaded = _loaded(program)
    assert _top(loaded) & HEAVY == set()
    assert not any(module.startswith("langchain_daytona_ws.local") for module in loaded)
    # These modules define many classes, which only calls need.
    names = ("files.models", "files.operations", "jobs.models", "s3.store")
    assert loaded & {f"langchain_daytona_ws._core.{name}" for name in names} == set()


@pytest.mark.parametrize(
    ("extra", "missing", "program"),
    [
        ("local", "starlette", "import langchain_daytona_ws.local"),
        ("local", "uvicorn", "from langchain_daytona_ws.local import LocalDaytona"),
        ("deepagents", "deepagents", "from langchain_daytona_ws import WorkspaceBackend"),
    ],
)
def test_an_import_without_its_extra_names_the_command_that_installs_it(
    extra: str, missing: str, program: str
) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; {program}"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(f"run pip install 'langchain-daytona-ws[{extra}]'")


def test_every_public_name_resolves_and_is_visible_to_type_checkers() -> None:
    assert langchain_daytona_ws.__all__ == sorted(langchain_daytona_ws.__all__)
    for name in langchain_daytona_ws.__all__:
        if name not in TYPE_ALIASES:
            assert getattr(langchain_daytona_ws, name).__name__ == name
    tree = ast.parse(Path(langchain_daytona_ws.__file__).read_text())
    reported = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("langchain_daytona_ws")
        for alias in node.names
    }
    assert reported == set(langchain_daytona_ws.__all__)
    # With this function, a type checker accepts every name.
    assert "__getattr__" not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    with pytest.raises(AttributeError):
        _ = langchain_daytona_ws.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted({*langchain_daytona_ws.__all__} - TYPE_ALIASES))
def test_every_public_signature_can_be_evaluated(name: str) -> None:
    public = getattr(langchain_daytona_ws, name)
    get_type_hints(public)
    for attribute, member in inspect.getmembers_static(public):
        # The function of a property or a class method.
        function = getattr(member, "fget", getattr(member, "__func__", member))
        is_public = attribute.startswith("__") or not attribute.startswith("_")
        if is_public and inspect.isfunction(function) and function.__module__.startswith("langchain_daytona"):
            get_type_hints(function)


@pytest.mark.parametrize("name", sorted({*langchain_daytona_ws.__all__} - TYPE_ALIASES))
def test_everything_public_is_documented(name: str) -> None:
    member = getattr(langchain_daytona_ws, name)
    assert inspect.getdoc(member)
    for attribute, value in vars(member).items():
        if (
            inspect.isfunction(value)
            and not attribute.startswith("_")
            and value.__qualname__.startswith(name)
        ):
            assert inspect.getdoc(value), f"{name}.{attribute}"
