"""Every fault at every step: see `expected` for what has to come of each, ``python -m tests.faults`` for a run."""
