"""Writing results so that a kill at any moment leaves whole files: the old ones or the new ones."""

import os
import shutil
import tempfile
from pathlib import Path

from diffhw._cli._errors import UserError

__all__ = ["check_writable", "write_all"]


def _existing(path: Path) -> Path:
    """The nearest ancestor that exists (or ``path``)."""
    while not path.exists():
        path = path.parent
    return path


def check_writable(out: str, option: str = "--out") -> Path:
    """The folder as a path; raises `UserError` if files cannot be put there. Leaves nothing behind.

    option: what the user calls it.
    """
    if not out.strip():
        raise UserError(f"{option} needs the name of a folder, got an empty one")
    path = Path(out)
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{option} {out} is a file, it must be a folder")
        near = _existing(path.absolute())
        if not near.is_dir():
            raise UserError(f"{option} {out} cannot be made: {near} is a file")
        with tempfile.TemporaryDirectory(prefix=".diffhw-", dir=near):
            pass
    except OSError as error:
        raise UserError(f"{option} {out} cannot be written: {error.strerror or error}") from None
    return path


def write_all(out: Path, writers: dict) -> list[Path]:
    """Write each file into a folder beside ``out``, then move all of them in, one step per file.

    writers: file name -> function of the path. The order is kept; put the file that tells the others
    are complete last. Raises OSError; then ``out`` is as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name, write in writers.items():
            write(stage / name)
        out.mkdir(exist_ok=True)
        for name in writers:
            os.replace(stage / name, out / name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return [out / name for name in writers]
