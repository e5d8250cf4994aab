"""File operations on the workspace, with the defaults that the tools describe."""

from typing import Literal

LIST_LIMIT = 1000
GLOB_LIMIT = 200
GREP_LIMIT = 250

OutputMode = Literal["files_with_matches", "content", "count"]
