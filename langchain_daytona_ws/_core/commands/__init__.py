"""Commands: running them, their output, hooks."""
