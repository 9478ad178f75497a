"""Tables of another tool's answers: reading them, and saying how close ours come."""

import csv
import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

__all__ = ["ColumnScore", "Table", "ValidationReport", "architectures_beside", "digits_printed", "read_table"]


@dataclass(frozen=True)
class Table:
    """A reference table: ``rows`` are header -> cell text, ``lines`` their line numbers in the file."""

    path: str
    rows: list[dict[str, str]]
    lines: list[int]

    def integer(self, index: int, column: str, lowest: int = 1) -> int:
        """A whole number >= ``lowest``, or a ValueError that names file, line and column."""
        text = self.rows[index][column]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value != int(value) or value < lowest:
            raise ValueError(
                f"{self.path}, line {self.lines[index]}, column {column}: "
                f"needs a whole number >= {lowest}, got {text!r}"
            )
        return int(value)


def architectures_beside(path) -> Path:
    """The architectures of a table: architectures.json beside it, or X_architectures.json of an X_*.csv."""
    path = Path(path)
    usual = path.parent / "architectures.json"
    own = path.parent / f"{path.stem.split('_')[0]}_architectures.json"
    return own if own.exists() and not usual.exists() else usual


def read_table(path, needed: Iterable[str]) -> Table:
    """A csv file whose header has all ``needed`` columns and which has at least one row.

    Raises ValueError (one sentence naming the file) where it cannot be read, is empty, misses a
    column or has a row shorter than its header.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    reader = csv.reader(text.splitlines())
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"{path}: not a csv table ({error})") from error
    if not any(header):
        raise ValueError(f"{path}: the table is empty, a header line was expected")
    missing = [name for name in needed if name not in header]
    if missing:
        near = difflib.get_close_matches(missing[0], header, 1)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        hint = f"; did the file mean it by {near[0]!r}?" if near else ""
        raise ValueError(f"{path}: column {missing[0]!r}{more} is missing{hint}")
    rows, lines = [], []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}"
            )
        rows.append({name: cell.strip() for name, cell in zip(header, cells)})
        lines.append(reader.line_num)
    if not rows:
        raise ValueError(f"{path}: the table has a header but no rows")
    return Table(str(path), rows, lines)


def digits_printed(text: str) -> int:
    """Digits after the decimal point of a printed number.

    >>> digits_printed("43.17207014"), digits_printed("7927"), digits_printed("1.5e-3")
    (8, 0, 4)
    """
    exponent = Decimal(text).as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


@dataclass
class ColumnScore:
    """One column. ``worst_relative_error`` is |ours - reference| / max(|reference|, 1).

    A row without an answer of ours counts as a miss with a relative error of 1.
    """

    rows: int = 0
    exact: int = 0
    within_1pct: int = 0
    worst_relative_error: float = 0.0
    worst_row: str | None = None

    def add(self, row: str, ours: float | None, reference: str) -> None:
        """Compare one cell; exact means equal after rounding ours to the digits printed."""
        self.rows += 1
        error = 1.0
        if ours is not None and math.isfinite(ours):
            printed = Decimal(reference)
            self.exact += Decimal(f"{ours:.{digits_printed(reference)}f}") == printed
            error = abs(ours - float(printed)) / max(abs(float(printed)), 1.0)
            self.within_1pct += error <= 0.01
        if self.worst_row is None or error > self.worst_relative_error:
            self.worst_relative_error, self.worst_row = error, row


@dataclass
class ValidationReport:
    """How our answers compare with a reference tool's, column by column.

    reference: the tool and its version.  rows: rows compared.  skipped: rows that the reference
    itself excludes, [{"row", "reason"}].  unhandled: rows we have no answer for, same form; they count
    as misses in every column.  columns: name -> `ColumnScore`.
    """

    reference: str
    rows: int = 0
    dtype: str = "float64"
    skipped: list[dict[str, str]] = field(default_factory=list)
    unhandled: list[dict[str, str]] = field(default_factory=list)
    columns: dict[str, ColumnScore] = field(default_factory=dict)

    @property
    def worst_exact_fraction(self) -> float:
        """Smallest share of exact rows over the columns."""
        return min((score.exact / score.rows for score in self.columns.values() if score.rows), default=0.0)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return {
            "reference": self.reference,
            "dtype": self.dtype,
            "rows": self.rows,
            "skipped": self.skipped,
            "unhandled": self.unhandled,
            "columns": {name: dict(vars(score)) for name, score in self.columns.items()},
        }

    def to_json(self) -> str:
        """The same as one JSON object."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        """The columns as an aligned table, for a terminal."""
        lines = [f"{self.reference}: {self.rows} rows, our figures in {self.dtype}"]
        lines.append(f"{'column':26s} {'rows':>5s} {'exact':>6s} {'<= 1 %':>6s} {'worst error':>12s}  row")
        for name, score in self.columns.items():
            error, row = f"{score.worst_relative_error:.2g}", score.worst_row or ""
            lines.append(
                f"{name:26s} {score.rows:5d} {score.exact:6d} {score.within_1pct:6d} {error:>12s}  {row}"
            )
        for title, items in (("no answer of ours", self.unhandled), ("skipped", self.skipped)):
            lines += [f"{title}: {item['row']}: {item['reason']}" for item in items]
        return "\n".join(lines)

    def add(self, column: str, row: str, ours: float | None, reference: str, where: str) -> None:
        """Compare one cell; ``where`` names file and line for the error of a cell that is no number."""
        try:
            known = Decimal(reference).is_finite()
        except InvalidOperation:
            known = False
        if not known:
            raise ValueError(f"{where}, column {column}: needs a number, got {reference!r}")
        self.columns[column].add(row, ours, reference)
