"""Results of file operations as the text that the model reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from langchain_daytona_ws._core.paths import characters, shown, shown_name

if TYPE_CHECKING:
    from langchain_daytona_ws._core.files.models import (
        Difference,
        Entry,
        FileDeleted,
        FileEdited,
        FileText,
        FileWritten,
        GlobResult,
        GrepResult,
        GrepRow,
        Listing,
        Omitted,
    )

# Directories that searches skip without a note: many workspaces have them, and they are rarely wanted.
_UNMENTIONED = (".git", "__pycache__")
_NAMED = 5  # maximum number of omitted paths that are named for each reason
_STYLES = {"bom": "byte order mark", "crlf": "CRLF line endings", "bytes": "bytes that are not UTF-8"}
_FROM_RECORD = "[this call was made before: this is its recorded result, and nothing was done again]"


def file_text(result: FileText) -> str:
    if not result.lines:
        return "[The file is empty.]"
    notes = [
        result.footer,
        "[Line endings: CRLF.]" if result.newline == "crlf" else "",
        "[Line endings: CRLF and LF mixed.]" if result.newline == "mixed" else "",
        r"[Bytes that are not UTF-8 text are shown as \xNN.]" if result.lossy else "",
    ]
    return "\n".join([result.body, *(note for note in notes if note)])


def written(result: FileWritten) -> str:
    if result.unchanged:
        return _with_record_note(result, f"{shown(result.path)} already has exactly this content.")
    verb = "Created" if result.created else "Wrote"
    kept, gone = _style(result.kept), _style(result.gone)
    notes = [
        f"Kept its {kept}." if kept else "",
        f"Its {gone} are gone." if gone else "",
    ]
    done = f"{verb} {shown(result.path)} ({_count(result.size_bytes, 'byte')})."
    return _with_record_note(result, " ".join([done, *(note for note in notes if note)]))


def _style(names: Iterable[str]) -> str:
    return " and ".join(_STYLES[name] for name in names)


def edited(result: FileEdited) -> str:
    return _with_record_note(result, _edited(result))


def _edited(result: FileEdited) -> str:
    if not result.lines:  # an earlier attempt of the call made the edit
        return f"Edited {shown(result.path)}: {_count(result.count, 'replacement')}."
    numbers = list(dict.fromkeys(result.lines))
    where = ", ".join(str(line) for line in numbers)
    more = ", ..." if result.count > len(result.lines) else ""
    lines = "line" if len(numbers) == 1 and not more else "lines"
    done = f"Edited {shown(result.path)}: {_count(result.count, 'replacement')}, at {lines} {where}{more}."
    return "\n".join([part for part in (done, *_edit_notes(result), result.snippet) if part])


def _edit_notes(result: FileEdited) -> Iterable[str]:
    if result.differences:
        first = "; ".join(difference(each) for each in result.differences)
        repeated = "The parts that new_string repeats were kept unchanged."
        yield f"[The text there is not exactly old_string: {first}. {repeated}]"
    if result.mixed:
        yield "[The file is not UTF-8, and the inserted text is. Send bytes of its encoding as read shows them.]"
    if result.verbatim:
        yield r"[\xNN was inserted as four characters. It means a byte only if old_string has such a byte, too.]"


def difference(item: Difference) -> str:
    in_file, in_request = characters(item.found), characters(item.requested)
    return f"line {item.line}, column {item.column} has {in_file}, old_string {in_request}"


def deleted(result: FileDeleted) -> str:
    noun = {"dir": "the empty directory ", "link": "the symlink "}.get(result.kind, "")
    return _with_record_note(result, f"Deleted {noun}{shown(result.path)}.")


def _with_record_note(result: FileWritten | FileEdited | FileDeleted, text: str) -> str:
    return f"{_FROM_RECORD}\n{text}" if result.from_record else text


def listing(result: Listing) -> str:
    if not result.entries and not result.more:
        return "[The directory is empty.]"
    show = shown if result.path == "." else shown_name
    lines = [_entry(entry, show(entry.name)) for entry in result.entries]
    if result.more:
        lines.append(
            f"[Showing {len(result.entries)} of {result.total} entries. Use glob, or list a directory in it.]"
        )
    return "\n".join(lines)


def globbed(result: GlobResult) -> str:
    lines = [shown(entry.name) + ("/" if entry.kind == "dir" else "") for entry in result.entries]
    if not lines and not result.more:
        lines.append("No file matches.")
        if result.hint:
            lines.append(f"[{result.hint}]")
        elif "/" not in result.pattern.strip("/"):
            lines.append(f"[To search at any depth, use **/{shown_name(result.pattern)}]")
    if result.timed_out:
        lines.append("[The search took too long and was stopped. Narrow it with a path or a longer pattern.]")
    elif result.more:
        lines.append(
            f"[Showing {len(result.entries)} of at least {result.total} matches. Narrow the pattern.]"
        )
    return "\n".join([*lines, *_omitted(result.omitted), *_skipped(result.skipped)])


def grepped(result: GrepResult) -> str:
    lines = list(_grep_lines(result))
    if not lines and not result.more:
        lines.append("No match.")
        if result.hint:
            lines.append(f"[{result.hint}]")
    if result.timed_out:
        lines.append("[The search took too long and was stopped. Narrow it with a path or a glob.]")
    elif result.more:
        lines.append("[There are more matches than shown. Narrow it with a path, a glob or the pattern.]")
    return "\n".join([*lines, *_omitted(result.omitted), *_skipped(result.skipped)])


def _grep_lines(result: GrepResult) -> Iterable[str]:
    if result.mode == "files_with_matches":
        yield from (shown(row.path) for row in result.rows)
    elif result.mode == "count":
        yield from (f"{shown(row.path)}:{row.count}" for row in result.rows)
    else:
        has_context = any(not row.is_match for row in result.rows)
        before: GrepRow | None = None
        for row in result.rows:
            if has_context and before and (before.path != row.path or before.line + 1 < row.line):
                yield "--"
            mark = ":" if row.is_match else "-"
            column = f"[column {row.column:,}] " if row.column else ""
            yield f"{shown(row.path)}{mark}{row.line}{mark}{column}{row.text}"
            before = row


def _entry(entry: Entry, name: str) -> str:
    if entry.kind == "dir":
        return name + "/"
    if entry.kind == "link":
        return f"{name} -> {shown_name(entry.target) if entry.target else '(outside the workspace)'}"
    return (
        f"{name}  {_count(entry.size_bytes, 'byte')}" if entry.kind == "file" else f"{name}  (special file)"
    )


def _omitted(omitted: Iterable[Omitted]) -> Iterable[str]:
    for group in omitted:
        paths = ", ".join(shown(path) for path in group.paths[:_NAMED]) + (
            ", ..." if group.count > _NAMED else ""
        )
        is_single = group.count == 1
        match group.reason:
            case "binary_match":
                files = (
                    "1 binary file matches, its"
                    if is_single
                    else f"{group.count:,} binary files match, their"
                )
                yield f"[{files} lines are not shown: {paths}. Use grep -a in bash.]"
            case "binary":
                yield f"[Not searched: {_count(group.count, 'binary file')}: {paths}]"
            case "utf16":
                yield f"[Not searched: {_count(group.count, 'UTF-16 file')}: {paths}. Convert with iconv in bash.]"
            case "unreadable":
                yield (
                    f"[Not searched, cannot be read: {paths}]"
                    if is_single
                    else (f"[Not searched, {group.count:,} cannot be read: {paths}]")
                )


def _skipped(paths: tuple[str, ...]) -> list[str]:
    named = [shown(path) for path in paths if path.rpartition("/")[2] not in _UNMENTIONED]
    return [f"[Not searched unless named: {', '.join(named[:5])}]"] if named else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
