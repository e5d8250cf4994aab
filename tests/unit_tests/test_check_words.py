"""The check of words: its rules on sentences, and what it reads of Python, Markdown and notebooks."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/check_words.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check_words = _loaded()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(capsys: pytest.CaptureFixture[str], name: str, text: str) -> list[str]:
    """Return the findings of a file with this text, as line and words."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    status = check_words.main([name])
    lines = capsys.readouterr().out.splitlines()
    assert bool(lines) == bool(status)
    return [":".join(line.split(":")[1:3]).strip() for line in lines[:-1]]


@pytest.mark.parametrize(
    "sentence",
    [
        "What goes wrong comes back as a tool message.",
        "Parallel edits of one file take turns; a command that writes it takes none.",
        "Where ten are running, it is killed as ever, and the result says so.",
        "A look that fails harms nothing, and one that hangs is left behind.",
        "Nobody asks: a command stays one request.",
        "An upload goes to a file, whence it is written in its turn.",
        "One of the two faces, sync or async.",
        "Take note that the sandbox runs again, whichever of several calls finds it so.",
        "Do what makes the machine ready.",
        "Change one object for certain, or not at all.",
        "Ask whoever was appointed, and let through what the model does.",
        "What goes along with each call.",
        "Give the SDK's client.",
        "Let nothing through but reads.",
        "A keyring, for the async side.",
    ],
)
def test_sentences_of_the_five_patterns_are_found(
    folder: Path, capsys: pytest.CaptureFixture[str], sentence: str
) -> None:
    assert checked(capsys, "a.py", f'"""{sentence}"""\n')


@pytest.mark.parametrize(
    "sentence",
    [
        "Failures are returned with a suggested fix; the graph keeps running.",
        "Edits of one file are serialised; writes by bash are not.",
        "If the sandbox stops, its jobs become lost and no longer count towards the limit of 10.",
        "If ten jobs already run, the command is killed at its time-out, and the result says why.",
        "Polling errors never affect the command; a hung poll is abandoned one second after its end.",
        "Without a listener there is no polling: one request per command.",
        "Uploads go to a temporary file first and are then copied into place.",
        "The sync or async entry point of a session; both run the same coroutines.",
        "Record a restart once, even if several calls detect it.",
        "Run set-up work without charging it to the call's deadline.",
        "Apply one change exactly once. If the reply is lost, read the object.",
        "Ask the approver before a tool call, then allow, edit or deny it.",
        "Return None if the file does not exist, and the word after the name otherwise.",
        "Do not retry: the last one is the one that S3 has applied.",
        "Left and right side of the diff, placed beneath each other.",
    ],
)
def test_plain_sentences_pass(folder: Path, capsys: pytest.CaptureFixture[str], sentence: str) -> None:
    assert checked(capsys, "a.py", f'"""{sentence}"""\n') == []


def test_a_phrase_over_two_lines_is_reported_at_its_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "x = 1\n\n# The store writes it in\n# its turn.\ny = 2  # till the end\n"
    assert checked(capsys, "a.py", text) == ["3: in its turn", "5: till"]
    assert checked(capsys, "a.py", '"""Fine.\n\nWritten in\n    its turn.\n"""\n') == ["3: in its turn"]


def test_openings_are_those_of_docstrings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'def f():\n    """Give it."""\n    # Give it.\n\n\nclass A:\n    """Takes it."""\n'
    assert checked(capsys, "a.py", text) == ["2: Give", "7: Takes"]


def test_code_in_prose_is_not_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "a.py", '"""Call ``file.tell()`` and `nobody`.\n\n>>> f.tell()\n"""\n') == []
    text = "Plain, [a link](beside.md) <!-- nobody -->\n\n```\nanew\n```\n\n- ~~~\n  till\n  ~~~\n\nanew\n"
    assert checked(capsys, "a.md", text) == ["11: anew"]


def test_paragraphs_are_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "a.md", "It is written in\n\nits turn.\n") == []


def test_names_are_checked_where_they_are_bound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "import a as keyring\n"
        "from b import luggage\n"
        "class ThreadAside: pass\n"
        "def _tell(words, *, limit): return luggage\n"
        "self.first_told = [one for one in ()]\n"
        "def test_nobody_is_told(): one_line = place_of = 1\n"
    )
    assert checked(capsys, "a.py", text) == [
        "1: keyring", "3: ThreadAside", "4: _tell", "4: words", "5: first_told", "5: one", "6: place_of",
    ]  # fmt: skip
    assert checked(capsys, "aside.py", "") == ["1: aside"]


def test_messages_are_checked_but_for_those_of_tests(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        'raise ValueError("it would be made anew here")\nx = "made anew"\ny = "Nothing ran. Tell the user."\n'
    )
    assert checked(capsys, "package/a.py", text) == ["1: anew"]
    assert checked(capsys, "tests/a.py", text) == []


def test_notebooks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["Plain.\n", "Made anew."]},
        {"cell_type": "code", "source": ["# Ask nobody.\n", "tell = 'made anew'"]},
    ]
    text = json.dumps({"cells": cells}, indent=1)
    found = checked(capsys, "a.ipynb", text)
    lines = text.splitlines()
    assert [lines[int(finding.split(":")[0]) - 1].strip() for finding in found] == [
        '"Made anew."', '"# Ask nobody.\\n",',
    ]  # fmt: skip


def test_exceptions_need_a_text(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = folder / "words.toml"
    rules.write_text(
        '[prose]\n"nobody" = "name the party"\n\n'
        '[[exceptions]]\ntext = "the user nobody"\nfiles = "*.md"\nreason = "a user of the system"\n'
    )
    monkeypatch.setattr(check_words, "LIST", rules)
    text = "The user\nnobody owns it; nobody else.\n"
    assert checked(capsys, "README.md", text) == ["2: nobody"]
    assert checked(capsys, "README.md", "The user\nnobody owns it.\n") == []
    Path("README.md").write_text("Plain.\n")
    assert check_words.main([]) == 1
    assert "no text needs this exception" in capsys.readouterr().out


def test_every_exception_has_a_reason() -> None:
    rules = check_words.WordList(check_words.tomllib.loads(check_words.LIST.read_text(encoding="utf-8")))
    assert all(allowance.reason for allowance in rules.allowances)
