"""Return one line with a working alternative after a command failed on a mount of S3. Pure."""

from __future__ import annotations

import posixpath
import re

from langchain_daytona_ws._core.hints.error_lines import ErrorLine, error_lines
from langchain_daytona_ws._core.hints.rules import RULES, Failure, Rule
from langchain_daytona_ws._core.hints.shell_text import SimpleCommand, simple_commands

HINT_CHARS = 200


def hint(command: str, output: str, exit_code: int, *, root: str = "") -> str | None:
    """Return the working alternative if a command failed in a way that is known for S3 workspaces.

    Args:
        command: The command for bash; the first 16,384 characters are read.
        output: The command's output, of any size; the last 16,384 characters are read.
        exit_code: The command's exit code. 0 does not exclude an error: in ``a; b`` the code of ``a`` is lost. With 0,
            an error counts only if the command names the failed program or, for an error of the shell, the file.
        root: The workspace directory.

    Returns:
        One line of up to 200 characters, without square brackets; None if no known failure is found.
    """
    ran: list[SimpleCommand] | None = None
    for error in error_lines(output):
        if ran is None:
            ran = simple_commands(command)
        if _is_elsewhere(error.message, root) or not _is_of_this_command(error, ran, exit_code):
            continue
        failure = Failure(error, ran)
        for rule in RULES:
            if _matches(rule, failure):
                filled = rule.fill(failure) if rule.fill else None
                return filled if filled and len(filled) <= HINT_CHARS else rule.advice
    return None


def written_here(command: str, root: str) -> str | None:
    """Return the first file in the workspace that a command writes by a redirection or tee; None if there is no file.

    Args:
        command: The command for bash. Paths that start with a variable count as outside the workspace.
        root: The workspace directory, in which the command starts.
    """
    is_here = True
    for simple in simple_commands(command):
        if simple.program in ("cd", "pushd"):
            is_here = _is_inside(simple.verb, root, is_here=is_here)
            continue
        targets = [redirect.target for redirect in simple.redirects if redirect.operator in _WRITING]
        if simple.program == "tee":
            targets += [word for word in simple.arguments if not word.startswith("-")]
        for target in targets:
            if _is_inside(target, root, is_here=is_here):
                return target
    return None


_WRITING = (">", ">>", ">|", "&>", "&>>", ">&")


def _is_inside(path: str, root: str, *, is_here: bool) -> bool:
    if path.startswith("/"):
        return posixpath.normpath(path).startswith(f"{root}/") or path == root
    return is_here and path != "" and path[0] not in "~$-" and not path.isdigit()


def _matches(rule: Rule, failure: Failure) -> bool:
    if rule.programs and failure.error.program not in rule.programs:
        return False
    if not rule.message.search(failure.error.message):
        return False
    return rule.when is None or rule.when(failure)


# --- whether the failure is in the workspace ---

_SYSTEM = re.compile(r"/(?:bin|boot|dev|etc|lib\w{0,4}|proc|run|sbin|sys|tmp|usr|var)(?:/|$)")
_QUOTED = re.compile(r"['‘\"]([^'‘’\"]{1,200})['’\"]")
_UNQUOTED_PATH = re.compile(r"(?:^|[\s(])(/[^\s:'‘’\"()]{1,200})")
_LEADING_RELATIVE_PATH = re.compile(r"(?:cannot create )?([^\s:'‘’\"/][^:'‘’\"]{0,200}): ")


def _is_elsewhere(message: str, root: str) -> bool:
    """Return whether an error message names paths, and all of them are in system directories outside the workspace."""
    quoted = _QUOTED.findall(message)
    paths = [path for path in (*quoted, *_UNQUOTED_PATH.findall(message)) if _SYSTEM.match(path)]
    if root:
        paths = [path for path in paths if path != root and not path.startswith(f"{root}/")]
    if not paths:
        return False
    others = [path for path in quoted if path not in paths and not path.startswith("[Errno")]
    return not others and (bool(quoted) or _LEADING_RELATIVE_PATH.match(message) is None)


# --- whether the command failed with the error, or only printed its text ---


# Programs that usually start no other program, and words of the shell. If a command runs only these readers, an error
# of another program is text that they have read.
_READERS = frozenset({
    "awk", "cat", "cd", "cmp", "column", "cut", "diff", "echo", "egrep", "false", "fgrep", "file", "find", "grep",
    "head", "jq", "less", "ls", "more", "nl", "od", "pwd", "printf", "rg", "sleep", "sort", "stat", "strings", "tac",
    "tail", "test", "tr", "true", "tree", "uniq", "wc", "which", "xxd", "zcat", "zgrep", "[", "exit", "export", "set",
    "for", "done", "fi", "in", "case", "esac",
})  # fmt: skip
# Program of an error line → programs whose run can cause this line. Default: the program itself.
_PROGRAMS_BY_NAME = {
    "ld": {"gcc", "g++", "cc", "c++", "clang", "clang++", "ld", "make", "cargo", "go"},
    "node": {"node", "npm", "npx", "yarn", "pnpm"},
    "npm": {"npm", "npx"},
    "pip": {"pip", "pip3", "python"},
    "python": {"python", "pytest", "pip", "pip3", "uv", "virtualenv"},
    "sqlite3": {"sqlite3", "python", "pytest"},
    "dbm": {"python"},
}
# A word with one of these characters, which bash expands, can name any file.
_EXPANDED = re.compile(r"[$*?\[{`]")


def _is_of_this_command(error: ErrorLine, ran: list[SimpleCommand], exit_code: int) -> bool:
    names = {simple.plain_program for simple in ran if simple.program}
    reads_only = names <= _READERS
    if error.program == "shell":
        name = error.message.partition(": ")[0].removeprefix("cannot create ")
        is_named = any(
            name in simple.words or any(_may_be(redirect.target, name) for redirect in simple.redirects)
            for simple in ran
        )
        expands = any("$" in word for simple in ran for word in simple.words)
        return is_named or (exit_code != 0 and (not reads_only or expands))
    programs = _PROGRAMS_BY_NAME.get(error.program, {error.program})
    own = [simple for simple in ran if simple.plain_program in programs]
    if exit_code != 0:
        return bool(own) or not reads_only
    if not own:
        return False
    if error.program in {"python", "node", "sqlite3"}:
        # The traceback may be only text. It counts only at the end of the output, and only if another command may have
        # hidden the exit code.
        return error.is_last and len(ran) > 1
    return any(_is_about_its_files(error.message, simple) for simple in own)


def _may_be(target: str, name: str) -> bool:
    """Return whether a redirection's target is this file, or can become it when bash expands a variable in it."""
    start, dollar, _ = target.partition("$")
    return name.startswith(start) if start and dollar else target == name


def _is_about_its_files(message: str, command: SimpleCommand) -> bool:
    quoted = _QUOTED.findall(message)
    if not quoted or any(_EXPANDED.search(word) for word in command.words) or command.has_flag("rR"):
        return True
    # Without a path as argument, programs such as ls read the current directory.
    return not set(quoted).isdisjoint([*command.words, "."])
