"""A user's mistake: one sentence, exit code 2."""

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "nearest"]


class UserError(ValueError):
    """What was wrong, what is allowed. Shown as it is."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'edp'?`` or nothing."""
    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
