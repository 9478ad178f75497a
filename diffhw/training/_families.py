"""Block tables of five efficient families, at full size as published and small for 8 x 8 to 32 x 32 images.

Full-size tables: Sandler et al., arXiv 1801.04381 (MobileNetV2); Ma et al., arXiv 1807.11164 (ShuffleNetV2);
Iandola et al., arXiv 1602.07360 and release 1.1 (SqueezeNet); Tan et al., arXiv 1807.11626 (MnasNet-B1);
Tan and Le, arXiv 1905.11946 (EfficientNet-B0). They were written down from memory and are held to the
published parameter counts by the tests. The small tables are ours: the same blocks, fewer and narrower.
"""

from dataclasses import dataclass

from diffhw.training._plan import Plan, rounded

__all__ = ["FAMILIES", "PARAMETERS", "Conv", "Family", "Fire", "Inverted", "Pool", "Separable", "Shuffle"]


@dataclass(frozen=True)
class Conv:
    """A plain convolution. last: width below 1 leaves it alone (the widest layer, before the classes)."""

    channels: int
    filter: int
    stride: int = 1
    pad: int | None = None
    last: bool = False


@dataclass(frozen=True)
class Pool:
    """Max pooling."""

    filter: int
    stride: int
    pad: int = 0


@dataclass(frozen=True)
class Separable:
    """Depthwise, then 1 x 1 without activation."""

    channels: int
    filter: int
    stride: int = 1


@dataclass(frozen=True)
class Inverted:
    """``repeats`` inverted residual blocks; the first has the stride. squeeze: share of its input, or 0."""

    expand: int
    channels: int
    repeats: int
    stride: int
    filter: int
    squeeze: float = 0.0


@dataclass(frozen=True)
class Shuffle:
    """A ShuffleNetV2 stage: one block of stride 2, then ``repeats - 1`` that split and shuffle."""

    channels: int
    repeats: int


@dataclass(frozen=True)
class Fire:
    """1 x 1 squeeze, then 1 x 1 and 3 x 3 expansions side by side."""

    squeeze: int
    expand: int


Row = Conv | Pool | Separable | Inverted | Shuffle | Fire


@dataclass(frozen=True)
class Family:
    """A network's table.

    act: activation.  by: channels are rounded to multiples of this under a width other than 1.
    norm: batch norms after convolutions.  conv_classes: the classes are a 1 x 1 convolution before the
    mean (SqueezeNet) in place of a dense layer after it.
    """

    act: str
    rows: tuple[Row, ...]
    by: int = 8
    norm: bool = True
    conv_classes: bool = False

    def plan(self, name: str, input_shape: tuple[int, int, int], classes: int, width: float) -> Plan:
        """The steps for one input shape. Raises ValueError for an input that is too small."""
        p, x = Plan(input_shape, name), "input"

        def wide(channels):
            return channels if width == 1 else rounded(channels * width, self.by)

        counts: dict[str, int] = {}
        for i, row in enumerate(self.rows):
            kind = type(row).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            label = "stem" if i == 0 else f"{kind}{counts[kind]}"
            match row:
                case Conv():
                    channels = max(row.channels, wide(row.channels)) if row.last else wide(row.channels)
                    label = "last" if row.last else label
                    x = p.conv(
                        x,
                        label,
                        channels,
                        row.filter,
                        stride=row.stride,
                        pad=row.pad,
                        act=self.act,
                        norm=self.norm,
                    )
                case Pool():
                    x = p.max_pool(x, label, row.filter, row.stride, row.pad)
                case Separable():
                    x = p.depthwise(x, f"{label}_depthwise", row.filter, stride=row.stride, act=self.act)
                    x = p.conv(x, f"{label}_project", wide(row.channels), 1, act="")
                case Inverted():
                    for repeat in range(row.repeats):
                        block = f"block{counts.setdefault('block', 1)}"
                        counts["block"] += 1
                        x = _inverted(p, x, block, row, wide(row.channels), self.act, repeat == 0)
                case Shuffle():
                    for repeat in range(row.repeats):
                        x = _shuffle(
                            p,
                            x,
                            f"stage{counts[kind]}_{repeat + 1}",
                            wide(row.channels),
                            self.act,
                            repeat == 0,
                        )
                case Fire():
                    x = _fire(p, x, label, wide(row.squeeze), wide(row.expand), self)
        if self.conv_classes:
            x = p.conv(x, "head", classes, 1, act=self.act, norm=False)
            p.mean(x, "mean")
        else:
            p.dense(p.mean(x, "mean"), "head", classes)
        return p


def _inverted(p: Plan, x: str, name: str, row: Inverted, channels: int, act: str, first: bool) -> str:
    """Expand 1 x 1, depthwise, squeeze and excite, project 1 x 1; residual where shapes agree."""
    c, y = p.shapes[x][2], x
    if row.expand != 1:
        y = p.conv(x, f"{name}_expand", row.expand * c, 1, act=act)
    y = p.depthwise(y, f"{name}_depthwise", row.filter, stride=row.stride if first else 1, act=act)
    if row.squeeze:
        y = p.squeeze_excite(y, name, max(1, int(c * row.squeeze)), act=act)
    y = p.conv(y, f"{name}_project", channels, 1, act="")
    residual = channels == c and (row.stride == 1 or not first)
    return p.add(x, y, f"{name}_add") if residual else y


def _shuffle(p: Plan, x: str, name: str, channels: int, act: str, first: bool) -> str:
    """Two branches, then a shuffle of 2 groups; the first block of a stage halves rows and columns."""
    half, stride, c = channels // 2, 2 if first else 1, p.shapes[x][2]
    if first:
        left = p.depthwise(x, f"{name}_left_depthwise", 3, stride=2, act="")
        left, right = p.conv(left, f"{name}_left", half, 1, act=act), x
    else:
        left = p.slice(x, f"{name}_left", 0, c // 2)
        right = p.slice(x, f"{name}_right", c // 2, c)
    right = p.conv(right, f"{name}_expand", half, 1, act=act)
    right = p.depthwise(right, f"{name}_depthwise", 3, stride=stride, act="")
    right = p.conv(right, f"{name}_project", half, 1, act=act)
    return p.shuffle(p.concat(left, right, f"{name}_concat"), f"{name}_shuffle", 2)


def _fire(p: Plan, x: str, name: str, squeeze: int, expand: int, family: Family) -> str:
    s = p.conv(x, f"{name}_squeeze", squeeze, 1, act=family.act, norm=family.norm)
    one = p.conv(s, f"{name}_expand1", expand, 1, act=family.act, norm=family.norm)
    three = p.conv(s, f"{name}_expand3", expand, 3, act=family.act, norm=family.norm)
    return p.concat(one, three, f"{name}_concat")


FAMILIES: dict[str, Family] = {
    "mobilenet_v2": Family(
        "relu6",
        (
            Conv(32, 3, 2),
            Inverted(1, 16, 1, 1, 3),
            Inverted(6, 24, 2, 2, 3),
            Inverted(6, 32, 3, 2, 3),
            Inverted(6, 64, 4, 2, 3),
            Inverted(6, 96, 3, 1, 3),
            Inverted(6, 160, 3, 2, 3),
            Inverted(6, 320, 1, 1, 3),
            Conv(1280, 1, last=True),
        ),
    ),
    "shufflenet_v2": Family(
        "relu",
        (
            Conv(24, 3, 2),
            Pool(3, 2, 1),
            Shuffle(116, 4),
            Shuffle(232, 8),
            Shuffle(464, 4),
            Conv(1024, 1, last=True),
        ),
    ),
    "squeezenet": Family(
        "relu",
        (
            Conv(64, 3, 2, 0),
            Pool(3, 2),
            Fire(16, 64),
            Fire(16, 64),
            Pool(3, 2),
            Fire(32, 128),
            Fire(32, 128),
            Pool(3, 2),
            Fire(48, 192),
            Fire(48, 192),
            Fire(64, 256),
            Fire(64, 256),
        ),
        norm=False,
        conv_classes=True,
    ),
    "mnasnet": Family(
        "relu",
        (
            Conv(32, 3, 2),
            Separable(16, 3),
            Inverted(3, 24, 3, 2, 3),
            Inverted(3, 40, 3, 2, 5),
            Inverted(6, 80, 3, 2, 5),
            Inverted(6, 96, 2, 1, 3),
            Inverted(6, 192, 4, 2, 5),
            Inverted(6, 320, 1, 1, 3),
            Conv(1280, 1, last=True),
        ),
    ),
    "efficientnet": Family(
        "swish",
        (
            Conv(32, 3, 2),
            Inverted(1, 16, 1, 1, 3, 0.25),
            Inverted(6, 24, 2, 2, 3, 0.25),
            Inverted(6, 40, 2, 2, 5, 0.25),
            Inverted(6, 80, 3, 2, 3, 0.25),
            Inverted(6, 112, 3, 1, 5, 0.25),
            Inverted(6, 192, 4, 2, 5, 0.25),
            Inverted(6, 320, 1, 1, 3, 0.25),
            Conv(1280, 1, last=True),
        ),
    ),
    "mobilenet_v2_small": Family(
        "relu6",
        (
            Conv(12, 3, 2),
            Inverted(1, 12, 1, 1, 3),
            Inverted(3, 16, 2, 1, 3),
            Inverted(3, 24, 3, 2, 3),
            Conv(64, 1, last=True),
        ),
        by=4,
    ),
    "shufflenet_v2_small": Family(
        "relu",
        (Conv(16, 3), Shuffle(32, 3), Shuffle(64, 3), Conv(64, 1, last=True)),
        by=4,
    ),
    "squeezenet_small": Family(
        "relu",
        (Conv(16, 3, 2), Fire(8, 16), Fire(8, 16), Pool(2, 2), Fire(12, 24), Fire(12, 24)),
        by=4,
        conv_classes=True,
    ),
    "mnasnet_small": Family(
        "relu",
        (
            Conv(12, 3, 2),
            Separable(12, 3),
            Inverted(3, 16, 2, 1, 5),
            Inverted(3, 24, 3, 2, 3),
            Conv(64, 1, last=True),
        ),
        by=4,
    ),
    "efficientnet_small": Family(
        "swish",
        (
            Conv(12, 3, 2),
            Inverted(1, 12, 1, 1, 3, 0.25),
            Inverted(3, 16, 2, 1, 3, 0.25),
            Inverted(3, 24, 2, 2, 3, 0.25),
            Conv(64, 1, last=True),
        ),
        by=4,
    ),
}
"""Tables by name; ``_small`` for inputs of 8 x 8 to 32 x 32 pixels."""

PARAMETERS = {
    "mobilenet_v2": 3_504_872,
    "shufflenet_v2": 2_278_604,
    "squeezenet": 1_235_496,
    "mnasnet": 4_383_312,
    "efficientnet": 5_288_548,
}
"""Parameters at 224 x 224, 3 channels, 1000 classes: torchvision's documented counts (recalled)."""
