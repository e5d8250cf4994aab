"""Detect commands that end in a pipeline, and select the exit codes that the model needs. Pure.

A pipeline exits with the code of its last part: ``pytest | tail`` exits with 0 even if tests failed.
"""

from __future__ import annotations

import functools
import re

READ_CHARS = 64 * 1024
PARTS_MAX = 32
SIGPIPE = 141
"""The exit code of a part that was killed by SIGPIPE: it wrote after the next part had ended (``yes | head -1``)."""

# An EXIT trap of bash, which is set before the command, reports the exit codes. A command with one of these words gets
# no trap, because it could notice the trap, or could send a signal to bash, which handles signals differently if it has
# an EXIT trap.
_COULD_SEE = r"\btrap\b|PIPESTATUS|BASH_|verbose|restricted|set +-\w*[vr]|\$\{?_\b|\$\$|PPID"

_OPENING = {
    "if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}", "[[": "]]",
}  # fmt: skip
_CONTINUING = frozenset({"then", "do", "else", "elif", "time", "!"})
# Builtins that may follow a pipeline, as in ``a | b || true``. If the last command is a program, bash replaces itself
# by the program, and never runs the trap.
_BUILTINS = frozenset({"true", ":", "echo", "false", "exit", "printf"})


@functools.cache
def _token() -> re.Pattern[str]:
    return re.compile(
        r"""
          (?P<blank>[ \t\r]+|\\\n)
        | (?P<newline>\n)
        | <<<
        | <<(?P<tabs>-?)[ \t]*(?:'(?P<single>[^'\n]+)'|"(?P<double>[^"\n]+)"|\\?(?P<bare>[\w.+-]+))
        | (?P<redirect>>\||[<>]\(?&?|&>>?)
        | (?P<either>&&|\|\|)
        | (?P<pipe>\|&?)
        | (?P<end>;;?&?|&)
        | (?P<paren>[()])
        | (?P<keyword>(?:if|while|until|for|select|case|\{|\[\[|then|do|else|elif|!|time|fi|done|esac|\}|\]\])
            (?=[\s;|&()<>]|$))
        | (?P<comment>\#[^\n]*)
        | (?P<word>(?:[^\s\\'"$`()<>|&;]|\\[\s\S]|'[^']*'|\$?"(?:\\[\s\S]|[^"\\])*"|\$'(?:\\[\s\S]|[^'\\])*'
            |`[^`]*`|\$\{[^}]{0,200}\})+)
        | (?P<expansion>\$\()
        | [\s\S]
        """,
        re.VERBOSE,
    )


def ends_in_pipeline(command: str) -> bool:
    """Return whether the last command at the top level of a script is a pipeline.

    A wrong result is harmless. After True, bash reports the exit codes of the last pipeline that ran; after False, it
    reports none.
    """
    if len(command) > READ_CHARS or re.search(_COULD_SEE, command):
        return False
    reader, pattern = _Reader(), _token()
    position = 0
    while position < len(command):
        token = pattern.match(command, position)
        assert token is not None  # noqa: S101 - the pattern's last alternative matches any character
        position = token.end()
        if not reader.take(token):
            return False
        if token.lastgroup == "newline":
            position = reader.after_here_documents(command, position)
    return reader.ends_in_pipeline


class _Reader:
    """Reads the tokens of a script, and tracks the open compound commands and the current list of commands."""

    def __init__(self) -> None:
        self._closing: list[str] = []  # the words that close the open compound commands
        self._may_start = True  # whether the next word starts a command, so that it may be a keyword
        self._needs_command = True  # at the start of a list, and after an operator
        self._follows_and_or = False  # whether no word has followed the latest && or || yet
        # Here-documents that start on the next line: the delimiter, and whether tabs before it are ignored (<<-).
        self._here: list[tuple[str, bool]] = []
        self._pipes = 0  # number of | in the current list of commands
        self._negated = False  # whether ! precedes the current list
        self._previous_was_pipeline = False

    @property
    def ends_in_pipeline(self) -> bool:
        if self._closing:
            return False
        return self._previous_was_pipeline if self._needs_command else self._pipes > 0 and not self._negated

    def take(self, token: re.Match[str]) -> bool:
        """Read a token; return False if the syntax is not supported."""
        kind, text = token.lastgroup, token[0]
        delimiter = token["single"] or token["double"] or token["bare"]
        if delimiter:
            self._here.append((delimiter, bool(token["tabs"])))
        elif kind in {"blank", "comment"}:
            pass
        elif kind in {"newline", "end"}:
            self._end(text)
        elif kind in {"either", "pipe"}:
            self._join(kind)
        elif kind in {"paren", "expansion"} or text.endswith("("):
            return self._parenthesis(text)
        elif kind == "keyword" and (self._may_start or text == "]]"):
            return self._keyword(text)
        else:
            if self._may_start and not self._closing and self._follows_and_or and text not in _BUILTINS:
                self._pipes = 0
            self._word()
        return True

    def _word(self) -> None:
        self._may_start = self._needs_command = self._follows_and_or = False

    def _end(self, text: str) -> None:
        if self._closing:
            self._may_start = True
        elif not self._needs_command:
            self._previous_was_pipeline = self._pipes > 0 and not self._negated and text != "&"
            self._pipes, self._negated = 0, False
            self._may_start = self._needs_command = True

    def _join(self, kind: str) -> None:
        if not self._closing:
            self._pipes += kind == "pipe"
            self._follows_and_or = kind == "either"
        self._may_start = self._needs_command = True

    def _parenthesis(self, text: str) -> bool:
        if text != ")":
            self._closing.append(")")
            self._may_start = True
            return True
        if self._closing[-1:] == ["esac"]:  # after a pattern
            self._may_start = True
            return True
        return self._close(")")

    def _keyword(self, text: str) -> bool:
        if text in _OPENING:
            self._closing.append(_OPENING[text])
            self._may_start = text not in {"for", "select", "case", "[["}
        elif text in _CONTINUING:
            self._negated = self._negated or (text == "!" and not self._closing)
        else:
            return self._close(text)
        return True

    def _close(self, text: str) -> bool:
        if self._closing[-1:] != [text]:
            return False
        self._closing.pop()
        self._word()
        # In ``f() { ...; }`` a command follows the parenthesis.
        self._may_start = text == ")"
        return True

    def after_here_documents(self, command: str, position: int) -> int:
        """Return the position after the here-documents that follow a line break."""
        for delimiter, tabs in self._here:
            start = r"\t*" if tabs else ""
            end = re.compile(rf"^{start}{re.escape(delimiter)}$\n?", re.MULTILINE).search(command, position)
            position = end.end() if end else len(command)
        self._here.clear()
        return position


def relevant_exit_codes(value: object, exit_code: int) -> tuple[int, ...]:
    """Return the exit codes of a pipeline's parts if a part before the last failed; otherwise ().

    A part that was killed by SIGPIPE counts as failed only if ``pipefail`` makes 141 the exit code of the command. If
    ``value`` is invalid, or if the pipeline did not determine the exit code of the command, the result is ().

    Args:
        value: From the sandbox: bash's exit code, then the exit codes of the parts of the last pipeline that ran.
        exit_code: The command's exit code.
    """
    if not isinstance(value, list) or not 3 <= len(value) <= PARTS_MAX + 1:
        return ()
    if not all(type(code) is int and 0 <= code <= 255 for code in value):
        return ()
    shell, *parts = value
    by_pipefail = next((code for code in reversed(parts) if code), 0)
    # If the codes differ, the pipeline was not the last command: it was a condition, or an exit followed.
    if shell != exit_code or shell not in (parts[-1], by_pipefail):
        return ()
    failed = any(code not in (0, SIGPIPE) for code in parts[:-1])
    return tuple(parts) if failed or shell != parts[-1] else ()
