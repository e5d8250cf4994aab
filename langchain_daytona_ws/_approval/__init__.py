"""Asking: whose turn it is, how the approver is called, and what its answer means."""
