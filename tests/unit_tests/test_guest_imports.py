"""The usual calls import no module that takes milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.guest_rpc import payload

SLOW = (
    "__future__",
    "collections",
    "enum",
    "functools",
    "hashlib",
    "json",
    "re",
    "signal",
    "socket",
    "subprocess",
    "typing",
)
PROGRAM = """
import sys
names = {}
(_, starter), *modules = eval(sys.argv[1])
exec(starter, names)
compiled = [(name, compile(source, name, "exec")) for name, source in modules]
boot = names["start"](compiled, {"request": {}})
answer = sys.modules[names["PACKAGE"] + "." + sys.argv[2]].main(eval(sys.argv[3]))
boot.encode.encode({"outcome": "finished", "head": "aGVsbG8K", "exit_code": 0, "duration_s": 0.1, "job": None})
assert answer["ok"], answer
print(*(name for name in eval(sys.argv[4]) if name in sys.modules))
"""
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "read": ("files", {"op": "read", "path": "a"}),
    "write": ("files", {"op": "write", "path": "b", "content": b"new"}),
    "edit": ("files", {"op": "edit", "path": "a", "old": "one", "new": "two"}),
    "delete": ("files", {"op": "delete", "path": "a"}),
    "list": ("tree", {"op": "list", "path": ".", "limit": 9, "limit_bytes": 999}),
    "glob": (
        "tree",
        {"op": "glob", "path": ".", "pattern": "*", "limit": 9, "limit_bytes": 999, "timeout_s": 9},
    ),
    "grep": (
        "search",
        {"path": ".", "pattern": "one", "mode": "count", "limit": 9, "limit_bytes": 999, "timeout_s": 9},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_usual_call_imports_no_slow_module(name: str, tmp_path: Path) -> None:
    entry, request = CALLS[name]
    (tmp_path / "a").write_text("one\n")
    modules = [
        (module, payload._bare(payload.guest_source(module)))
        for module in ("starter", *payload._load_order(entry, "boot"))
    ]
    given = [repr(modules), entry, repr({**request, "root": str(tmp_path)}), repr(SLOW)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, *given], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("\n", "")


def test_a_command_imports_no_slow_module() -> None:
    modules = [payload._bare(payload.guest_source(name)) for name in payload._load_order("command", "boot")]
    imported = {
        line.split()[1].partition(".")[0]
        for source in modules
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert not imported & {*SLOW, "binascii", "os", "select", "zlib"}, json.dumps(sorted(imported))
