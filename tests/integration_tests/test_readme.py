"""The README's examples run, and its lists are complete."""

from __future__ import annotations

import ast
import inspect
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from pydantic import PrivateAttr

import langchain_daytona_ws
from langchain_daytona_ws import CommandRefused, SandboxConfig, WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from langchain_daytona_ws.permissions import needs_approval

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class GuestClient(GenericFakeChatModel):
    """Calls the tool that the README's agents need, by the name that it has for them, and answers."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> GuestClient:
        names = [tool.name for tool in tools]
        assert "execute" in names or names == ["bash", "workspace_file", "bash_job"]
        self._call["name"] = "execute" if "execute" in names else "bash"
        return self

    _call: ToolCall = PrivateAttr()


def caller() -> GuestClient:
    call = ToolCall(name="bash", args={"command": "python3 --version"}, id="call-1")
    answers: Iterator[AIMessage] = cycle(
        [AIMessage("", tool_calls=[call]), AIMessage("The one that python3 is.")]
    )
    made = GuestClient(messages=answers)
    made._call = call
    return made


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(
    number: int,
    server: LocalDaytona,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # one records a cassette
    monkeypatch.setenv("DAYTONA_API_URL", server.api_url)
    monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
    for name in ("DAYTONA_TARGET", "DAYTONA_ORGANIZATION_ID"):
        monkeypatch.delenv(name, raising=False)
    code = compile(BLOCKS[number], f"README.md, example {number + 1}", "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, {"__name__": "example", "model": caller()})
    assert capsys.readouterr().out.strip()
    assert server.sandboxes == [], "the example leaves a sandbox behind"


def test_the_first_example_shows_what_is_asked(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", server.api_url)
    monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
    exec(BLOCKS[0], {"__name__": "example"})
    said = capsys.readouterr().out
    assert "workspace_file write: hello.py" in said
    assert "+print('hello')" in said
    assert said.endswith("bash: python3 hello.py; exit 3\nhello\n[exit code 3]\n")


def shown_default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default in (None, []) else f"`{json.dumps(default)}`"


def rows(definitions: dict[str, Any], model: str, prefix: str = "") -> Iterator[str]:
    required = definitions[model].get("required", ())
    for key, schema in definitions[model]["properties"].items():
        path = prefix + key
        inner = [part["$ref"] for part in (schema, *schema.get("anyOf", ())) if "$ref" in part]
        if inner:
            if "description" in schema:
                yield f"| `{path}` | | | {schema['description']} |"
            yield from rows(definitions, inner[0].rpartition("/")[2], f"{path}.")
            continue
        default = "required in `" + prefix.rstrip(".") + "`" if key in required else shown_default(schema)
        named = schema.get("x-env", [])
        variables = ", ".join(f"`{name}`" for name in ([named] if isinstance(named, str) else named))
        yield f"| `{path}` | {default} | {variables} | {schema['description']} |"


def configuration_table() -> str:
    definitions = SandboxConfig.model_json_schema()["$defs"]
    head = ["| key | default | environment | meaning |", "|---|---|---|---|"]
    return (
        "\n".join([*head, *rows(definitions, "SandboxConfig")]).replace("|  |", "| |").replace("|  |", "| |")
    )


def test_the_configuration_table_is_the_schema() -> None:
    found = re.search(r"<!-- configuration -->\n(.*?)\n<!-- /configuration -->", README, re.DOTALL)
    expected = configuration_table()
    assert found is not None
    assert found[1] == expected, f"put this between the two comments:\n{expected}"


def test_the_permission_table_is_the_code() -> None:
    table = dict(
        re.findall(r"^\| (`(?:workspace_file|bash|bash_job)`[^|]*) \| (.*) \|$", README, re.MULTILINE)
    )
    assert len(table) == 5
    said: dict[tuple[str, str], list[str]] = {}
    for what, answers in table.items():
        tool, _, actions = what.replace("`", "").partition(": ")
        for action in actions.split(", ") if actions else ["run"]:
            said[tool, action] = answers.split(" | ")
    assert set(said) == {
        *(
            ("workspace_file", action)
            for action in ("read", "list", "glob", "grep", "write", "edit", "delete")
        ),
        ("bash", "run"),
        *(("bash_job", action) for action in ("status", "logs", "list", "stop")),
    }
    for (tool, action), answers in said.items():
        modes = [
            "asks" if needs_approval(mode, tool, action) else "runs" for mode in ("ask", "edit", "bypass")
        ]
        assert answers == modes, (tool, action)


def test_the_limits_are_those_of_the_code(server: LocalDaytona) -> None:
    assert inspect.signature(WorkspaceSession).parameters["approval_timeout_s"].default == 3600
    options = {"apiUrl": server.api_url, "apiKey": server.api_key}
    with WorkspaceSession({"options": options}, namespace="limits") as session:
        with pytest.raises(CommandRefused, match="at most 600 seconds"):
            session.run("true", timeout_s=601)
        with pytest.raises(CommandRefused, match="1,048,576"):
            session.run("#" * (1 << 20) + "#")
        assert session.run("true", timeout_s=600).exit_code == 0
        (sandbox,) = server.sandboxes
        assert (sandbox.auto_stop_interval, sandbox.auto_delete_interval) == (15, 0)
        assert sandbox.ttl_minutes == 24 * 60


def test_its_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def said_in_the_code() -> tuple[str, set[str]]:
    """Return all text of the package's string constants, f-strings with ``...`` for their parts, and the constants."""
    texts: list[str] = []
    constants: set[str] = set()
    for module in Path(langchain_daytona_ws.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
                constants.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                texts.append("".join(map(str, parts)))
    return "\n".join(texts).replace(".*", "...").replace("[Nn]", "N"), constants


def test_the_troubleshooting_table_quotes_the_code() -> None:
    found = re.search(r"<!-- troubleshooting -->\n(.*?)\n<!-- /troubleshooting -->", README, re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()[2:]]
    assert len(rows) > 10
    texts, constants = said_in_the_code()
    for read, code, _ in rows:
        for words in re.findall("`(.*?)`", read)[0].split("..."):
            assert words.strip() in texts, read
        if "`" in code:
            name = code.strip("`")
            assert name in constants or (name == "mount_..." and "mount_refused" in constants), code
