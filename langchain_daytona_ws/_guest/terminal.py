"""Environment variables for commands without a terminal, so that no editor or pager waits for a key."""

from __future__ import annotations

# Name, value, and the variables that programs read only if this one is unset. With GIT_EDITOR=true git keeps a message
# that it has generated (rebase --continue, merge, commit --amend) and refuses an empty message. The other editors fail,
# so that an unedited file is never treated as an edited one.
VALUES = (
    ("TERM", "dumb", ()),
    ("PAGER", "cat", ()),
    ("GIT_PAGER", "cat", ("PAGER",)),
    ("EDITOR", "false", ()),
    ("VISUAL", "false", ("EDITOR",)),
    ("GIT_EDITOR", "true", ("VISUAL", "EDITOR")),
    ("GIT_SEQUENCE_EDITOR", "false", ("GIT_EDITOR", "VISUAL", "EDITOR")),
)


def prepare(env: dict[bytes, bytes], own: list[str]) -> None:
    """Set the variables in ``env``, even if the sandbox's image has set them already.

    Args:
        env: The command's environment.
        own: Variables that the user has set. They keep their values; variables that programs would read first are
            removed.
    """
    for name, value, outranked in VALUES:
        if name in own:
            continue
        if any(other in own for other in outranked):
            env.pop(name.encode(), None)
        else:
            env[name.encode()] = value.encode()
