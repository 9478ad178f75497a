"""Checkpoints by orbax, with the settings they belong to written beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["Checkpoint"]


class Checkpoint:
    """A folder with the newest state of one run and a file ``settings.json``.

    folder: made if missing.  settings: JSON-able; a folder written under other settings is refused, since
    going on from it would be a different run.

    Raises ValueError for a folder of another run, a corrupt one, or a missing orbax.
    """

    def __init__(self, folder, settings: dict[str, Any]):
        self.folder = Path(folder).resolve()
        self.settings = json.loads(json.dumps(settings))
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: a checkpoint is a folder, and this is a file")
        file = self.folder / "settings.json"
        if file.is_file():
            try:
                written = json.loads(file.read_text(encoding="utf-8"))
                changed = [name for name in self.settings if written.get(name) != self.settings[name]]
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file}: this checkpoint is corrupt ({error})") from error
            if changed:
                name = changed[0]
                raise ValueError(
                    f"{self.folder} is the checkpoint of another run: {name} was "
                    f"{written.get(name)!r} there and is {self.settings[name]!r} here; "
                    f"give another folder or delete this one"
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
            temporary.replace(file)

    def _steps(self) -> list[int]:
        return sorted(
            int(p.name.removeprefix("step_"))
            for p in self.folder.glob("step_*")
            if p.name.removeprefix("step_").isdigit()
        )

    def newest(self) -> int | None:
        """The newest complete step, or None."""
        steps = self._steps()
        return steps[-1] if steps else None

    def save(self, step: int, tree: Any) -> None:
        """Write a pytree of arrays (complete or not at all); older steps are then deleted."""
        arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        with _orbax().StandardCheckpointer() as writer:
            writer.save(self.folder / f"step_{step}", arrays, force=True)
            writer.wait_until_finished()
        for old in self._steps():
            if old < step:
                shutil.rmtree(self.folder / f"step_{old}", ignore_errors=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """(step, pytree shaped as ``like``) of the newest step, or None if there is none yet."""
        step = self.newest()
        if step is None:
            return None
        leaves, tree = jax.tree.flatten(like)
        wanted = {str(i): np.zeros(np.shape(leaf), np.asarray(leaf).dtype) for i, leaf in enumerate(leaves)}
        place = self.folder / f"step_{step}"
        try:
            with _orbax().StandardCheckpointer() as reader:
                found = reader.restore(place, wanted)
            found = [np.asarray(found[str(i)]) for i in range(len(leaves))]
            for array, leaf in zip(found, leaves):
                if array.shape != np.shape(leaf):
                    raise ValueError(f"an array of shape {array.shape} where {np.shape(leaf)} was expected")
        except Exception as error:  # orbax raises what its storage raises
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{place}: this checkpoint is corrupt; delete it to start anew ({reason})"
            ) from error
        return step, jax.tree.unflatten(tree, found)


def _orbax():
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ValueError(
            "checkpoints are written by orbax, which is not installed: pip install 'diffhw[train]'"
        ) from error
    return orbax
