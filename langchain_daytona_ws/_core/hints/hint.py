"""One line with what works instead, after a command that failed as commands do on a mount of S3. Pure."""

from __future__ import annotations

import posixpath
import re

from langchain_daytona_ws._core.hints.error_lines import Complaint, complaints
from langchain_daytona_ws._core.hints.rules import WAYS, Failure, Way
from langchain_daytona_ws._core.hints.shell_text import Simple, simples

HINT_CHARS = 200


def hint(command: str, output: str, exit_code: int, *, root: str = "") -> str | None:
    """Return the working alternative when a command failed in a way that is known of S3 workspaces.

    Args:
        command: As it was given to bash; the first 16 KiB are read.
        output: What it printed, of any size; the last 16 KiB are read.
        exit_code: With 0 only an error of a program that the command names counts: ``a; b`` hides exit codes.
        root: The workspace directory.

    Returns:
        One line of up to 200 characters, without brackets; None when no known failure is found.
    """
    ran: list[Simple] | None = None
    for complaint in complaints(output):
        if ran is None:
            ran = simples(command)
        if _is_elsewhere(complaint.said, root) or not _is_of_this_command(complaint, ran, exit_code):
            continue
        failure = Failure(complaint, ran)
        for way in WAYS:
            if _fits(way, failure):
                filled = way.fill(failure) if way.fill else None
                return filled if filled and len(filled) <= HINT_CHARS else way.advice
    return None


def written_here(command: str, root: str) -> str | None:
    """Return the first file of an S3 workspace that a command writes by a redirection or tee; None for none.

    Args:
        command: As it was given to bash. What a variable stands for is not known, and counts as elsewhere.
        root: The workspace directory, where it starts.
    """
    is_here = True
    for one in simples(command):
        if one.program in ("cd", "pushd"):
            is_here = _is_inside(one.verb, root, is_here=is_here)
            continue
        targets = [redirect.target for redirect in one.redirects if redirect.operator in _WRITING]
        if one.program == "tee":
            targets += [word for word in one.arguments if not word.startswith("-")]
        for target in targets:
            if _is_inside(target, root, is_here=is_here):
                return target
    return None


_WRITING = (">", ">>", ">|", "&>", "&>>", ">&")


def _is_inside(path: str, root: str, *, is_here: bool) -> bool:
    if path.startswith("/"):
        return posixpath.normpath(path).startswith(f"{root}/") or path == root
    return is_here and path != "" and path[0] not in "~$-" and not path.isdigit()


def _fits(way: Way, failure: Failure) -> bool:
    if way.speakers and failure.complaint.speaker not in way.speakers.split():
        return False
    if not way.said.search(failure.complaint.said):
        return False
    return way.when is None or way.when(failure)


# --- whether the failure is in the workspace ---

_SYSTEM = re.compile(r"/(?:bin|boot|dev|etc|lib\w{0,4}|proc|run|sbin|sys|tmp|usr|var)(?:/|$)")
_QUOTED = re.compile(r"['‘\"]([^'‘’\"]{1,200})['’\"]")
_BARE = re.compile(r"(?:^|[\s(])(/[^\s:'‘’\"()]{1,200})")
_LEADING = re.compile(r"(?:cannot create )?([^\s:'‘’\"/][^:'‘’\"]{0,200}): ")


def _is_elsewhere(said: str, root: str) -> bool:
    """Tell whether all the paths that an error names are where a workspace never is."""
    quoted = _QUOTED.findall(said)
    paths = [one for one in (*quoted, *_BARE.findall(said)) if _SYSTEM.match(one)]
    if root:
        paths = [one for one in paths if one != root and not one.startswith(f"{root}/")]
    if not paths:
        return False
    others = [one for one in quoted if one not in paths and not one.startswith("[Errno")]
    return not others and (bool(quoted) or _LEADING.match(said) is None)


# --- whether it is an error of this command, or a text that it printed ---


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They start nothing: with these alone, what looks like another program's error is a text that was read.
_READERS = _names("""
    awk cat cd cmp column cut diff echo egrep false fgrep file find grep head jq less ls more nl od pwd printf rg
    sleep sort stat strings tac tail test tr true tree uniq wc which xxd zcat zgrep [ exit export set
    for done fi in case esac
""")
_SPOKEN_BY = {
    "ld": _names("gcc g++ cc c++ clang clang++ ld make cargo go"),
    "node": _names("node npm npx yarn pnpm"),
    "npm": _names("npm npx"),
    "pip": _names("pip pip3 python"),
    "python": _names("python pytest pip pip3 uv virtualenv"),
    "sqlite3": _names("sqlite3 python pytest"),
    "dbm": _names("python"),
}
_JOINT = re.compile(r"[|;\n]")
# With these, a command works on files that it does not name.
_UNNAMED = re.compile(r"[$*?\[{`]")


def _is_of_this_command(complaint: Complaint, ran: list[Simple], exit_code: int) -> bool:
    speaker = complaint.speaker
    programs = {one.plain_program for one in ran if one.program}
    reads_only = programs <= _READERS
    if speaker == "shell":
        name = complaint.said.partition(": ")[0].removeprefix("cannot create ")
        is_named = any(
            name in one.words or any(name == redirect.target for redirect in one.redirects) for one in ran
        )
        expands = any("$" in word for one in ran for word in one.words)
        return is_named or (exit_code != 0 and (not reads_only or expands))
    speakers = _SPOKEN_BY.get(speaker, frozenset({speaker}))
    own = [one for one in ran if one.plain_program in speakers]
    if exit_code != 0:
        return bool(own) or not reads_only
    if not own:
        return False
    if speaker in {"python", "node", "sqlite3"}:
        # Programs print others' tracebacks too. The last word of a command whose exit code was piped away is its own.
        return complaint.is_last and len(ran) > 1
    return any(_is_about_its_files(complaint.said, one) for one in own)


def _is_about_its_files(said: str, command: Simple) -> bool:
    quoted = _QUOTED.findall(said)
    if not quoted or any(_UNNAMED.search(word) for word in command.words) or command.has_flag("rR"):
        return True
    return not set(quoted).isdisjoint(command.words)
