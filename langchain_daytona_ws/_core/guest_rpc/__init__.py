"""Calls to the guest: the programs of this package that run inside the sandbox."""
