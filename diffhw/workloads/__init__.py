"""WHAT RUNS: layers, networks, the zoo, readers and writers."""

from diffhw.workloads._from_jax import from_jax
from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator
from diffhw.workloads._maestro import read_maestro
from diffhw.workloads._onnx import from_onnx
from diffhw.workloads._published import PUBLISHED, Published
from diffhw.workloads._scalesim_csv import read_scalesim, write_scalesim
from diffhw.workloads._timeloop import read_timeloop_problem, write_timeloop_problem
from diffhw.workloads._zigzag import read_zigzag_workload, write_zigzag_workload
from diffhw.workloads._zoo import load, names

__all__ = [
    "PUBLISHED",
    "Layer",
    "Network",
    "NetworkInfo",
    "Operator",
    "Published",
    "from_jax",
    "from_onnx",
    "load",
    "names",
    "read_maestro",
    "read_scalesim",
    "read_timeloop_problem",
    "read_zigzag_workload",
    "write_scalesim",
    "write_timeloop_problem",
    "write_zigzag_workload",
]
