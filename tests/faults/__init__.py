"""The fault matrix, run by ``python -m tests.faults``: every fault at every step. `expected` has the outcomes."""
