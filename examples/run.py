"""Execute the notebooks of this folder on the local server, and write their outputs: ``make examples``.

``python -m examples.run 01 04`` executes only these two. The outputs are reproducible: they differ only if the code has
changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))

CELL_TIMEOUT_S = 120
# For the kernel to exit: the local server in it first deletes all sandboxes.
END_TIMEOUT_S = 60.0

# Removed from the environment: the notebooks use their own server, not an account.
_ACCOUNTS = ("DAYTONA_", "AWS_", "SANDBOX_MOUNT_", "FILESYSTEM_BUCKET_NAME", "SKILLS_BUCKET_NAME")
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class NotebookFailed(Exception):
    """A cell raised, or wrote to standard error."""


def execute(path: Path) -> Any:
    """Return the notebook with new outputs, in its committed form; the file is not changed.

    Raises:
        NotebookFailed: A cell raised, or wrote to standard error.
        TimeoutError: A cell ran longer than CELL_TIMEOUT_S.
    """
    notebook = nbformat.read(path, as_version=4)
    # The kernel writes a history, a profile and its sockets here, not into the user's folders. The name is short, since
    # a socket's path may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ldw-") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_ACCOUNTS)},
            **dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), folder),
        }
        # Unix sockets: another program could take a free port before the kernel opens it.
        manager = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",
            ip=f"{folder}/socket",
            connection_file=f"{folder}/kernel.json",
            shutdown_wait_time=END_TIMEOUT_S,
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_TIMEOUT_S,
            coalesce_streams=True,  # otherwise the number of outputs depends on timing
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute(env=environment, cleanup_kc=True)
        except CellExecutionError as error:
            raise NotebookFailed(f"{path.name}: {error}") from None
    return _as_committed(path, notebook)


def _as_committed(path: Path, notebook: Any) -> Any:
    """Remove data that differs between runs or machines; refuse output on standard error."""
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise NotebookFailed(f"{path.name}, cell {cell.id}, wrote to standard error:\n{output.text}")
    nbformat.validate(notebook)
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute notebooks; return the exit code."""
    parser = argparse.ArgumentParser(prog="make examples", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("number", nargs="*", help="only notebooks whose names begin with it, such as 01")
    wanted = tuple(parser.parse_args(arguments).number)
    chosen = [path for path in NOTEBOOKS if not wanted or path.name.startswith(wanted)]
    if not chosen:
        print(f"No notebook begins with {' or '.join(wanted)}.", file=sys.stderr)
        return 2
    for path in chosen:
        started = time.monotonic()
        print(f"{path.name} ... ", end="", flush=True)
        try:
            notebook = execute(path)
        except NotebookFailed as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
        print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
