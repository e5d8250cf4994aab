"""File operations on the workspace."""
