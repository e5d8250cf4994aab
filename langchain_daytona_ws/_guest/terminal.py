"""The environment of commands that have no terminal: an editor or a pager would wait for a key until the time-out."""

from __future__ import annotations

# Variable, value, and the variables that it outranks where programs look for an editor or a pager. With GIT_EDITOR=true
# git keeps a message that it has made (rebase --continue, merge, commit --amend) and refuses an empty one. The other
# editors fail, so that a list or a table that nobody has edited is not taken for an edited one.
VALUES = (
    ("TERM", "dumb", ()),
    ("PAGER", "cat", ()),
    ("GIT_PAGER", "cat", ("PAGER",)),
    ("EDITOR", "false", ()),
    ("VISUAL", "false", ("EDITOR",)),
    ("GIT_EDITOR", "true", ("VISUAL", "EDITOR")),
    ("GIT_SEQUENCE_EDITOR", "false", ("GIT_EDITOR", "VISUAL", "EDITOR")),
)


def prepare(env: dict[str, str], own: list[str]) -> None:
    """Set the variables, also where the image has set them.

    Args:
        env: Of the command.
        own: The names that the user has set; what would outrank one of them is removed.
    """
    for name, value, outranked in VALUES:
        if name in own:
            continue
        if any(other in own for other in outranked):
            env.pop(name, None)
        else:
            env[name] = value
