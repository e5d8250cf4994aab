"""One line with what works instead, after a command that failed as commands do on a mount of S3. Pure."""

from __future__ import annotations

import re

from langchain_daytona_ws._core.complaints import Complaint, complaints
from langchain_daytona_ws._core.ways import WAYS, Way

HINT_CHARS = 200
COMMAND_CHARS = 16 * 1024


def hint(command: str, output: str, exit_code: int) -> str | None:
    """Return the working alternative when a command failed in a way that is known of S3 workspaces.

    Args:
        command: As it was given to bash.
        output: What it printed, of any size; the last 16 KiB are looked at.
        exit_code: With 0 only an error of a program that the command names counts: ``a; b`` hides exit codes.

    Returns:
        One line of up to 200 characters, without brackets; None when nothing known went wrong.
    """
    command = command[:COMMAND_CHARS]
    ran = _programs(command)
    for complaint in complaints(output):
        if not _believed(complaint, command, ran, exit_code):
            continue
        for way in WAYS:
            if _is_it(way, complaint, command):
                filled = way.fill(complaint, command) if way.fill else None
                return filled if filled and len(filled) <= HINT_CHARS else way.advice
    return None


def _is_it(way: Way, complaint: Complaint, command: str) -> bool:
    if way.speakers and complaint.speaker not in way.speakers.split():
        return False
    if not way.said.search(complaint.said):
        return False
    return way.when is None or bool(way.when.search(command) or way.when.search(complaint.context))


# --- whether it is an error of this command, or a text that it printed ---


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROGRAM = re.compile(
    r"(?:^|[;&|(){}`\n!]|-exec )[ \t]{0,50}"
    r"(?:(?:then|do|else|sudo|exec|time|env|xargs|nohup|command|timeout [\w.]{1,20}) (?:-\S{1,20} ){0,4}){0,4}"
    r"(?:\w{1,50}=[^\s;&|]{0,200}[ \t]{1,20}){0,5}([\w./+-]{1,200})"
)
# They start nothing: with these alone, what looks like another program's error is a text that was read.
_READERS = _names("""
    awk cat cd cmp column cut diff echo egrep false fgrep file find grep head jq less ls more nl od pwd printf rg
    sleep sort stat strings tac tail test tr true tree uniq wc which xxd zcat zgrep [ exit export set
""")
_SPOKEN_BY = {
    "ld": _names("gcc g++ cc c++ clang clang++ ld make cargo go"),
    "node": _names("node npm npx yarn pnpm"),
    "npm": _names("npm npx"),
    "pip": _names("pip pip3 python python3"),
    "python": _names("python python3 pytest pip pip3 uv virtualenv"),
    "sqlite3": _names("sqlite3 python python3 pytest"),
    "dbm": _names("python python3"),
}
# Where a workspace never is: what is refused there has other reasons.
_ELSEWHERE = re.compile(
    r"(?:[^/]{0,60}[\s'\"‘(])?/(?:bin|boot|dev|etc|lib\w{0,4}|proc|run|sbin|sys|tmp|usr|var)(?:[/'\"’:\s]|$)"
)
_TO_HERE = re.compile(r"->|pip-target")
_JOINT = re.compile(r"[|;\n]")
_QUOTED = re.compile(r"['‘\"]([^'‘’\"]{1,200})['’\"]")
_BETWEEN_WORDS = re.compile(r"[\s;&|()<>'\"]+")
# With these, a command works on files that it does not name.
_UNNAMED = re.compile(r"[$*?\[{`]|\bxargs\b|\s-\w{0,8}[rR]")


def _programs(command: str) -> frozenset[str]:
    return frozenset(found[1].rpartition("/")[2] for found in _PROGRAM.finditer(command))


def _believed(complaint: Complaint, command: str, ran: frozenset[str], exit_code: int) -> bool:
    said, speaker = complaint.said, complaint.speaker
    if _ELSEWHERE.match(said) and not _TO_HERE.search(said):
        return False
    reads_only = ran <= _READERS
    if speaker == "shell":
        named = said.partition(": ")[0].removeprefix("cannot create ") in command
        return named or (exit_code != 0 and (not reads_only or "$" in command))
    named = not ran.isdisjoint(_SPOKEN_BY.get(speaker, {speaker}))
    if exit_code != 0:
        return named or not reads_only
    if speaker in {"python", "node", "sqlite3"}:
        # Programs print others' tracebacks too. The last word of a command whose exit code was piped away is its own.
        return named and complaint.is_last and bool(_JOINT.search(command))
    return named and _is_about_its_files(said, command)


def _is_about_its_files(said: str, command: str) -> bool:
    quoted = _QUOTED.findall(said)
    if not quoted or _UNNAMED.search(command):
        return True
    return not set(quoted).isdisjoint(_BETWEEN_WORDS.split(command))
