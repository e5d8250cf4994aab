"""Parts of `WorkspacePool`: the key of a run; the sessions: opening, leasing, closing, events."""
