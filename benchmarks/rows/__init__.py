"""The rows, in the order in which they are run and shown.

A new row is a module here with a `Row` named ``ROW``, and its line in `ROWS`. Its ``run`` starts the server that it
needs, times contenders in turns (`benchmarks.measure`) and yields results (`benchmarks.result`).
"""

from __future__ import annotations

from benchmarks.bench import Row
from benchmarks.rows import (
    endurance,
    files,
    first_result,
    imports,
    memory,
    network,
    throughput,
    warm_command,
)

ROWS: tuple[Row, ...] = (
    warm_command.ROW,
    first_result.ROW,
    network.ROW,
    imports.ROW,
    files.ROW,
    memory.ROW,
    throughput.ROW,
    endurance.ROW,
)
