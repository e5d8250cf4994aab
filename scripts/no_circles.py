"""A contract for import-linter: modules never import each other in a circle, not even for type checking."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any

from importlinter import Contract, ContractCheck, output


class NoCircles(Contract):
    """Forbid circles among the modules of the root package."""

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            return ContractCheck(kept=False, metadata={"circle": error.args[1]})
        return ContractCheck(kept=True)

    def render_broken_contract(self, check: ContractCheck) -> None:
        output.print_error(" -> ".join(check.metadata["circle"]))
