"""A whole design as one file: hardware, mapping, precision, batch."""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from diffhw import hardware
from diffhw.hardware import Accelerator
from diffhw.mappings import DATAFLOWS, Precision

__all__ = ["Design", "read_design", "write_design"]

_KEYS = ("hardware", "mapping", "precision", "batch")


@dataclass(frozen=True)
class Design:
    """What a search found, with nothing relaxed left in it.

    hardware:   `Accelerator`.
    dataflow:   "os" | "ws" | "is" for every layer, or {network name: one per distinct layer, in order}.
    precision:  `Precision`, leaves ().
    batch:      inferences run together.
    notes:      sentences for the reader of the file.
    """

    hardware: Accelerator
    dataflow: str | dict[str, tuple[str, ...]] = "ws"
    precision: Precision = field(default_factory=Precision.create)
    batch: int = 1
    notes: tuple[str, ...] = ()

    def mapping_of(self, network_name: str):
        """The dataflow argument for `models.systolic`.

        Raises ValueError for a network that the design does not know.
        """
        if isinstance(self.dataflow, str):
            return self.dataflow
        if network_name not in self.dataflow:
            known = ", ".join(self.dataflow)
            raise ValueError(
                f"the design has a dataflow per layer for {known}, not for {network_name}; give --mapping"
            )
        return list(self.dataflow[network_name])


def write_design(design: Design, path) -> None:
    """Write ``design`` as YAML; `read_design` gives the same numbers back. Replaces the file in one step."""
    dataflow = design.dataflow
    if not isinstance(dataflow, str):
        dataflow = {name: list(names) for name, names in dataflow.items()}
    bits = design.precision
    document = {
        "hardware": hardware.to_dict(design.hardware),
        "mapping": {"model": "systolic", "dataflow": dataflow},
        "precision": {name: float(getattr(bits, name)) for name in ("weight", "input", "psum", "output")},
        "batch": design.batch,
    }
    lines = "".join(f"# {note}\n" for note in design.notes)
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    partial.write_text(lines + yaml.safe_dump(document, sort_keys=False))
    os.replace(partial, path)


def read_design(path) -> Design:
    """Read a design file. Raises ValueError naming the file and the key that is wrong."""
    document, where = hardware.read_document(path)
    if "hardware" not in document:
        raise ValueError(
            f"{path}: a design file needs the key 'hardware'; it has {', '.join(map(str, document))}"
        )
    for key in document:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1, 0.0)[0]
            raise ValueError(f"{where / str(key)} is no known key; did you mean {near!r}?")
    mapping = document.get("mapping") or {}
    if not isinstance(mapping, dict) or mapping.get("model", "systolic") != "systolic":
        raise ValueError(f"{where / 'mapping'} must be {{model: systolic, dataflow: ...}}, got {mapping!r}")
    dataflow = mapping.get("dataflow", "ws")
    every = [dataflow] if isinstance(dataflow, str) else None
    if every is None:
        if not isinstance(dataflow, dict) or not all(isinstance(v, list) for v in dataflow.values()):
            raise ValueError(f"{where / 'mapping'}: dataflow must be a name or {{network: [names]}}")
        dataflow = {name: tuple(names) for name, names in dataflow.items()}
        every = [name for names in dataflow.values() for name in names]
    for name in every:
        if name not in DATAFLOWS:
            raise ValueError(
                f"{where / 'mapping'}: dataflow must be one of {', '.join(DATAFLOWS)}, got {name!r}"
            )
    bits = document.get("precision") or {}
    if not isinstance(bits, dict) or set(bits) - {"weight", "input", "psum", "output"}:
        raise ValueError(f"{where / 'precision'} takes weight, input, psum, output (bits), got {bits!r}")
    batch = document.get("batch", 1)
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"{where / 'batch'} must be a whole number >= 1, got {batch!r}")
    try:
        precision = Precision.create(**bits)
    except ValueError as error:
        raise ValueError(f"{where / 'precision'}: {error}") from None
    return Design(
        hardware=hardware.from_dict(document["hardware"], where / "hardware"),
        dataflow=dataflow,
        precision=precision,
        batch=batch,
    )
