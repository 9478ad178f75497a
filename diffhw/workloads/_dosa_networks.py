"""The four networks of DOSA's comparison, as its project counts them: distinct layers with repeats.

Shapes (facts) from the layer files of the public program (github.com/ucb-bar/dosa, BSD 2-clause). "bert"
there is six GEMMs of one encoder block at 128 tokens, one head counted once: it is not the zoo's BERT.
"""

from diffhw.workloads._layer import Layer, Network, NetworkInfo, layer_numbers

__all__ = ["DOSA_NETWORKS", "dosa_network"]

_COLUMNS = ("k", "c", "p", "q", "r", "s", "n", "stride")
_TABLES = {
    "dosa_bert": """
mm_2 1 64 128 1 128 1 1 1 1
mm_5 1 768 3072 1 128 1 1 1 1
mm_1 1 128 64 1 128 1 1 1 1
mm_4 1 3072 768 1 128 1 1 1 1
mm_0 2 768 768 1 128 1 1 1 1
""",
    "dosa_resnet50": """
80 5 256 1024 14 14 1 1 1 1
125 1 512 1024 14 14 1 1 1 1
76 6 1024 256 14 14 1 1 1 1
77 1 1024 512 14 14 1 1 1 2
3356 1 1000 2048 1 1 1 1 1 1
39 4 512 128 28 28 1 1 1 1
40 1 512 256 28 28 1 1 1 2
43 3 128 512 28 28 1 1 1 1
70 1 256 512 28 28 1 1 1 1
33 1 128 256 56 56 1 1 1 1
15 2 64 256 56 56 1 1 1 1
11 4 256 64 56 56 1 1 1 1
5 1 64 64 56 56 1 1 1 1
132 1 2048 1024 7 7 1 1 1 2
135 2 512 2048 7 7 1 1 1 1
131 3 2048 512 7 7 1 1 1 1
83 5 256 256 14 14 3 3 1 1
73 1 256 256 14 14 3 3 1 2
46 3 128 128 28 28 3 3 1 1
36 1 128 128 28 28 3 3 1 2
8 3 64 64 56 56 3 3 1 1
138 2 512 512 7 7 3 3 1 1
128 1 512 512 7 7 3 3 1 2
2 1 64 3 112 112 7 7 1 2
""",
    "dosa_unet": """
8_2_conv 1 2 64 388 388 1 1 1 1
5_2_upconv 1 256 512 104 104 2 2 1 1
6_2_upconv 1 128 256 200 200 2 2 1 1
7_2_upconv 1 64 128 392 392 2 2 1 1
4_2_upconv 1 512 1024 56 56 2 2 1 1
6_1_conv 1 256 256 100 100 3 3 1 1
6_0_conv 1 256 512 102 102 3 3 1 1
2_1_conv 1 256 256 136 136 3 3 1 1
2_0_conv 1 256 128 138 138 3 3 1 1
7_1_conv 1 128 128 196 196 3 3 1 1
7_0_conv 1 128 256 198 198 3 3 1 1
1_1_conv 1 128 128 280 280 3 3 1 1
1_0_conv 1 128 64 282 282 3 3 1 1
4_1_conv 1 1024 1024 28 28 3 3 1 1
4_0_conv 1 1024 512 30 30 3 3 1 1
8_1_conv 1 64 64 388 388 3 3 1 1
8_0_conv 1 64 128 390 390 3 3 1 1
5_1_conv 1 512 512 52 52 3 3 1 1
5_0_conv 1 512 1024 54 54 3 3 1 1
0_1_conv 1 64 64 568 568 3 3 1 1
0_0_conv 1 64 1 570 570 3 3 1 1
3_1_conv 1 512 512 64 64 3 3 1 1
3_0_conv 1 512 256 66 66 3 3 1 1
""",
    "dosa_retinanet": """
p4_1 1 256 1024 14 14 1 1 1 1
p3_1 1 256 512 28 28 1 1 1 1
p7_1 1 256 256 2 2 1 1 1 1
p6_1 1 256 256 4 4 1 1 1 1
p5_1 1 256 2048 7 7 1 1 1 1
p4_2 2 256 256 14 14 3 3 1 1
p4_regression_out 1 36 256 14 14 3 3 1 1
p4_classification_out 1 720 256 14 14 3 3 1 1
p3_2 2 256 256 28 28 3 3 1 1
p3_regression_out 1 36 256 28 28 3 3 1 1
p3_classification_out 1 720 256 28 28 3 3 1 1
p7_2 2 256 256 2 2 3 3 1 1
p7 1 256 256 2 2 3 3 1 2
p7_regression_out 1 36 256 2 2 3 3 1 1
p7_classification_out 1 720 256 2 2 3 3 1 1
p6 1 256 2048 4 4 3 3 1 2
p6_2 2 256 256 4 4 3 3 1 1
p6_regression_out 1 36 256 4 4 3 3 1 1
p6_classification_out 1 720 256 4 4 3 3 1 1
p5_2 2 256 256 7 7 3 3 1 1
p5_regression_out 1 36 256 7 7 3 3 1 1
p5_classification_out 1 720 256 7 7 3 3 1 1
""",
}
"""Per line: name, repeats, then `_COLUMNS`."""

DOSA_NETWORKS = tuple(_TABLES)


def dosa_network(name: str) -> Network:
    """One of `DOSA_NETWORKS`."""
    names, counts, layers = [], [], []
    for line in _TABLES[name].strip().splitlines():
        label, count, *numbers = line.split()
        sizes = dict(zip(_COLUMNS, map(int, numbers), strict=True))
        stride = sizes.pop("stride")
        names.append(label)
        counts.append(int(count))
        layers.append(Layer(**layer_numbers(**sizes, stride_h=stride, stride_w=stride)))
    info = NetworkInfo(name=name, names=tuple(names), source="DOSA (MICRO 2023), public layer files")
    return Network.create(layers, counts=counts, info=info)
