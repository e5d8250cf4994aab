"""The notebooks in examples/ run, and what they are committed with is what they print."""

from __future__ import annotations

import ast
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from examples import run
from examples.run import FOLDER, NOTEBOOKS, NotebookFailed, execute
from langchain_daytona_ws import SandboxConfig
from langchain_daytona_ws.local import LocalDaytona

# Texts that reveal the machine, the time or the account.
PRIVATE = re.compile(
    r"/root\b|/home/|/Users/|/tmp/\w|127\.0\.0\.1|localhost|dtn_|0x[0-9a-f]{6}|20\d\d-\d\d-\d\dT|[0-9a-f]{8}-[0-9a-f]{4}-"
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use one folder for all temporary files, so that leaks are found."""
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        os.chmod(folder, 0o711)  # the users of the sandboxes pass through it
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


def outputs(notebook: Any) -> list[Any]:
    return [(cell.id, cell.get("execution_count"), cell.get("outputs")) for cell in notebook.cells]


@pytest.mark.parametrize(
    "path", [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.full) for path in NOTEBOOKS[1:])],
    ids=[path.stem for path in NOTEBOOKS],
)  # fmt: skip
def test_a_notebook_prints_its_committed_output(path: Path, temporary: Path) -> None:
    before = path.read_bytes()
    fresh = execute(path)
    assert outputs(fresh) == outputs(nbformat.read(path, as_version=4)), "run `make examples`"
    assert path.read_bytes() == before
    assert list(temporary.iterdir()) == [], "the kernel or its local server did not end by itself"


def changed(path: Path) -> Any:
    """Return the notebook with the two statements put in that its second cell gives for a real account."""
    notebook = nbformat.read(path, as_version=4)
    about, start = notebook.cells[1:3]
    (instead,) = re.findall(r"^```python\n(.*?)^```$", about.source, re.MULTILINE | re.DOTALL)
    first, *_, made, message = ast.parse(start.source).body
    assert isinstance(first, ast.ImportFrom)
    assert ast.unparse(made).startswith("server = LocalDaytona(")
    assert isinstance(message, ast.Assign)
    assert isinstance(message.targets[0], ast.Name)
    assert ast.unparse(ast.parse(instead).body[0]).startswith(f"{message.targets[0].id} = ")
    start.source = instead
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_two_statements_are_all_there_is_to_change(path: Path) -> None:
    notebook = changed(path)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    named = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert not named & {"server", "LocalDaytona"}
    there: dict[str, Any] = {}
    exec(notebook.cells[2].source, there)
    SandboxConfig.model_validate(there.get("config", {"options": there.get("options")}))


@pytest.mark.full
def test_with_these_two_changed_it_runs_on_an_account(tmp_path: Path) -> None:
    notebook = changed(FOLDER / "01_quickstart.ipynb")
    with LocalDaytona() as account:
        given = {"DAYTONA_API_URL": account.api_url, "DAYTONA_API_KEY": account.api_key}
        start = notebook.cells[2]
        start.source = f"import os\nos.environ.update({given})\n{start.source}"
        path = tmp_path / "01_quickstart.ipynb"
        nbformat.write(notebook, path)
        (tmp_path / "scripted.py").symlink_to(FOLDER / "scripted.py")
        fresh = execute(path)
        assert account.count("create") == 1
        assert account.sandboxes == []
    assert outputs(fresh) == outputs(nbformat.read(FOLDER / path.name, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook, indent=1) + "\n"
    assert notebook.metadata == run._METADATA
    assert not PRIVATE.search(str(outputs(notebook)))
    message = notebook.cells[0].source
    assert message.startswith(f"# {int(path.name[:2])}. ")
    for part in ("**Shows:**", "**Takes**", "**Needs**"):
        assert part in message


def test_the_table_names_them_all() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d\d_\w+\.ipynb)\)", table) == [path.name for path in NOTEBOOKS]
    assert [path.name[:2] for path in NOTEBOOKS] == [
        f"{number:02}" for number in range(1, len(NOTEBOOKS) + 1)
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sys\nprint('oh', file=sys.stderr)", "wrote to standard error:\noh"),
        ("1 / 0", "ZeroDivisionError"),
        ("assert input('y? ')", "StdinNotImplementedError"),
    ],
)
@pytest.mark.one_in(3)
def test_a_cell_that_fails_fails_the_notebook(
    source: str, expected: str, tmp_path: Path, temporary: Path
) -> None:
    start = "from langchain_daytona_ws.local import LocalDaytona\nserver = LocalDaytona().start()"
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(start), new_code_cell(source)]), path)
    before = path.read_bytes()
    with pytest.raises(NotebookFailed, match=re.escape(expected)):
        execute(path)
    assert path.read_bytes() == before
    assert list(temporary.iterdir()) == []


def test_the_environments_accounts_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAYTONA_API_KEY", "AWS_PROFILE", "SANDBOX_MOUNT_ROLE_ARN", "FILESYSTEM_BUCKET_NAME"):
        monkeypatch.setenv(name, "somebody-elses")
    path = tmp_path / "01_environment.ipynb"
    source = "import os\n[name for name, value in os.environ.items() if value == 'somebody-elses']"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    assert execute(path).cells[0].outputs[0].data["text/plain"] == "[]"


def test_it_writes_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item, other = tmp_path / "01_one.ipynb", tmp_path / "02_other.ipynb"
    for path in (item, other):
        nbformat.write(new_notebook(cells=[new_code_cell("print(6 * 7)")]), path)
    monkeypatch.setattr(run, "NOTEBOOKS", [item, other])
    assert run.main(["02"]) == 0
    assert re.fullmatch(r"02_other\.ipynb \.\.\. \d+ s\n", capsys.readouterr().out)
    assert not nbformat.read(item, as_version=4).cells[0].outputs
    assert nbformat.read(other, as_version=4).cells[0].outputs[0].text == "42\n"
    written = other.read_bytes()
    assert run.main(["02"]) == 0
    assert other.read_bytes() == written
    assert run.main(["12"]) == 2
    assert "No notebook begins with 12." in capsys.readouterr().err


def test_a_failure_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    monkeypatch.setattr(run, "NOTEBOOKS", [path])
    assert run.main([]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
