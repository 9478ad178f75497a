"""Which process works on which chunk, settled by files in a folder that all of them see.

A claim is a file made with O_EXCL; its modification time is its heartbeat. One that has stood still for too
long, or whose process is dead on this machine, is taken over by renaming it first, which only one taker
can do. In the worst case (a claim taken from a process that was only slow) a chunk is evaluated twice,
with the same outcome.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

__all__ = ["Claims", "is_abandoned", "private"]


class Claims:
    """Claims of one process. A context manager: a thread keeps them alive, and the end gives them back.

    folder: made if needed.  host: number of this process.  patience: seconds until a claim is stale.
    """

    def __init__(self, folder: Path, host: int, patience: float):
        self.folder, self.patience = folder, patience
        self.token = uuid.uuid4().hex[:12]
        self.who = {"host": host, "name": socket.gethostname(), "pid": os.getpid(), "token": self.token}
        self.held: set[int] = set()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._clock = folder / private("clock", self.token)

    def __enter__(self) -> "Claims":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clock.touch()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()
        for chunk in list(self.held):
            self.release(chunk)
        with contextlib.suppress(OSError):
            self._clock.unlink()

    def path(self, chunk: int) -> Path:
        """Of a claim."""
        return self.folder / f"{chunk:09d}"

    def take(self, chunk: int) -> bool:
        """True if the chunk is ours from now on."""
        path = self.path(chunk)
        for _ in range(2):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if not (self._is_stale(path) and self._remove(path)):
                    return False
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(self.who | {"time": time.time()}, file)
            with self._lock:
                self.held.add(chunk)
            return True
        return False

    def release(self, chunk: int) -> None:
        """The chunk is done, or given up."""
        with self._lock:
            self.held.discard(chunk)
        with contextlib.suppress(OSError):
            if self._owner(self.path(chunk)).get("token") == self.token:
                self.path(chunk).unlink()

    def clear(self) -> None:
        """All is done: remove the claims that killed processes left on finished chunks."""
        for path in self.folder.iterdir():
            if path.name.isdigit() or is_abandoned(path, self.patience):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(self.patience / 5):
            with self._lock:
                held = [self.path(chunk) for chunk in self.held]
            for path in held:
                with contextlib.suppress(OSError):  # taken over: the other one does it too
                    os.utime(path)

    def _owner(self, path: Path) -> dict:
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError):
            return {}  # just made, or gone

    def _is_stale(self, path: Path) -> bool:
        owner = self._owner(path)
        if owner.get("name") == self.who["name"] and not _alive(owner.get("pid")):
            return True
        try:
            # Both times come from the file system, so clocks of machines that differ do no harm.
            os.utime(self._clock)
            return self._clock.stat().st_mtime - path.stat().st_mtime > self.patience
        except FileNotFoundError:
            return False

    def _remove(self, path: Path) -> bool:
        stale = self._owner(path).get("token")
        aside = path.with_name(private("taken", f"{path.name}-{self.token}"))
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        mine = self._owner(aside).get("token") == stale
        if not mine:  # somebody was faster, and this is a fresh claim: put it back
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink()
        return mine


def private(kind: str, name: str) -> str:
    """Name of a file that only this process uses for a moment; `is_abandoned` recognises it."""
    return f".{kind}~{socket.gethostname()}~{os.getpid()}~{name}"


def is_abandoned(path: Path, patience: float) -> bool:
    """True for a `private` file of a process that is dead (on this machine) or that left it long ago."""
    parts = path.name.split("~", 3)
    if len(parts) < 4 or not parts[0].startswith("."):
        return False
    if parts[1] == socket.gethostname() and parts[2].isdigit():
        return not _alive(int(parts[2]))
    try:
        return time.time() - path.stat().st_mtime > max(10 * patience, 3600)
    except FileNotFoundError:
        return False


def _alive(pid) -> bool:
    if not isinstance(pid, int):
        return True  # unknown
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True
