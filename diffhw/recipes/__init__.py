"""PUBLISHED SYSTEMS and the main job, one file each: the only place where a model and a search meet."""

from diffhw.recipes._codesign import codesign
from diffhw.recipes._design import Design, read_design, write_design
from diffhw.recipes._result import Assumption, Certificate, CodesignResult, Rival, Sensitivity

__all__ = [
    "Assumption",
    "Certificate",
    "CodesignResult",
    "Design",
    "Rival",
    "Sensitivity",
    "codesign",
    "read_design",
    "write_design",
]
