"""Hypothesis draws the same examples in every run; others, and in ``tests/hostile`` twenty times as many, on a hunt.

A hunt is ``pytest --hypothesis-profile hunt``.
"""

from hypothesis import settings

settings.register_profile("hunt", settings.get_profile("default"))
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")
