"""WHAT RUNS: layers, networks, the zoo, readers and writers."""

from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator

__all__ = ["Layer", "Network", "NetworkInfo", "Operator"]
