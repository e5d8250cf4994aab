"""Reading the sandbox's answer: exactly one frame with the call's own nonce, among any other output."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.answer import read_frame
from langchain_daytona_ws._core.guest_rpc import payload as script
from langchain_daytona_ws._core.guest_rpc.payload import guest_call
from langchain_daytona_ws.errors import SandboxError

NONCE = "0123456789abcdef"
ANSWER = {"outcome": "finished"}
FRAME = f"\n{NONCE} {json.dumps(ANSWER)}\n"


@given(st.text(max_size=50), st.text(max_size=50))
def test_noise_around_it_does_not_matter(before: str, after: str) -> None:
    assert read_frame(before + FRAME + after, NONCE, 0) == ANSWER


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "\n",
        FRAME[:-4],
        FRAME + FRAME,
        FRAME.replace(NONCE, NONCE[::-1]),
        f"{NONCE}\n",
        f"{NONCE} []\n",
        f"{NONCE} null\n",
        f" {NONCE} {{}}\n",
    ],
)
def test_anything_but_one_whole_answer_is_refused(printed: str) -> None:
    with pytest.raises(SandboxError) as caught:
        read_frame(printed, NONCE, 0)
    assert caught.value.code == "unreadable_answer"
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("message", "exit_code"),
    [
        ("zsh: command not found: python3", 127),
        ("/usr/bin/dash: 1: exec: python3: not found", 127),
        ("bash: Zeile 1: exec: python3: Nicht gefunden", 127),
        ('exec: "sh": executable file not found in $PATH', -1),  # Go's message
    ],
)
def test_a_missing_python_is_named(message: str, exit_code: int) -> None:
    with pytest.raises(SandboxError, match=r"Python 3\.8") as caught:
        read_frame(message + "\n", NONCE, exit_code)
    assert caught.value.code == "no_python"


@pytest.mark.parametrize(
    ("printed", "exit_code"),
    [
        ("sh: 1: python3: not found\n", 0),
        ("sh: 1: python3: not found\n", -1),
        (f"sh: 1: python3: not found\n{FRAME[:-4]}\n", 127),
        ('a line\nexec: "sh": executable file not found in $PATH\n', -1),
    ],
)
def test_a_lost_answer_is_not_a_missing_python(printed: str, exit_code: int) -> None:
    with pytest.raises(SandboxError) as caught:
        read_frame(printed, NONCE, exit_code)
    assert caught.value.code == "unreadable_answer"


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh"])
def test_shells_name_a_missing_python_so(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    run = subprocess.run(
        [program],
        check=False,
        input=guest_call("command", {}, NONCE).script,
        capture_output=True,
        text=True,
        env={"PATH": "/none"},
    )
    with pytest.raises(SandboxError) as caught:
        read_frame(run.stderr, NONCE, run.returncode)
    assert caught.value.code == "no_python"


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.text(), st.binary(), st.integers(), st.none()), max_size=4
    )
)
def test_no_byte_of_the_request_reaches_the_shell(request: dict[str, object]) -> None:
    plain = guest_call("command", {}, NONCE)
    call = guest_call("command", request, NONCE)
    assert call.script == plain.script
    for name, value in call.env.items():
        assert re.fullmatch(r"LANGCHAIN_DAYTONA_WS_(PROGRAM|SOURCE|REQUEST)\d+", name)
        assert value.isascii()
        assert value.replace("\n", "").isprintable()
        assert len(name) + len(value) < 128 * 1024


def test_a_large_request_is_spread_over_variables() -> None:
    noise = random.Random(0).randbytes(300_000)
    call = guest_call("command", {"data": noise}, NONCE)
    assert "LANGCHAIN_DAYTONA_WS_REQUEST1" in call.env
    assert all(len(value) <= script.VARIABLE_BYTES for value in call.env.values())


ENDED = {
    "names": ('["sleep", "a.out"]', ["sleep", "a.out"]),
    "no names": ('["a b", "\\u001b", 1, null, "x"]', ["x"]),
    "too many": (json.dumps([f"x{i}" for i in range(9)]), [f"x{i}" for i in range(5)]),
    "no list": ('{"a": 1}', []),
    "no JSON": ("[", []),
    "too deep": ("[" * 100_000, []),
}


@pytest.mark.parametrize(("line", "names"), ENDED.values(), ids=ENDED)
def test_what_was_ended_is_read_from_a_line_of_its_own(line: str, names: list[str]) -> None:
    printed = f'\n{NONCE} {{"ok": true}}\n\n{NONCE}+ {line}\n'
    assert read_frame(printed, NONCE, 0) == {"ok": True, "ended": names}


def test_an_answer_says_nothing_of_its_own_about_what_was_ended() -> None:
    assert read_frame(f'\n{NONCE} {{"ok": true}}\n', NONCE, 0) == {"ok": True}


@pytest.mark.parametrize("entry", ["command", "files", "tree", "search"])
def test_each_program_carries_all_that_it_imports(entry: str) -> None:
    order = script._load_order(entry, "boot")
    assert order[-1] == "boot"
    for name in order:
        for needed in script._imports(name):
            assert order.index(needed) < order.index(name)


def test_all_forms_of_an_import_are_seen() -> None:
    """One over several lines, too: a module left behind would be missed in the sandbox only."""
    for path in Path(script.__file__).parents[2].joinpath("_guest").glob("*.py"):
        needed: set[str] = set()
        tree = ast.parse(path.read_text())
        # What only a type checker reads is not sent.
        tree.body = [node for node in tree.body if not _is_for_type_checkers(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(script.PACKAGE):
                module = (node.module or "")[len(script.PACKAGE) + 1 :]
                needed |= {module} if module else {alias.name for alias in node.names}
        assert set(script._imports(path.stem)) == needed, path.name


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_programs_lose_their_prose_and_types_and_nothing_else() -> None:
    names = [path.stem for path in Path(script.__file__).parents[2].joinpath("_guest").glob("*.py")]
    assert "command" in names
    for name in names:
        source = script.guest_source(name)
        bare = script._bare(source)
        assert _meaning(bare) == _meaning(source), name
        assert not re.search(r"^\s*#|  # |TYPE_CHECKING|__future__", bare, re.MULTILINE), name
        for node in ast.walk(ast.parse(bare)):
            assert not isinstance(node, ast.AnnAssign), name
            assert getattr(node, "annotation", None) is None, name


def _meaning(source: str) -> str:
    """Return the statements with their line numbers, without docstrings and types."""
    tree = _Untyped().visit(ast.parse(source))
    tree.body = [
        node
        for node in tree.body
        if not _is_for_type_checkers(node)
        and ast.unparse(node) not in ("TYPE_CHECKING = False", "from __future__ import annotations")
    ]
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
        if documented and ast.get_docstring(node) is not None:
            del node.body[0]
        for name in ("col_offset", "end_lineno", "end_col_offset"):
            if hasattr(node, name):
                setattr(node, name, None)
    return ast.dump(tree, include_attributes=True)


class _Untyped(ast.NodeTransformer):
    """Removes the types of functions, parameters and variables."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


REQUEST = {
    "mode": "run",
    "key": "3f2a" * 8,
    "root": "/mnt/workspaces/demo",
    "command": "python3 -m pytest tests -q",
    "timeout_s": 120.0,
    "limit_bytes": 65536,
    "log_limit_bytes": 67108864,
    "defaults": {},
    "keep": False,
}


def size(**given: str) -> int:
    call = guest_call("command", REQUEST, NONCE, **given)
    return len(call.script) + sum(len(name) + len(value) for name, value in call.env.items())


def test_a_command_s_first_request_fits_into_what_an_idle_connection_takes_at_once() -> None:
    # Ten segments of 1,448 bytes, less 1,280 for the headers and the rest of the JSON (840 in a measured request).
    assert size() < 13_200


def test_the_largest_program_fits_into_one_variable() -> None:
    # The text that decompresses the program reads one variable.
    fields = dict.fromkeys(script._FIELD_MODULES)
    for entry in ("command", "files", "tree", "search", "transfer", "jobs", "content"):
        assert "LANGCHAIN_DAYTONA_WS_SOURCE1" not in guest_call(entry, dict(fields), NONCE).env


def test_later_requests_stay_under_two_kilobytes() -> None:
    assert size(digest=hashlib.sha256(b"program").hexdigest()) < 2_000
