"""The checks of ``doctor``: each carried out for real, and worded in `_core.doctor`."""
