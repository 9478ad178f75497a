"""How far a long command is: a bar with the live best on a terminal, a line now and then elsewhere."""

import math
import sys
import time
from typing import Any

from diffhw.models._show import quantity

__all__ = ["Progress"]

_STAGES = {
    "search": "searching",
    "certificate": "certifying: every legal design",
    "report": "explaining",
    "validate": "replaying",
    "sweep": "sweeping",
}
_EVERY_S = 5.0


class Progress:
    """Callable as ``progress(stage, done, total, best)``; a context manager. Writes to standard error only.

    unit: of ``best``.  note: more to say, such as the rate.
    """

    def __init__(self, unit: str = ""):
        self.unit = unit
        self._bar: Any = None
        self._tasks: dict = {}
        self._stage, self._told, self._began = "", 0.0, time.monotonic()

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                SpinnerColumn,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
            )
            from rich.progress import Progress as Bars

            self._bar = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TaskProgressColumn(),
                TextColumn("{task.fields[best]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._tasks["start"] = self._bar.add_task("preparing", total=None, best="")
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(
        self, stage: str, done: float, total: float, best: float | None = None, note: str = ""
    ) -> None:
        text = f"best {quantity(best, self.unit)}" if best is not None and math.isfinite(best) else ""
        text = ", ".join(part for part in (text, note) if part)
        if self._bar is not None:
            self._show(stage, done, total, text)
            return
        now = time.monotonic()
        if stage == self._stage and now - self._told < _EVERY_S:
            return
        self._stage, self._told = stage, now
        share = f" {100 * done / total:.0f} %" if total and math.isfinite(total) else ""
        parts = [f"{now - self._began:.0f} s", f"{_STAGES.get(stage, stage)}{share}", text]
        print("diffhw: " + ", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def _show(self, stage: str, done: float, total: float, text: str) -> None:
        bar = self._bar
        if stage not in self._tasks:
            for name, task in self._tasks.items():
                bar.update(task, visible=name != "start", completed=bar.tasks[task].total or 0)
            self._tasks[stage] = bar.add_task(_STAGES.get(stage, stage), total=total, best="")
        bar.update(self._tasks[stage], completed=done, total=total, best=text)
