"""Few examples in every run; twenty times as many with ``pytest tests/hostile --hypothesis-profile hunt``."""

from hypothesis import settings

settings.register_profile("hunt", settings.get_profile("default"))
