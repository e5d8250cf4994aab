"""Row: importing the package and building its tools, in new processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.measure import interleaved_values
from benchmarks.result import Result, compared

NAME = "import"
OURS, BASE = "import and build all tools", "import langchain_core.tools.BaseTool"
_TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
_IMPORTS = {
    OURS: "from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit; "
    "WorkspaceToolkit(session=WorkspaceSession({'options': {'apiKey': 'none'}}, namespace='bench')).get_tools()",
    BASE: "from langchain_core.tools import BaseTool",
}


def run(bench: Bench) -> Iterator[Result]:
    samples = interleaved_values(
        {name: partial(_seconds, code) for name, code in _IMPORTS.items()}, bench.times(20, 3)
    )
    yield compared(
        NAME, samples, OURS, BASE, reach=1.15, quoted=True,
        note="in processes of their own, without the interpreter's own start; bash, workspace_file and bash_job",
    )  # fmt: skip


def _seconds(code: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(code)], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


ROW = Row(NAME, "importing the package and building its tools", run)
