"""The rows, in their order.

To add a row, write a module here with a `Row` named ``ROW``, and add it to `ROWS`. Its ``run`` starts a server, times
contenders alternately (`benchmarks.measure`) and yields results (`benchmarks.result`).
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
    parts,
    sync,
    throughput,
    warm_command,
)

ROWS: tuple[Row, ...] = (
    warm_command.ROW,
    parts.ROW,
    first_result.ROW,
    network.ROW,
    imports.ROW,
    files.ROW,
    memory.ROW,
    throughput.ROW,
    sync.ROW,
    endurance.ROW,
)
