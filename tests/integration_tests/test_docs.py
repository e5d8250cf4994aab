"""The examples of the README and of docs/ run, and their tables and quotations agree with the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
import signal
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
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def examples(language: str) -> list[Any]:
    return [
        pytest.param(code, id=f"{name_of(page)}, example {number}")
        for page in PAGES
        for number, code in enumerate(blocks(page, language), 1)
    ]


def text_of(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def between_markers(name: str, marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n(.*?)\n<!-- /{marker} -->", text_of(name), re.DOTALL)
    assert found is not None
    return found[1]


class CallsOnce(GenericFakeChatModel):
    """Calls the command tool of the example's agent once, and then answers."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> CallsOnce:
        names = [tool.name for tool in tools]
        assert "execute" in names or names == ["bash", "workspace_file", "bash_job"]
        self._call["name"] = "execute" if "execute" in names else "bash"
        return self

    _call: ToolCall = PrivateAttr()


def model_that_calls_once() -> CallsOnce:
    call = ToolCall(name="bash", args={"command": "python3 --version"}, id="call-1")
    answers: Iterator[AIMessage] = cycle(
        [AIMessage("", tool_calls=[call]), AIMessage("The one that python3 is.")]
    )
    made = CallsOnce(messages=answers)
    made._call = call
    return made


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200


@pytest.fixture
def account(server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalDaytona]:
    """Set the environment of an account on the local server, and an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYTONA_API_URL", server.api_url)
    monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
    for name in ("DAYTONA_TARGET", "DAYTONA_ORGANIZATION_ID"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield server
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("code", examples("python"))
def test_an_example_runs(
    code: str, request: pytest.FixtureRequest, account: LocalDaytona, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = compile(code, request.node.callspec.id, "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compiled, {"__name__": "example", "model": model_that_calls_once()})
    assert capsys.readouterr().out.strip()
    assert account.sandboxes == [], "the example leaves a sandbox behind"


@pytest.mark.usefixtures("account")
def test_the_quickstart_shows_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks(DOCS / "quickstart.md", "python")[1], {"__name__": "example"})
    output = capsys.readouterr().out
    assert "workspace_file write: hello.py" in output
    assert "+print('hello')" in output
    assert output.endswith("bash: python3 hello.py; exit 3\nhello\n[exit code 3]\n")


@pytest.mark.parametrize("text", examples("json"))
def test_json_examples_are_valid(text: str) -> None:
    document = json.loads(text)
    if "options" in document:
        SandboxConfig.model_validate(document)


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
    expected = configuration_table()
    found = between_markers("configuration.md", "configuration")
    assert found == expected, f"put this between the two comments:\n{expected}"


def test_the_permission_table_is_the_code() -> None:
    row = r"^\| (`(?:workspace_file|bash|bash_job|preview_url)`[^|]*) \| (.*) \|$"
    table = dict(re.findall(row, text_of("permissions.md"), re.MULTILINE))
    assert len(table) == 6
    documented: dict[tuple[str, str], list[str]] = {}
    for heading, answers in table.items():
        tool, _, actions = heading.replace("`", "").partition(": ")
        unnamed = "open" if tool == "preview_url" else "run"
        for action in actions.split(", ") if actions else [unnamed]:
            documented[tool, action] = answers.split(" | ")
    assert set(documented) == {
        *(
            ("workspace_file", action)
            for action in ("read", "list", "glob", "grep", "write", "edit", "delete")
        ),
        ("bash", "run"),
        ("preview_url", "open"),
        *(("bash_job", action) for action in ("status", "logs", "list", "stop")),
    }
    for (tool, action), answers in documented.items():
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    # The badge of a workflow is an address on GitHub.
    for target in re.findall(r"\]\((?!https?://|\.\./\.\./actions/)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md"], ids=name_of
)
def test_the_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(
        r"^make ([a-z][\w-]*)|`make ([a-z][\w-]*)", page.read_text("utf-8"), re.MULTILINE
    ):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_the_api_reference_has_every_public_name() -> None:
    documented = set(re.findall(r"^::: langchain_daytona_ws\.(\w+)$", text_of("api.md"), re.MULTILINE))
    assert documented == set(langchain_daytona_ws.__all__)


def texts_of_the_code() -> tuple[str, set[str]]:
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
    table = between_markers("troubleshooting.md", "troubleshooting")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert len(rows) > 10
    texts, constants = texts_of_the_code()
    for read, code, _ in rows:
        for part in re.findall("`(.*?)`", read)[0].split("..."):
            assert part.strip() in texts, read
        if "`" in code:
            name = code.strip("`")
            examples = {"mount_...": "mount_refused", "sync_...": "sync_too_large"}
            assert examples.get(name, name) in constants, code
