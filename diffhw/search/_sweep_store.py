"""The folder of a sweep: what it is, its finished chunks, its answer. Every file appears whole or not at all.

manifest.json          what decides the result; another sweep is refused
chunks/000000123.json  the best designs and the front of a finished chunk, with a checksum
record/part-000000123.parquet   every design of the chunk, if asked for; written before the former
claims/                which process works on what (`_sweep_claims`)
result.json, top.parquet, pareto.parquet   the answer: the same bytes however the work was done
timing.json            how long it took
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffhw.search._sweep_claims import is_abandoned, private
from diffhw.search._sweep_front import Found

__all__ = ["Store", "differences"]

FORMAT = 1


class _Told(OSError):
    """An OSError that says what is safe and how to go on."""


class Store:
    """A folder. manifest: JSON-able, see `_sweep.py`.  patience: seconds until foreign leftovers are removed.

    ``notes`` collects what was repaired. Raises ValueError if the folder holds another sweep, OSError
    with what is safe and how to go on if it cannot be written.
    """

    def __init__(self, out: Path, manifest: dict[str, Any], patience: float):
        self.out, self.notes, self.patience = out, [], patience
        self.manifest = json.loads(json.dumps(manifest))
        with self.guard():
            (out / "chunks").mkdir(parents=True, exist_ok=True)
            if manifest["record"]:
                (out / "record").mkdir(exist_ok=True)
            self._tidy()
            self._introduce()

    def _tidy(self) -> None:
        """Remove what killed processes were writing."""
        for folder in (self.out, *(self.out / name for name in ("chunks", "record", "claims"))):
            for path in folder.glob(".*~*") if folder.is_dir() else ():
                if is_abandoned(path, self.patience):
                    path.unlink(missing_ok=True)

    def _introduce(self) -> None:
        path = self.out / "manifest.json"
        if not path.exists():
            finished = next((self.out / "chunks").iterdir(), None)
            if finished is not None:
                raise ValueError(
                    f"{self.out} holds chunks of a sweep but no manifest.json; use another folder"
                )
            self.write(path, _text(self.manifest), replace=False)
        try:
            there = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); use another folder") from None
        found = differences(there, self.manifest)
        if found:
            told = "; ".join(f"{name}: {old} in {self.out}, {new} now" for name, old, new in found[:3])
            more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
            raise ValueError(
                f"{self.out} holds another sweep: {told}{more}; use another folder, or the same arguments"
            )

    # Chunks -----------------------------------------------------------------------------------

    def path(self, chunk: int) -> Path:
        """Of a finished chunk."""
        return self.out / "chunks" / f"{chunk:09d}.json"

    def part(self, chunk: int) -> Path:
        """Of its record."""
        return self.out / "record" / f"part-{chunk:09d}.parquet"

    def is_done(self, chunk: int) -> bool:
        """True if the chunk's file is there (perhaps damaged)."""
        return self.path(chunk).exists()

    def save(self, chunk: int, feasible: int, top: Found, front: Found, record: bytes | None) -> None:
        """Record first, so that a chunk that counts as finished has all its files."""
        data: dict[str, Any] = {"chunk": chunk, "feasible": feasible}
        data["top"], data["pareto"] = _listed(top), _listed(front)
        if record is not None:
            data["record"] = {"bytes": len(record), "sha256": hashlib.sha256(record).hexdigest()}
        with self.guard():
            if record is not None:
                self.write(self.part(chunk), record)
            text = _text({"format": FORMAT, "sha256": _digest(data), "data": data}, indent=None)
            self.write(self.path(chunk), text)

    def load(self, chunk: int, dtype) -> tuple[int, Found, Found] | None:
        """(feasible, best, front), or None if the chunk is to be done; a damaged one is removed and noted."""
        path = self.path(chunk)
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            return self._drop(chunk, f"cannot be read ({error})")
        try:
            document = json.loads(text)
            data = document["data"]
            if document["sha256"] != _digest(data) or data["chunk"] != chunk:
                return self._drop(chunk, "does not match its checksum")
            result = data["feasible"], _found(data["top"], dtype), _found(data["pareto"], dtype)
        except (ValueError, KeyError, TypeError):
            return self._drop(chunk, "is damaged")
        if self.manifest["record"]:
            trouble = _damage(self.part(chunk), data["record"])
            if trouble:
                return self._drop(chunk, f"is without its record: {self.part(chunk).name} {trouble}")
        return result

    def _drop(self, chunk: int, why: str) -> None:
        self.notes.append(f"chunk {chunk} is done again: {self.path(chunk).name} {why}")
        self.path(chunk).unlink(missing_ok=True)

    # The answer -------------------------------------------------------------------------------

    def finish(self, result: dict[str, Any], timing: dict[str, Any], tables: dict[str, bytes]) -> list[Path]:
        """Write it, tables by name; returns the paths."""
        contents = {"result.json": _text(result), **tables, "timing.json": _text(timing)}
        with self.guard():
            for name, content in contents.items():
                self.write(self.out / name, content)
            self._tidy()
        return [self.out / name for name in contents]

    def write(self, path: Path, content: str | bytes, replace: bool = True) -> None:
        """A file that appears whole or not at all, and stays after a power cut."""
        data = content.encode() if isinstance(content, str) else content
        temporary = path.with_name(private("tmp", path.name))
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass
                except OSError:  # a file system without links
                    if not path.exists():
                        os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if hasattr(os, "O_DIRECTORY"):
            handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def guard(self):
        """Turns an OSError into a sentence."""
        try:
            yield
        except _Told:
            raise
        except OSError as error:
            raise self._told(error) from error

    def _told(self, error: OSError) -> "_Told":
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1))
        try:
            finished = sum(1 for path in (self.out / "chunks").iterdir() if path.suffix == ".json")
        except OSError:
            finished = 0
        what = "the disk is full" if full else (error.strerror or str(error))
        remedy = "make room" if full else "make the folder writable"
        safe = f"{finished} finished chunks are safe" if finished else "nothing was lost"
        where = error.filename if isinstance(error.filename, str) and not full else self.out
        told = _Told(f"cannot write {where}: {what}; {safe}: {remedy} and run the same again to go on")
        told.errno = error.errno
        return told


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, str, str]]:
    """(where, there, now) of all differences between two JSON documents."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*new, *(key for key in old if key not in new)]:
            below = f"{path}.{key}" if path else str(key)
            found += differences(old.get(key), new.get(key), below)
        return found
    return [] if old == new else [(_named(path), _short(old), _short(new))]


def _named(path: str) -> str:
    # "space.variables.rows" reads as "space variable rows".
    head = "space.variables."
    if path.startswith(head):
        return "space variable " + path[len(head) :]
    return "the traced evaluate" if path == "program" else path.removeprefix("identity.")


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 160 else text[:150] + "..."


def _text(document, indent: int | None = 1) -> str:
    return json.dumps(document, indent=indent) + "\n"


def _digest(data: dict) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _listed(found: Found) -> dict[str, list]:
    return {"at": found.at.tolist(), "figures": [column.tolist() for column in found.figures]}


def _found(listed: dict[str, Sequence], dtype) -> Found:
    columns = tuple(np.asarray(column, dtype) for column in listed["figures"])
    return Found(np.asarray(listed["at"], np.int64), columns)


def _damage(path: Path, record: dict[str, Any]) -> str | None:
    """What is wrong with a Parquet file, judged by its length and its checksum."""
    try:
        size = path.stat().st_size
        if size != record["bytes"]:
            return f"has {size} bytes, not {record['bytes']}"
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error.strerror or "cannot be read"
    return None if digest == record["sha256"] else "does not match its checksum"
