"""Calls to the guest, the program that runs inside the sandbox."""
