"""Build the error for a refused file operation: facts as data, and a message for the model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_daytona_ws._core.files.models import Difference
from langchain_daytona_ws._core.files.rendering import difference
from langchain_daytona_ws._core.paths import shown, spelled_out
from langchain_daytona_ws._guest.edit import EditError
from langchain_daytona_ws._guest.media import MIME_TYPES, PDF
from langchain_daytona_ws._guest.store import MAX_BYTES
from langchain_daytona_ws._guest.text import UTF16_KINDS
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

Facts = Mapping[str, Any]

_OWN_SHELL = "bash"


def file_error(
    path: str, op: str, code: str, facts: Mapping[str, object], similar: Sequence[str] = ()
) -> WorkspaceError:
    """Build the error for a refused operation on ``path``.

    The error's ``context`` contains ``path`` as it is displayed, and the facts of the refusal, such as ``bytes``,
    ``max_bytes`` and ``errno``. Facts that ``code`` (a key of `REFUSALS`) does not use are ignored. ``similar`` are
    existing paths that are similar to a missing path.

    Raises:
        KeyError: A required fact is missing.
    """
    refusal = REFUSALS[code]
    context: dict[str, Any] = {"path": shown(path)}
    if similar:
        context["similar"] = tuple(spelled_out(name) for name in similar[:3])
    context |= {name: facts[name] for name in refusal.facts if name in facts}
    text = refusal.text({**context, "op": op, "shell": _OWN_SHELL})
    return refusal.kind(text, code=code, op=op, context=context, retryable=code == "busy")


def edit_error(path: str, error: EditError) -> WorkspaceError:
    """Build the error for an edit that is impossible in the content of ``path``."""
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in error.facts.items()}
    if error.differences:
        facts["differences"] = tuple(Difference(*row) for row in error.differences)
    return file_error(path, "edit", error.code, facts)


def file_message(error: WorkspaceError, *, shell: str, path: str = "") -> str | None:
    """Return the message of an error from `file_error`, for a model with other tools; None for other errors.

    ``shell`` is the name of the tool that runs shell commands, such as ``"execute"``. ``path`` is the path as the model
    knows it; by default, the path in the error's ``context``.
    """
    refusal = REFUSALS.get(error.code)
    if refusal is None or "path" not in error.context:
        return None
    known_as = {"path": shown(path)} if path else {}
    return refusal.text({**error.context, **known_as, "op": error.op, "shell": shell})


def _size(facts: Facts) -> str:
    return f"{facts['bytes']:,} bytes"


def _missing(facts: Facts) -> str:
    if similar := facts.get("similar"):
        return (
            f"{facts['path']} does not exist. Did you mean {' or '.join(similar)}? "
            "Send it exactly as it is written here."
        )
    text = f"{facts['path']} does not exist. Use list or glob to see the existing files."
    if "on_s3" in facts:
        text += f" A directory created in {facts['shell']} appears here when it contains a file."
    return text


def _too_large(facts: Facts) -> str:
    verb = "would be, or is," if facts["op"] == "edit" else "has"
    return (
        f"{facts['path']} {verb} {_size(facts)}, over the limit of {facts['max_bytes']:,}. "
        f"Use grep, or {facts['shell']} with head, tail or sed, to work on a part of it."
    )


def _binary(facts: Facts) -> str:
    path, shell = facts["path"], facts["shell"]
    if facts.get("what") == PDF:
        return f"{path} is a {PDF} ({_size(facts)}). Extract its text with {shell}, such as with pdftotext."
    if facts.get("what") in MIME_TYPES:
        return f"{path} is a {facts['what']} ({_size(facts)}), which can't be shown. Inspect it with {shell}."
    if (kind := facts.get("what")) in UTF16_KINDS:
        return f"{path} is {kind} ({_size(facts)}). Convert it first, with iconv in {shell}."
    return f"{path} is a binary file ({_size(facts)}). Inspect it with {shell}, such as `file` or `xxd`."


def _media_too_large(facts: Facts) -> str:
    size = _size(facts)
    limit = f"{facts['max_bytes']:,}"
    if "width" in facts:
        size, limit = (
            f"{facts['width']:,}x{facts['height']:,} pixels",
            f"{facts['max_side_pixels']:,} pixels a side",
        )
    smaller = "some of its pages, or extract its text," if facts["what"] == PDF else "a smaller copy"
    return (
        f"{facts['path']} is a {facts['what']} of {size}, over the limit of {limit}. Make {smaller} with "
        f"{facts['shell']}, and read that."
    )


def _is_directory(facts: Facts) -> str:
    if facts["op"] in ("write", "upload"):
        return f"{facts['path']} is a directory. Write to the path of a file in it."
    return f"{facts['path']} is a directory: use list."


def _not_regular(facts: Facts) -> str:
    return f"{facts['path']} is {facts.get('kind') or 'special'}, not a regular file."


def _past_end(facts: Facts) -> str:
    lines = facts["lines"]
    return f"{facts['path']} has only {lines:,} {'line' if lines == 1 else 'lines'}. Use a smaller offset."


def _exists(facts: Facts) -> str:
    if facts["bytes"] > MAX_BYTES:
        return (
            f"{facts['path']} exists already ({_size(facts)}), and is too large to read here. Look at it with "
            f"{facts['shell']}; pass overwrite=true to replace it."
        )
    return (
        f"{facts['path']} exists already ({_size(facts)}) and was not read in this session. Read it first, "
        "or pass overwrite=true to replace it."
    )


def _changed(facts: Facts) -> str:
    text = f"{facts['path']} has changed since this session read it"
    if facts.get("bytes", 0) > MAX_BYTES:
        return (
            f"{text}, and has {_size(facts)} now, too large to read here. Look at it with {facts['shell']}; to replace "
            "it, delete it first."
        )
    return f"{text}. Read it again first."


def _not_found(facts: Facts) -> str:
    hint, line = facts.get("hint"), facts["line"]
    differences = facts.get("differences")
    where = f" ({difference(differences[0])})" if differences else ""
    if hint == "line_numbers":
        why = "It starts with line numbers: leave out the number and tab that read shows before each line."
    elif hint == "whitespace":
        why = f"It would match at line {line} except for whitespace{where}: copy indentation and line breaks exactly."
    elif hint == "alike":
        count = facts["count"]
        locations = f"line {line}" if count == 1 else f"{count} or more places, first line {line}"
        why = f"It would match at {locations}, except for characters that look alike{where}. "
        why += "Send the file's characters."
    else:
        why = "Read the file again and copy the text exactly."
    return f"old_string was not found in {facts['path']}. {why}"


def _not_unique(facts: Facts) -> str:
    path, count, at = facts["path"], facts["count"], facts["at"]
    numbers = list(dict.fromkeys(at))
    if len(numbers) == 1:
        some = "" if count == len(at) else f"the first {len(at)} of them "
        return (
            f"old_string occurs {count} times in {path}, {some}in line {numbers[0]}. Add the text before or after it "
            "in that line to make it unique, or pass replace_all=true."
        )
    lines = ", ".join(str(line) for line in numbers) + (", ..." if count > len(at) else "")
    return (
        f"old_string occurs {count} times in {path}, at lines {lines}. Add surrounding lines to make it "
        "unique, or pass replace_all=true."
    )


def _too_many(facts: Facts) -> str:
    return f"old_string occurs more than {facts['count']:,} times in {facts['path']}. Use a longer one."


def _not_empty(facts: Facts) -> str:
    count = facts["count"]
    entries = "1 entry" if count == 1 else f"{count} or more entries" if count >= 1000 else f"{count} entries"
    path, shell = facts["path"], facts["shell"]
    return f"{path} is a directory with {entries} in it. To delete all of it, use `rm -r` in {shell}."


def _bad_glob(facts: Facts) -> str:
    return f"The glob pattern can't be used: {facts.get('text', '')}."


def _bad_pattern(facts: Facts) -> str:
    return f"The regular expression can't be used: {_line(facts.get('text', ''))}"


def _write_failed(facts: Facts) -> str:
    content = {
        "unchanged": "The old content is still there.",
        "restored": "The old content was restored.",
        "absent": "No file is there now.",
        "partial": f"Only a part was written: {_size(facts)} are there now. Write it again.",
    }.get(facts["state"], "Its content is unknown now: read it before you go on.")
    return f"{facts['path']} could not be written: {_reason(facts)}. {content}{_remedy(facts)}"


def _os(facts: Facts) -> str:
    return f"{facts['op']} {facts['path']} failed: {_reason(facts)}.{_remedy(facts)}"


_REMEDIES = {
    "ENOSPC": " Delete unneeded files: df and du in {shell} show the used space.",
    "EDQUOT": " Delete unneeded files: du in {shell} shows the used space.",
    "EIO": " The disk or the storage failed: try again, or tell the user.",
    "ENOTCONN": " The workspace's storage is disconnected: try again, or tell the user.",
    "EACCES": " Its permissions forbid it: check them with ls -l in {shell}, or use another path.",
    "EPERM": " Its permissions forbid it: check them with ls -l in {shell}, or use another path.",
    "EROFS": " Use a writable path.",
}


def _remedy(facts: Facts) -> str:
    return _REMEDIES.get(facts.get("errno", ""), "").format_map(facts)


def _reason(facts: Facts) -> str:
    return _line(facts.get("text", "")) or facts.get("errno") or "unknown reason"


def _line(text: str) -> str:
    """Replace unprintable characters, except line feeds, in a text from the sandbox; cut it to 1,000 characters."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)[:1000]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason to refuse a file operation.

    ``message`` is a template with the facts as fields, or a function of the facts. ``facts`` has the names of the facts
    that it uses in addition to ``path``, ``similar``, ``op`` and ``shell``.
    """

    kind: type[WorkspaceError]
    message: str | Callable[[Facts], str]
    facts: tuple[str, ...] = ()

    def text(self, facts: Facts) -> str:
        """Return the message; raise KeyError if a required fact is missing."""
        return self.message.format_map(facts) if isinstance(self.message, str) else self.message(facts)


REFUSALS: dict[str, Refusal] = {
    "missing": Refusal(FileMissing, _missing, ("on_s3",)),
    "outside": Refusal(
        PathRefused,
        "{path} leads out of the workspace. Only files inside the workspace can be used.",
    ),
    "sandbox_only": Refusal(
        FileUnsuitable,
        "{path} is excluded from the saved files of the workspace: it can exist on the machine only. "
        "Use {shell} to read or change it.",
    ),
    "loop": Refusal(PathRefused, "{path} leads through too many symlinks."),
    "bad_path": Refusal(PathRefused, "{path} is not a path in the workspace."),
    "is_root": Refusal(PathRefused, "The workspace directory itself can't be deleted."),
    "is_directory": Refusal(FileUnsuitable, _is_directory),
    "not_a_directory": Refusal(FileUnsuitable, "{path}, or a part of this path, is not a directory."),
    "not_regular": Refusal(FileUnsuitable, _not_regular, ("kind",)),
    "binary": Refusal(FileUnsuitable, _binary, ("bytes", "what")),
    "media_too_large": Refusal(
        FileUnsuitable, _media_too_large, ("bytes", "max_bytes", "what", "width", "height", "max_side_pixels")
    ),
    "media_damaged": Refusal(
        FileUnsuitable,
        "{path} begins like a {what} and is incomplete or damaged ({bytes:,} bytes). Inspect it with {shell}, such as "
        "`file`.",
        ("bytes", "what"),
    ),
    "too_large": Refusal(FileUnsuitable, _too_large, ("bytes", "max_bytes")),
    "past_end": Refusal(FileError, _past_end, ("lines",)),
    "exists_unread": Refusal(WriteConflict, _exists, ("bytes",)),
    "changed": Refusal(WriteConflict, _changed, ("bytes",)),
    "busy": Refusal(WriteConflict, "{path} is being changed by another process now. Try again."),
    "not_found": Refusal(EditRefused, _not_found, ("hint", "line", "count", "differences")),
    "not_unique": Refusal(EditRefused, _not_unique, ("count", "at")),
    "too_many": Refusal(EditRefused, _too_many, ("count",)),
    "identical": Refusal(EditRefused, "old_string and new_string are identical: nothing to change."),
    "empty": Refusal(EditRefused, "old_string is empty. To replace the whole content, write the file."),
    "not_empty": Refusal(FileUnsuitable, _not_empty, ("count",)),
    "bad_glob": Refusal(FileError, _bad_glob, ("text",)),
    "bad_pattern": Refusal(FileError, _bad_pattern, ("text",)),
    "no_tool": Refusal(
        FileError,
        "Searching needs ripgrep or GNU grep in the sandbox. Install one (`ripgrep`) with {shell}.",
    ),
    "staging": Refusal(
        SandboxError,
        "The content arrived incomplete in the sandbox; nothing was written. Try again.",
    ),
    "write_failed": Refusal(FileError, _write_failed, ("errno", "state", "bytes", "text")),
    "os": Refusal(FileError, _os, ("errno", "text")),
}
