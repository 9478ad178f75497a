"""``python -m benchmarks``: all benchmarks in turn."""

from benchmarks import network, peers, startup, systolic_kernel

for benchmark in (startup, network, systolic_kernel, peers):
    print(f"\n== {benchmark.__name__}: {benchmark.__doc__.splitlines()[0]}", flush=True)
    benchmark.main([])
