"""The checks of ``doctor``: they send real requests; `_core.doctor` describes the findings."""
