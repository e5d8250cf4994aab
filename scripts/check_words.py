"""Check prose and names against the word list in ``words.toml``: ``check_words.py [PATH ...]``.

Run it in the root of the checkout. It reads Markdown files and notebooks; docstrings, comments, messages and names of
Python files; and comments of scripts, TOML files and the Makefile. Without paths it checks all files, and also reports
exceptions of the word list that no text needs.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("words.toml")
ROOTS = (
    "langchain_daytona_ws", "examples", "benchmarks", "scripts", "tests", "docs",
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile", "pyproject.toml",
)  # fmt: skip
SUFFIXES = (".py", ".md", ".ipynb", ".toml", ".sh", "")
# The parts of a name in snake_case or CamelCase.
NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Code within prose: code spans, targets of links, URLs, HTML comments and tags.
CODE = re.compile(r"(`+)(?:(?!\1).)+?\1|(?<=\])\([^)\s]*\)|https?://\S+|<!--.*?-->|</?\w[^<>]*>", re.DOTALL)
PRAGMA = re.compile(r"^#:?|noqa(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*)?(?: -)?")
SENTENCE = re.compile(r"(?:[A-Za-z']+,? ){3}")
HIDDEN = re.compile(r"(?:^|/)(?:\.[^./]|__pycache__)")
FENCE = re.compile(r"\s*(?:[-*>]\s+)?(`{3,}|~{3,})")

# Table of the word list → the form and the flags of the regular expressions of its entries.
TABLES = {
    "openings": (r"\A(?:{})(?![\w-])", re.IGNORECASE),
    "comments": (r"(?<![\w-])(?:{})(?![\w-])", re.IGNORECASE),
    "prose": (r"(?<![\w-])(?:{})(?![\w-])", re.IGNORECASE),
    "names": (r"{}", 0),
    "name-parts": (r"(?:.*_)?(?:{})(?:_.*)?", 0),
}
# The tables that apply to each kind of text.
DOCSTRING = frozenset({"openings", "comments", "prose"})
COMMENT = frozenset({"comments", "prose"})
MESSAGE = frozenset({"prose"})
NAME = frozenset({"names", "name-parts"})


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of the word list."""

    table: str
    pattern: re.Pattern[str]
    instead: str


@dataclass(slots=True)
class Allowance:
    """An exception: a text that some files may contain."""

    text: re.Pattern[str]
    files: str
    reason: str
    used: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A text that breaks a rule."""

    file: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}: {self.instead}"


@dataclass(slots=True)
class Block:
    """A paragraph as one line of text, with the numbers of its lines in the file."""

    tables: frozenset[str]
    text: str = ""
    starts: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, line: int, text: str) -> None:
        self.starts.append(len(self.text))
        self.lines.append(line)
        self.text += text.strip() + " "

    def line_at(self, offset: int) -> int:
        """Return the number of the line in the file that contains this offset of the text."""
        return self.lines[max(0, bisect_right(self.starts, offset) - 1)]


class WordList:
    def __init__(self, document: dict[str, Any]) -> None:
        self.rules = [
            Rule(table, re.compile(form.format(pattern), flags), instead)
            for table, (form, flags) in TABLES.items()
            for pattern, instead in document.get(table, {}).items()
        ]
        self.allowances = [
            Allowance(re.compile(entry["text"], re.IGNORECASE), entry.get("files", "*"), entry["reason"])
            for entry in document.get("exceptions", [])
        ]

    def _allowed(self, file: str, text: str, start: int, end: int) -> bool:
        """Return True if an exception covers ``text[start:end]``, and mark the exception as used."""
        found = False
        for allowance in self.allowances:
            if fnmatch(file, allowance.files) and any(
                match.start() <= start and end <= match.end() for match in allowance.text.finditer(text)
            ):
                allowance.used = found = True
        return found

    def in_block(self, file: str, block: Block) -> Iterator[Finding]:
        text = CODE.sub(lambda match: "\0" * len(match[0]), block.text)
        for rule in self.rules:
            if rule.table in block.tables:
                for match in rule.pattern.finditer(text):
                    if not self._allowed(file, text, *match.span()):
                        yield Finding(file, block.line_at(match.start()), match[0], rule.instead)

    def in_name(self, file: str, name: str, line: int) -> Iterator[Finding]:
        """Yield the finding about a name, if any. Names of tests are sentences, and are not checked."""
        if name.lstrip("_").startswith("test_"):
            return
        parts = "_".join(NAME_PARTS.findall(name)).lower()
        for rule in self.rules:
            if (
                rule.table in NAME
                and rule.pattern.fullmatch(parts)
                and not self._allowed(file, name, 0, len(name))
            ):
                yield Finding(file, line, name, rule.instead)
                return


def prose_of_python(source: str) -> Iterator[Block]:
    """Yield each docstring, message and comment as a block; comments on consecutive lines are one block."""
    docstrings = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body[:1]:
                case [ast.Expr(value=ast.Constant(value=str(text)) as constant)]:
                    docstrings.add(constant)
                    yield _of_docstring(constant.lineno, text)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in docstrings and SENTENCE.search(text):
                block = Block(MESSAGE)
                block.add(node.lineno, text)
                yield block
    comments = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("#!", "# type:", "# fmt:"))
    ]
    for _, group in groupby(enumerate(comments), lambda pair: (pair[1].start[0] - pair[0], pair[1].start[1])):
        block = Block(COMMENT)
        for _, comment in group:
            block.add(comment.start[0], PRAGMA.sub("", comment.string))
        yield block


def _of_docstring(first_line: int, text: str) -> Block:
    block = Block(DOCSTRING)
    for number, line in enumerate(text.splitlines(), start=first_line):
        if not line.lstrip().startswith((">>>", "...")):
            block.add(number, line)
    return block


def names_of_python(source: str) -> Iterator[tuple[str, int]]:
    """Yield the names that definitions, parameters, assignments and import aliases bind, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


def prose_of_markdown(lines: Sequence[tuple[int, str]]) -> Iterator[Block]:
    """Yield the paragraphs outside of code fences."""
    block, fence = Block(COMMENT), ""
    for number, line in lines:
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence and line.strip():
            block.add(number, line)
            continue
        yield block
        block = Block(COMMENT)
    yield block


def comments_of_script(text: str) -> Iterator[Block]:
    """Yield the comments that have lines of their own; consecutive lines are one block."""
    block = Block(COMMENT)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") and not line.startswith("#!"):
            block.add(number, line.lstrip("# "))
        else:
            yield block
            block = Block(COMMENT)
    yield block


def findings_in(path: Path, rules: WordList) -> list[Finding]:
    file, text = path.as_posix(), path.read_text(encoding="utf-8")
    found: list[Finding] = []
    if path.suffix == ".py":
        found += rules.in_name(file, path.stem, 1)
        for name, line in names_of_python(text):
            found += rules.in_name(file, name, line)
        blocks = [
            block
            for block in prose_of_python(text)
            if block.tables != MESSAGE or "tests" not in path.parts  # strings of tests are data
        ]
    elif path.suffix == ".ipynb":
        blocks = list(_prose_of_notebook(text))
    elif path.suffix == ".md":
        blocks = list(prose_of_markdown(list(enumerate(text.splitlines(), start=1))))
    else:
        blocks = list(comments_of_script(text))
    for block in blocks:
        found += rules.in_block(file, block)
    return sorted(found, key=lambda finding: finding.line)


def _prose_of_notebook(text: str) -> Iterator[Block]:
    """Yield the prose of a notebook. The line numbers are those of its JSON file, not of the cell."""
    file_lines = enumerate(text.splitlines(), start=1)
    for cell in json.loads(text)["cells"]:
        lines: list[tuple[int, str]] = []
        for line in cell["source"]:
            written = json.dumps(line, ensure_ascii=False)
            at = next((number for number, there in file_lines if there.strip().rstrip(",") == written), 0)
            lines.append((at, line))
        if cell["cell_type"] == "markdown":
            yield from prose_of_markdown(lines)
        elif cell["cell_type"] == "code":
            for number, line in lines:
                if line.startswith("#"):
                    block = Block(COMMENT)
                    block.add(number, line.lstrip("# "))
                    yield block


def files_under(paths: Sequence[Path]) -> list[Path]:
    """Return the files to check: the given files, and the files in the given folders."""
    found = {
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and not HIDDEN.search(file.as_posix())
    }
    return sorted(file for file in found if file.suffix in SUFFIXES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings, one on each line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="file or folder; default: all")
    options = parser.parse_args(arguments)
    rules = WordList(tomllib.loads(LIST.read_text(encoding="utf-8")))
    found = [
        finding
        for path in files_under(options.paths or [Path(root) for root in ROOTS])
        for finding in findings_in(path, rules)
    ]
    for finding in found:
        print(finding)
    unused = [] if options.paths else [entry for entry in rules.allowances if not entry.used]
    for entry in unused:
        print(f"{LIST.name}: no text needs this exception: {entry.text.pattern} in {entry.files}")
    if found:
        print(f"{len(found)} findings; the rules and exceptions are in {LIST.name}")
    return 1 if found or unused else 0


if __name__ == "__main__":
    sys.exit(main())
