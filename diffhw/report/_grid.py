"""One table, three ways to show it: plain text, a rich table in a terminal, HTML."""

import html as _html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diffhw.models._show import digits, scaled_unit

__all__ = ["Table", "column"]


def column(
    name: str, values: Iterable[float | None], unit: str, like: float | None = None
) -> tuple[str, list[str]]:
    """Head "name (unit)" and cells, all in the unit in which ``like``, or the middle value, reads best."""
    values = list(values)
    sizes = sorted(abs(v) for v in values if v is not None and v != 0 and math.isfinite(v))
    factor, shown = scaled_unit(like or (sizes[len(sizes) // 2] if sizes else 0.0), unit)
    if name == unit:  # "cycles (M)", not "cycles (M cycles)"
        shown = shown.removesuffix(unit).strip()
    head = f"{name} ({shown})" if shown else name
    cells = []
    for value in values:
        if value is None:
            cells.append("-")
        elif unit == "%":
            cells.append(f"{value * 100:.1f}")
        else:
            cells.append(digits(value / factor))
    return head, cells


def _folded(head: str, cells: Sequence[str]) -> tuple[str, str]:
    """A head on two lines if it would be wider than its cells; only the upper one may be empty."""
    room = max(map(len, cells), default=0)
    first, space, last = head.rpartition(" ")
    if head.endswith(")"):
        first, space, last = head.partition(" (")
        last = f"({last}" if space else head
    return (first, last) if space and len(head) > room else ("", head)


@dataclass(frozen=True)
class Table:
    """Cells as text, ready to read.

    title: one line.  heads: names with units.  rows: one cell per head.
    left: indices of the columns aligned left; the others hold numbers.
    marked: indices of the rows to stress.  notes: sentences below the table.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)
    marked: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_columns(cls, title: str, columns: Sequence[tuple[str, Sequence[str]]], **more) -> "Table":
        """From (head, cells) pairs of equal length."""
        heads = tuple(head for head, _ in columns)
        return cls(title, heads, tuple(zip(*(cells for _, cells in columns), strict=True)), **more)

    def _lines(self, columns: list[int]) -> list[tuple[str, bool]]:
        """(line, stressed) of a part of the table."""
        shown = [[row[i] for i in columns] for row in self.rows]
        pairs = [_folded(self.heads[i], [row[j] for row in shown]) for j, i in enumerate(columns)]
        tops, bottoms = [list(half) for half in zip(*pairs, strict=True)]
        widths = [max(len(row[j]) for row in (tops, bottoms, *shown)) for j in range(len(columns))]

        def line(row, mark="  "):
            cells = zip(row, widths, columns, strict=True)
            padded = [
                f"{cell:<{width}}" if i in self.left else f"{cell:>{width}}" for cell, width, i in cells
            ]
            return (mark + "  ".join(padded)).rstrip()

        heads = [line(row) for row in (tops, bottoms) if any(row)]
        body = [
            (line(row, "> " if i in self.marked else "  "), i in self.marked) for i, row in enumerate(shown)
        ]
        return [
            *((head, False) for head in heads),
            ("  " + "  ".join("-" * width for width in widths), False),
            *body,
        ]

    def _blocks(self, width: int | None) -> list[list[tuple[str, bool]]]:
        """The table in as many parts as the width asks for, each with the first column."""
        blocks, columns = [], [0]
        for i in range(1, len(self.heads)):
            wider = self._lines([*columns, i])
            if width is not None and len(columns) > 1 and max(len(line) for line, _ in wider) > width:
                blocks.append(self._lines(columns))
                columns = [0]
            columns.append(i)
        return [*blocks, self._lines(columns)]

    def text(self, width: int | None = None) -> str:
        """Aligned plain text. width: a table that is wider goes on below itself (default: any width)."""
        parts = ["\n".join(line for line, _ in block) for block in self._blocks(width)]
        return "\n".join([self.title, "\n\n".join(parts), *(f"  {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def __rich_console__(self, console, options):
        from rich.text import Text

        yield Text(self.title, "bold")
        for i, block in enumerate(self._blocks(options.max_width)):
            if i:
                yield Text("")
            for line, stressed in block:
                yield Text(line, "bold green" if stressed else "", no_wrap=True, overflow="ignore")
        for note in self.notes:
            yield Text(f"  {note}", "dim")

    def html(self) -> str:
        """A table element, all text escaped; wide ones are to be put into a box that scrolls."""
        kind = lambda i: "" if i in self.left else " class='n'"
        head = "".join(f"<th{kind(i)}>{_html.escape(cell)}</th>" for i, cell in enumerate(self.heads))
        body = "".join(
            f"<tr{' class=found' if j in self.marked else ''}>"
            + "".join(f"<td{kind(i)}>{_html.escape(cell)}</td>" for i, cell in enumerate(row))
            + "</tr>"
            for j, row in enumerate(self.rows)
        )
        notes = "".join(f"<p class='note'>{_html.escape(note)}</p>" for note in self.notes)
        return (
            f"<p class='title'>{_html.escape(self.title)}</p><div class='scroll'><table><thead>"
            f"<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
        )

    def _repr_html_(self) -> str:
        return self.html()
