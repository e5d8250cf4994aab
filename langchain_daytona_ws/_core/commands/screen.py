"""Render a terminal's output as text: the lines that left the main screen, then the screen. Pure.

Lines leave the screen when it scrolls, or when the whole screen is erased.

Colours, titles and character sets are ignored. Cursor movements, erasing, scrolling, tabs and the alternate screen are
applied, so that a progress bar becomes one line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

COLUMNS, ROWS = 80, 24
COLUMNS_RANGE, ROWS_RANGE = range(20, 501), range(5, 201)
# Limit of the work for sequences such as "erase the screen", in cells or lines that they change. In the output after
# this limit, all control codes are dropped, except for line breaks and tabs.
_BUDGET = 1_000_000
_NUMBER_MAX = 9999

_TOKENS = (
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<private>[<-?]?)(?P<numbers>[0-9:;<-?]{0,200})[ -/]{0,4}(?P<csi>[@-~])"
    # Strings, such as a window's title. Of a string that does not end within 4 KiB, only the introducer is dropped.
    r"|\x1b[\]PX^_][^\x07\x18\x1a\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c|\x18|\x1a)"
    r"|\x1b(?:[ -/]{1,4}[0-~]|(?P<escape>[0-~]))"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
_BLANKS = r"\n{4,}"
_Row = list[str]  # a cell is a character with its combining marks; the second cell of a wide character is ""


def render(text: str, columns: int = COLUMNS, rows: int = ROWS, *, limit_chars: int) -> str:
    """Render an output on a terminal of this size: return the lines that left its screen, and then the screen.

    If the result is longer than ``limit_chars``, it is cut off, and a notice follows. The result may be longer than the
    output, because cursor movements become spaces.
    """
    screen = _Screen(columns, rows)
    screen.feed(text)
    shown = screen.text()
    if len(shown) <= limit_chars:
        return shown
    return f"{shown[:limit_chars]}\n[... {len(shown) - limit_chars:,} characters of the screen left out ...]"


class _Screen:
    def __init__(self, columns: int, rows: int) -> None:
        self._columns, self._rows = columns, rows
        self._scrolled: list[str] = []  # the text above the screen; a wrapped line has no line break
        self._lines: list[_Row] = [[] for _ in range(rows)]
        self._wrapped: list[bool] = [False] * rows  # for each line: whether it continues in the next line
        # The main screen while the alternate screen is shown: lines, their ``_wrapped``, position of the cursor.
        self._main: tuple[list[_Row], list[bool], tuple[int, int]] | None = None
        self._x = self._y = 0  # position of the cursor
        self._saved = (0, 0)
        self._top, self._bottom = 0, rows - 1  # first and last line of the scrolling region
        self._last = " "  # the last printed character, which a sequence can repeat
        self._budget = _BUDGET  # cells or lines that sequences may still change
        self._controls: dict[str, Callable[[], object]] = {
            "\n": self._line_feed, "\v": self._line_feed, "\f": self._line_feed, "\r": lambda: self._go(0, self._y),
            "\b": lambda: self._go(min(self._x, self._columns - 1) - 1, self._y),
            "\t": lambda: self._go(self._x // 8 * 8 + 8, self._y),
        }  # fmt: skip
        self._escapes: dict[str, Callable[[], object]] = {
            "7": self._save, "8": self._restore, "D": self._line_feed, "M": self._reverse_line_feed,
            "E": self._next_line, "c": self._reset,
        }  # fmt: skip
        self._sequences: dict[str, Callable[[int, list[int]], object]] = {
            "A": lambda n, _: self._go(self._x, self._y - n), "B": lambda n, _: self._go(self._x, self._y + n),
            "C": lambda n, _: self._go(self._x + n, self._y), "D": lambda n, _: self._go(self._x - n, self._y),
            "E": lambda n, _: self._go(0, self._y + n), "F": lambda n, _: self._go(0, self._y - n),
            "G": lambda n, _: self._go(n - 1, self._y), "`": lambda n, _: self._go(n - 1, self._y),
            "a": lambda n, _: self._go(self._x + n, self._y), "d": lambda n, _: self._go(self._x, n - 1),
            "e": lambda n, _: self._go(self._x, self._y + n), "H": self._position, "f": self._position,
            "J": self._erase_screen, "K": self._erase_line,
            "L": lambda n, _: self._insert_lines(n), "M": lambda n, _: self._delete_lines(n),
            "P": lambda n, _: self._delete_characters(n), "@": lambda n, _: self._insert_blanks(n),
            "X": lambda n, _: self._erase(self._y, self._x, self._x + n),
            "S": lambda n, _: self._scroll_up(n), "T": lambda n, _: self._scroll_down(n),
            "b": lambda n, _: self._repeat(n), "r": self._set_region,
            "s": lambda *_: self._save(), "u": lambda *_: self._restore(),
        }  # fmt: skip

    def feed(self, text: str) -> None:
        for token in re.finditer(_TOKENS, text):
            if self._budget <= 0:
                self._print(
                    re.sub(
                        _TOKENS, lambda rest: rest["text"] or _plain(rest["control"]), text[token.start() :]
                    )
                )
                return
            kind = token.lastgroup
            if kind == "text":
                self._print(token["text"])
            elif kind == "csi":
                self._sequence(token["csi"], token["private"], token["numbers"])
            elif kind == "escape":
                self._escapes.get(token["escape"], _ignore)()
            elif kind == "control":
                self._controls.get(token["control"], _ignore)()

    def text(self) -> str:
        """Return all lines, without white space at their ends. At most two blank lines in a row are kept."""
        lines, wrapped = self._lines, self._wrapped
        parts = list(self._scrolled)
        if self._main is not None:  # a full-screen program did not end: show the main screen first
            parts += [_text(row, keeps_end=goes_on) for row, goes_on in zip(*self._main[:2], strict=True)]
            while parts and not parts[-1].strip():
                parts.pop()
            parts.append("\n")
        parts += [_text(row, keeps_end=goes_on) for row, goes_on in zip(lines, wrapped, strict=True)]
        return re.sub(_BLANKS, "\n\n\n", "".join(parts).rstrip())

    # --- printing ---

    def _print(self, text: str) -> None:
        if text.isascii():
            self._last = text[-1:] or self._last
            start = 0
            while start < len(text):
                if self._x >= self._columns:
                    self._wrap()
                part = text[start : start + self._columns - self._x]
                row = self._padded()
                row[self._x : self._x + len(part)] = part
                self._x += len(part)
                start += len(part)
            return
        for character in text:
            self._put(character)

    def _put(self, character: str) -> None:
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):
            row = self._lines[self._y]
            if 0 < self._x <= len(row) and len(row[self._x - 1]) < 16:
                row[self._x - 1] += character
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._x + width > self._columns:
            self._wrap()
        row = self._padded()
        row[self._x : self._x + width] = [character, *([""] * (width - 1))]
        self._x += width
        self._last = character

    def _padded(self) -> _Row:
        row = self._lines[self._y]
        if len(row) < self._x:
            row += [" "] * (self._x - len(row))
        return row

    def _wrap(self) -> None:
        self._wrapped[self._y] = True
        self._line_feed()
        self._x = 0

    def _repeat(self, count: int) -> None:
        count = min(count, self._columns)
        self._budget -= count
        self._print(self._last * count)

    # --- the cursor ---

    def _go(self, x: int, y: int) -> None:
        self._x = max(0, min(x, self._columns - 1))
        self._y = max(0, min(y, self._rows - 1))

    def _position(self, row: int, numbers: list[int]) -> None:
        self._go(max(1, numbers[1] if len(numbers) > 1 else 1) - 1, row - 1)

    def _save(self) -> None:
        self._saved = (self._x, self._y)

    def _restore(self) -> None:
        self._go(*self._saved)

    def _next_line(self) -> None:
        self._x = 0
        self._line_feed()

    def _line_feed(self) -> None:
        if self._y == self._bottom:
            self._scroll_up(1, keeps_blank=True)
        elif self._y < self._rows - 1:
            self._y += 1

    def _reverse_line_feed(self) -> None:
        if self._y == self._top:
            self._scroll_down(1)
        elif self._y > 0:
            self._y -= 1

    # --- scrolling ---

    def _set_region(self, top: int, numbers: list[int]) -> None:
        bottom = numbers[1] if len(numbers) > 1 and numbers[1] else self._rows
        if top < bottom <= self._rows:
            self._top, self._bottom = top - 1, bottom - 1
            self._go(0, 0)

    def _scroll_up(self, count: int, *, keeps_blank: bool = False) -> None:
        for _ in range(min(count, self._rows)):
            if self._top == 0 and self._main is None:
                line = _text(self._lines[0], keeps_end=self._wrapped[0])
                if keeps_blank or line.strip():
                    self._scrolled.append(line)
            self._remove(self._top, self._bottom)
        if not keeps_blank:  # the number of line feeds is limited by the length of the text
            self._budget -= min(count, self._rows) * self._rows

    def _scroll_down(self, count: int) -> None:
        self._budget -= min(count, self._rows) * self._rows
        for _ in range(min(count, self._rows)):
            self._remove(self._bottom, self._top)

    def _insert_lines(self, count: int) -> None:
        if self._top <= self._y <= self._bottom:
            self._budget -= min(count, self._rows) * self._rows
            for _ in range(min(count, self._rows)):
                self._remove(self._bottom, self._y)

    def _delete_lines(self, count: int) -> None:
        if self._top <= self._y <= self._bottom:
            self._budget -= min(count, self._rows) * self._rows
            for _ in range(min(count, self._rows)):
                self._remove(self._y, self._bottom)

    def _remove(self, old: int, new: int) -> None:
        """Remove the line ``old``, and insert a blank line as line ``new``."""
        del self._lines[old], self._wrapped[old]
        self._lines.insert(new, [])
        self._wrapped.insert(new, False)

    # --- erasing ---

    def _erase_screen(self, _: int, numbers: list[int]) -> None:
        # 0: from the cursor on, 1: up to the cursor, 2: the screen, 3: the lines above the screen (xterm)
        kind = numbers[0]
        if kind == 3:
            return  # the reader of the output still needs the lines above the screen
        if kind in (0, 1):
            self._erase_line(0, [kind])
        first, last = {0: (self._y + 1, self._rows), 1: (0, self._y)}.get(kind, (0, self._rows))
        if kind == 2 and self._main is None:
            # As in many terminals, the erased text is kept above the screen.
            self._keep_screen()
        self._budget -= self._rows
        for y in range(first, last):
            self._lines[y], self._wrapped[y] = [], False

    def _keep_screen(self) -> None:
        used = [y for y in range(self._rows) if any(cell.strip() for cell in self._lines[y])]
        for y in range(used[-1] + 1 if used else 0):
            self._scrolled.append(_text(self._lines[y], keeps_end=self._wrapped[y]))

    def _erase_line(self, _: int, numbers: list[int]) -> None:
        kind = numbers[0]
        first = 0 if kind else self._x
        last = self._x + 1 if kind == 1 else self._columns
        self._erase(self._y, first, last)

    def _erase(self, y: int, first: int, last: int) -> None:
        row = self._lines[y]
        self._budget -= len(row)
        if last >= len(row):
            del row[first:]
            self._wrapped[y] = False
        else:
            row[first:last] = [" "] * (last - first)

    def _delete_characters(self, count: int) -> None:
        self._budget -= self._columns
        del self._lines[self._y][self._x : self._x + count]

    def _insert_blanks(self, count: int) -> None:
        self._budget -= self._columns
        row = self._padded()
        row[self._x : self._x] = [" "] * min(count, self._columns)
        del row[self._columns :]

    # --- modes ---

    def _sequence(self, final: str, private: str, numbers: str) -> None:
        values = [_number(part) for part in numbers.split(";")[:16]]
        if private:
            if private == "?" and final in "hl" and set(values) & {47, 1047, 1049}:
                self._alternate(final == "h")
            return
        self._sequences.get(final, _ignore)(max(1, values[0]), values)

    def _alternate(self, enters: bool) -> None:
        if enters == (self._main is not None):
            return
        self._budget -= self._rows
        self._top, self._bottom = 0, self._rows - 1
        if self._main is None:
            self._main = (self._lines, self._wrapped, (self._x, self._y))
            self._lines, self._wrapped = [[] for _ in range(self._rows)], [False] * self._rows
        else:
            self._lines, self._wrapped, (self._x, self._y) = self._main
            self._main = None

    def _reset(self) -> None:
        self._alternate(enters=False)
        self._erase_screen(0, [2])
        self._top, self._bottom = 0, self._rows - 1
        self._go(0, 0)


def _number(text: str) -> int:
    digits = text.partition(":")[0][:5]
    return min(int(digits), _NUMBER_MAX) if digits.isascii() and digits.isdigit() else 0


def _ignore(*_: object) -> None:
    """Ignore a control code that is not supported."""


def _text(row: _Row, *, keeps_end: bool) -> str:
    line = "".join(row)
    return line if keeps_end else line.rstrip() + "\n"


def _plain(control: str | None) -> str:
    return control if control in ("\n", "\t") else ""
