"""Turn a refusal from the sandbox into an error that says what to do next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_daytona_ws._core.file_names import shown, spelled_out
from langchain_daytona_ws._core.file_results import Reply
from langchain_daytona_ws._core.render import difference
from langchain_daytona_ws.errors import (
    EditRefused,
    FileError,
    FileMissing,
    FileUnsuitable,
    PathRefused,
    SandboxError,
    WorkspaceError,
    WriteConflict,
)


def file_error(path: str, reply: Reply, near: Sequence[str] = ()) -> WorkspaceError:
    """Build the error for a refusal about ``path``, which is relative to the workspace.

    Args:
        path: What was asked for.
        reply: The refusal.
        near: Of a path that is missing, existing ones that may be taken for it.
    """
    code = reply.raw("error", 64)
    known = _REFUSALS.get(code)
    if known is None:
        return reply.garbled("error")
    kind, message = known
    text = message(reply) if callable(message) else message
    if near:
        others = " or ".join(spelled_out(name) for name in near[:3])
        text = f"{{path}} does not exist. Did you mean {others}? Send it exactly as it is written here."
    # For those who have to say it in another vocabulary, see _deepagents.words.
    context = {"errno": reply.maybe("errno")} if "errno" in reply else {}
    return kind(
        text.replace("{path}", shown(path)), code=code, op=reply.op, context=context, retryable=code == "busy"
    )


def _size(reply: Reply) -> str:
    return f"{reply.number('bytes'):,} bytes"


def _missing(reply: Reply) -> str:
    text = "{path} does not exist. Use list or glob to see what is there."
    if "on_s3" in reply:
        text += " A directory that was made in bash is seen here once it holds a file."
    return text


def _too_large(reply: Reply) -> str:
    if reply.op == "edit":
        what = f"{{path}} would be, or is, {_size(reply)}, over the limit"
    else:
        what = f"{{path}} has {_size(reply)}, over the limit"
    return (
        f"{what} of {reply.number('max_bytes'):,}. "
        "Use grep, or bash with head, tail or sed, to work on a part of it."
    )


def _binary(reply: Reply) -> str:
    what = reply.maybe("what")
    if what == "UTF-16 text":
        return f"{{path}} is UTF-16 text ({_size(reply)}). Convert it first, with iconv in bash."
    return f"{{path}} is a binary file ({_size(reply)}). Look at it with bash, such as `file` or `xxd`."


def _not_regular(reply: Reply) -> str:
    return f"{{path}} is {reply.maybe('kind') or 'special'}, not a regular file."


def _past_end(reply: Reply) -> str:
    return f"{{path}} has only {reply.number('lines'):,} lines. Use a smaller offset."


def _exists(reply: Reply) -> str:
    return (
        f"{{path}} exists already ({_size(reply)}) and was not read in this session. Read it first, "
        "or pass overwrite=true to replace it."
    )


def _not_found(reply: Reply) -> str:
    hint, line = reply.maybe("hint"), reply.number("line")
    differences = reply.differences("differences")
    where = f" ({difference(differences[0])})" if differences else ""
    if hint == "line_numbers":
        why = "It starts with line numbers: leave out the number and tab that read shows before each line."
    elif hint == "whitespace":
        why = f"It would match at line {line} but for whitespace{where}: copy indentation and line breaks exactly."
    elif hint == "alike":
        count = reply.number("count")
        places = f"line {line}" if count == 1 else f"{count} or more places, first line {line}"
        why = f"It would match at {places}, but for characters that look alike{where}. Send the file's characters."
    else:
        why = "Read the file again and copy the text exactly."
    return f"old_string was not found in {{path}}. {why}"


def _not_unique(reply: Reply) -> str:
    count, at = reply.number("count"), reply.numbers("at")
    numbers = list(dict.fromkeys(at))
    if len(numbers) == 1:
        some = "" if count == len(at) else f"the first {len(at)} of them "
        return (
            f"old_string occurs {count} times in {{path}}, {some}in line {numbers[0]}. Add the text before or after it "
            "in that line to make it unique, or pass replace_all=true."
        )
    lines = ", ".join(str(line) for line in numbers) + (", ..." if count > len(at) else "")
    return (
        f"old_string occurs {count} times in {{path}}, at lines {lines}. Add surrounding lines to make it "
        "unique, or pass replace_all=true."
    )


def _too_many(reply: Reply) -> str:
    return f"old_string occurs more than {reply.number('count'):,} times in {{path}}. Use a longer one."


def _not_empty(reply: Reply) -> str:
    count = reply.number("count")
    entries = "1 entry" if count == 1 else f"{count} or more entries" if count >= 1000 else f"{count} entries"
    return f"{{path}} is a directory with {entries} in it. To delete all of it, use `rm -r` in bash."


def _bad_glob(reply: Reply) -> str:
    return f"The glob pattern can't be used: {reply.maybe('text')}."


def _bad_pattern(reply: Reply) -> str:
    return f"The regular expression can't be used: {_line(reply.maybe('text'))}"


def _write_failed(reply: Reply) -> str:
    state = reply.raw("state", 32)
    left = {
        "unchanged": "The old content is still there.",
        "restored": "The old content was put back.",
        "absent": "No file is there now.",
        "partial": f"Only a part was written: {_size(reply)} are there now. Write it again.",
    }.get(state, "What is there now is not known: read it before you go on.")
    return f"{{path}} could not be written: {_reason(reply)}. {left}{_remedy(reply)}"


def _os(reply: Reply) -> str:
    return f"{reply.op} {{path}} failed: {_reason(reply)}.{_remedy(reply)}"


_REMEDIES = {
    "ENOSPC": " Delete what is not needed: df and du in bash show where the space went.",
    "EDQUOT": " Delete what is not needed: du in bash shows where the space went.",
    "EIO": " The disk or the storage does not answer as it should: try again, or tell the user.",
    "ENOTCONN": " The workspace's storage went away: try again, or tell the user.",
    "EACCES": " Its permissions forbid it: look at them with ls -l in bash, or use another path.",
    "EPERM": " Its permissions forbid it: look at them with ls -l in bash, or use another path.",
    "EROFS": " Use a path that may be written to.",
}


def _remedy(reply: Reply) -> str:
    return _REMEDIES.get(reply.maybe("errno"), "")


def _reason(reply: Reply) -> str:
    return _line(reply.maybe("text")) or reply.maybe("errno") or "unknown reason"


def _line(text: str) -> str:
    """Keep a foreign text to printable characters and a length to be read."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)[:1000]


_REFUSALS: dict[str, tuple[type[WorkspaceError], str | Callable[[Reply], str]]] = {
    "missing": (FileMissing, _missing),
    "outside": (
        PathRefused,
        "{path} leads out of the workspace. Only files inside the workspace can be used.",
    ),
    "loop": (PathRefused, "{path} leads through too many symlinks."),
    "bad_path": (PathRefused, "{path} is no path in the workspace."),
    "is_root": (PathRefused, "The workspace directory itself can't be deleted."),
    "is_directory": (FileUnsuitable, "{path} is a directory: use list."),
    "not_a_directory": (FileUnsuitable, "{path}, or something on the way to it, is not a directory."),
    "not_regular": (FileUnsuitable, _not_regular),
    "binary": (FileUnsuitable, _binary),
    "too_large": (FileUnsuitable, _too_large),
    "past_end": (FileError, _past_end),
    "exists_unread": (WriteConflict, _exists),
    "changed": (WriteConflict, "{path} has changed since this session read it. Read it again first."),
    "busy": (WriteConflict, "{path} is being changed by something else just now. Try again."),
    "not_found": (EditRefused, _not_found),
    "not_unique": (EditRefused, _not_unique),
    "too_many": (EditRefused, _too_many),
    "identical": (EditRefused, "old_string and new_string are identical: nothing to change."),
    "empty": (EditRefused, "old_string is empty. To write a whole file, use write."),
    "not_empty": (FileUnsuitable, _not_empty),
    "bad_glob": (FileError, _bad_glob),
    "bad_pattern": (FileError, _bad_pattern),
    "no_tool": (
        FileError,
        "Searching needs ripgrep or GNU grep in the sandbox. Install one (`ripgrep`) with bash.",
    ),
    "staging": (
        SandboxError,
        "The content did not arrive whole in the sandbox; nothing was written. Try again.",
    ),
    "write_failed": (FileError, _write_failed),
    "os": (FileError, _os),
}
