"""Keeping a fit on disk so that it can go on where it was stopped."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Keeper"]


class Keeper:
    """Phase, step and arrays of a fit in one file, replaced as a whole; nothing without a path.

    identity: what decides the result; a file of another fit is refused.
    """

    def __init__(self, path: str | Path | None, identity):
        self.path = None if path is None else Path(path)
        text = hashlib.sha256()
        for part in identity:
            text.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode())
        self.identity = text.hexdigest()

    def keep(self, phase: int, step: int, carry) -> None:
        """Writes the state after ``step`` steps of a phase."""
        if self.path is None:
            return
        arrays: dict = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}
        arrays |= {"where": np.array([phase, step]), "identity": np.array(self.identity)}
        part = self.path.with_name(self.path.name + ".part.npz")
        np.savez(part, **arrays)
        part.replace(self.path)

    def restore(self, phase: int, carry):
        """(steps done in this phase, the state): where the file stands, or the beginning."""
        if self.path is None or not self.path.exists():
            return 0, carry
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                identity, (at, step) = str(stored["identity"]), stored["where"]
                leaves, structure = jax.tree.flatten(carry)
                found = [stored[f"leaf{i}"] for i in range(len(leaves))]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(
                f"{self.path}: cannot be read as a kept fit ({error}); remove it to begin anew"
            ) from error
        if identity != self.identity:
            raise ValueError(f"{self.path}: belongs to another fit; remove it or name another file")
        if at < phase:
            return 0, carry
        same = [jnp.asarray(new, old.dtype) for new, old in zip(found, leaves, strict=True)]
        # A later phase starts from the parameters of this one, which the file holds.
        state = jax.tree.unflatten(structure, same)
        return (int(step), state) if at == phase else (10**9, (state[0], carry[1]))
