"""List the simple commands of a shell script, for hints only: a mistake costs little here. Pure.

A simple command is one program with its words and redirections. Quotes, here-documents, substitutions and programs that
run another program are parsed; nothing is expanded. Approvals use `permissions.shell`, which is strict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

CHARS = 16 * 1024
_NESTED = 20  # maximum number of nested substitutions, and of commands in one `find`
_SHELL_DEPTH = 4  # maximum number of nested bash -c
_SEPARATORS = ";&|()\n"
# Beginning → end of comments, arithmetic and conditions. They are skipped: commands in them are rare.
_SKIPPED = {"#": "\n", "((": "))", "[[ ": " ]]"}
_REDIRECT = re.compile(r"\d{0,3}(?:>>|>\||>&|<<<|<<-|<<|<&|<>|>|<)|&>>|&>")
_PLAIN = re.compile(r"[^\s;&|()<>'\"`$\\#{}]{1,4096}|[#{}]")
_ASSIGNMENT = re.compile(r"\w{1,100}=")
_PYTHON = re.compile(r"^python[0-9.]{1,8}$")
_KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{", "coproc"})
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash"})
# Programs that run another command → number of arguments before that command, without options.
_RUNNERS = {
    "sudo": 0, "exec": 0, "env": 0, "nohup": 0, "command": 0, "setsid": 0, "nice": 0, "ionice": 0, "stdbuf": 0,
    "time": 0, "xargs": 0, "busybox": 0, "timeout": 1,
}  # fmt: skip
_RUNNER_OPTIONS_WITH_VALUE = frozenset({"-n", "-u", "-g", "-s", "-k", "-c", "-P", "-I", "-L", "-d", "-a"})


@dataclass(frozen=True, slots=True)
class Redirect:
    """One redirection. ``operator`` omits the descriptor: ``2>>`` becomes ``>>``."""

    operator: str
    target: str


@dataclass(slots=True)
class SimpleCommand:
    """One simple command.

    Attributes:
        words: The program and its arguments, without quotes. A substitution becomes ``$…``; a variable stays as it is
            written.
        stdin: The text of the here-document or here-string.
    """

    words: list[str] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)
    stdin: str = ""

    @property
    def program(self) -> str:
        """The program's name without its directory; ``""`` if there are only redirections and assignments."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def plain_program(self) -> str:
        """The program's name; ``python3.12`` and other versions become ``python``."""
        return _PYTHON.sub("python", self.program)

    @property
    def arguments(self) -> list[str]:
        return self.words[1:]

    @property
    def verb(self) -> str:
        """The first argument that is not an option."""
        return next((word for word in self.arguments if not word.startswith("-")), "")

    def has_flag(self, letters: str, *names: str) -> bool:
        """Return whether the command has a short option with one of the letters, or one of the long options."""
        for word in self.arguments:
            if word.startswith("--"):
                if word.partition("=")[0] in names:
                    return True
            elif word.startswith("-") and not set(letters).isdisjoint(word[1:]):
                return True
        return False

    @property
    def code(self) -> str:
        """The program text that the command passes: after ``-c`` or ``-e``, or as a here-document or here-string."""
        for option, text in zip(self.arguments, self.arguments[1:], strict=False):
            if re.fullmatch(r"-\w{0,5}[ce]", option):
                return text
        return self.stdin


def simple_commands(command: str) -> list[SimpleCommand]:
    """Return the simple commands, also nested ones, in the first 16,384 characters of a script."""
    return list(_with_nested(command[:CHARS], _SHELL_DEPTH))


def _with_nested(text: str, depth: int) -> Iterator[SimpleCommand]:
    for command in _Reader(text).read():
        found = _unwrapped(command)
        yield found
        if depth > 0 and found.program in _SHELLS:
            inner = found.code
            if inner:
                yield from _with_nested(inner, depth - 1)
        if found.program == "find":
            yield from _commands_of_find(found)


def _commands_of_find(command: SimpleCommand) -> Iterator[SimpleCommand]:
    words = command.words
    starts = [i + 1 for i, word in enumerate(words) if word in ("-exec", "-execdir", "-ok")]
    for start in starts[:_NESTED]:
        end = next((j for j in range(start, len(words)) if words[j] in (";", "+")), len(words))
        yield _unwrapped(SimpleCommand(words[start:end]))


def _unwrapped(command: SimpleCommand) -> SimpleCommand:
    """Remove the words before the program: shell keywords, assignments, and programs that run another program."""
    words = command.words
    start = 0
    while start < len(words):
        word = words[start]
        name = word.rpartition("/")[2]
        if word in _KEYWORDS or _ASSIGNMENT.match(word):
            start += 1
            continue
        if name not in _RUNNERS:
            break
        after = start + 1
        while after < len(words) and words[after].startswith("-"):
            after += 2 if words[after] in _RUNNER_OPTIONS_WITH_VALUE else 1
        after += _RUNNERS[name]
        if after >= len(words):
            break
        start = after
    return SimpleCommand(words[start:], command.redirects, command.stdin)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: list[SimpleCommand] = []
        # The unfinished commands around open substitutions: the command, its unfinished word, its pending redirection
        # operator (with ``"`` appended if the substitution is in double quotes), and the substitution's end.
        self._open: list[tuple[SimpleCommand, str | None, str, str]] = []
        self._command = SimpleCommand()
        self._word: str | None = None
        self._redirect = ""
        self._here: list[tuple[SimpleCommand, str, bool]] = []
        self._in_quotes = False

    def read(self) -> list[SimpleCommand]:
        text = self._text
        while self._at < len(text):
            if self._in_quotes:
                self._read_quoted()
            else:
                self._read_bare()
        while self._open:
            self._leave_substitution()
        self._end_command()
        return self._found

    # --- pieces ---

    def _add(self, text: str) -> None:
        self._word = (self._word or "") + text

    def _read_bare(self) -> None:
        text, at = self._text, self._at
        char = text[at]
        if char in " \t\r":
            self._end_word()
            self._at += 1
        elif char == "\\":
            if text[at + 1 : at + 2] != "\n":
                self._add(text[at + 1 : at + 2])
            self._at += 2
        elif char == "'":
            self._at = self._position_after("'", at + 1)
            self._add(text[at + 1 : self._at].removesuffix("'"))
        elif char == '"':
            self._add("")
            self._in_quotes = True
            self._at += 1
        elif not (self._read_substitution() or self._read_at_a_word_start() or self._read_separator()):
            plain = _PLAIN.match(text, at)
            self._add(plain[0] if plain else char)
            self._at = plain.end() if plain else at + 1

    def _read_at_a_word_start(self) -> bool:
        """Read a redirection, or, if no word has begun, a comment, arithmetic or a condition."""
        text, at = self._text, self._at
        found = _REDIRECT.match(text, at)
        if found and (self._word is None or not found[0][0].isdigit()):
            self._end_word()
            self._redirect = found[0].lstrip("0123456789")
            self._at = found.end()
            return True
        if self._word is None:
            for begin, end in _SKIPPED.items():
                if text.startswith(begin, at):
                    after = self._position_after(end, at)
                    # The line break after a comment also ends a command, so it is read next.
                    self._at = after - 1 if text.endswith("\n", at, after) else after
                    return True
        return False

    def _read_separator(self) -> bool:
        char = self._text[self._at]
        if char not in _SEPARATORS:
            return False
        if char == ")" and self._open:
            self._leave_substitution()
        else:
            self._end_command()
        self._at += 1
        if char == "\n":
            self._read_here()
        return True

    def _read_quoted(self) -> None:
        text, at = self._text, self._at
        char = text[at]
        if char == '"':
            self._in_quotes = False
            self._at += 1
        elif char == "\\":
            following = text[at + 1 : at + 2]
            self._add(following if following in '"\\$`' else "" if following == "\n" else "\\" + following)
            self._at += 2
        elif not self._read_substitution():
            end = at + 1
            while end < len(text) and text[end] not in '"\\$`':
                end += 1
            self._add(text[at:end])
            self._at = end

    def _read_substitution(self) -> bool:
        text, at = self._text, self._at
        if text.startswith("$((", at):
            self._add("$…")
            self._at = self._position_after("))", at)
            return True
        if text.startswith("$(", at) and len(self._open) < _NESTED:
            self._enter_substitution(")")
            self._at += 2
            return True
        if text[at] == "`":
            if self._open and self._open[-1][3] == "`":
                self._leave_substitution()
            elif len(self._open) < _NESTED:
                self._enter_substitution("`")
            self._at += 1
            return True
        return False

    def _position_after(self, end: str, at: int) -> int:
        found = self._text.find(end, at)
        return len(self._text) if found < 0 else found + len(end)

    def _enter_substitution(self, end: str) -> None:
        self._add("$…")
        quoted = '"' if self._in_quotes else ""
        self._open.append((self._command, self._word, self._redirect + quoted, end))
        self._command, self._word, self._redirect, self._in_quotes = SimpleCommand(), None, "", False

    def _leave_substitution(self) -> None:
        self._end_command()
        self._command, self._word, redirect, _ = self._open.pop()
        self._in_quotes = redirect.endswith('"')
        self._redirect = redirect.removesuffix('"')

    # --- ends ---

    def _end_word(self) -> None:
        word, self._word = self._word, None
        if word is None:
            return
        redirect, self._redirect = self._redirect, ""
        if redirect in ("<<", "<<-"):
            self._here.append((self._command, word, redirect == "<<-"))
        elif redirect == "<<<":
            self._command.stdin = word
        elif redirect:
            self._command.redirects.append(Redirect(redirect, word))
        else:
            self._command.words.append(word)

    def _end_command(self) -> None:
        self._end_word()
        if (
            self._command.words
            or self._command.redirects
            or any(command is self._command for command, _, _ in self._here)
        ):
            self._found.append(self._command)
        self._command, self._redirect = SimpleCommand(), ""

    def _read_here(self) -> None:
        """Read the here-documents of the line that has just ended."""
        waiting, self._here = self._here, []
        for command, end, is_indented in waiting:
            lines = []
            while self._at < len(self._text):
                stop = self._text.find("\n", self._at)
                stop = len(self._text) if stop < 0 else stop
                line = self._text[self._at : stop]
                self._at = stop + 1
                if (line.lstrip("\t") if is_indented else line) == end:
                    break
                lines.append(line)
            command.stdin = "\n".join(lines)
