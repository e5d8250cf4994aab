"""Parts of `WorkspacePool`: the key of a run, and the sessions that are open."""
