"""What the file readers of several rooms share: YAML with places, and the loop names of other tools.

Stands beside `numerics` at the bottom: imports no room, so that workloads, hardware and mappings may use it.
"""
