"""Convolutional networks of the zoo, for one image size each (224 x 224 unless said).

Shapes follow torchvision where it has the network, else the paper named in the source string; the
layer tables were written down from memory of those sources and are held to the published counts in
``_published.py``.
"""

from typing import Any

from diffhw.workloads._builder import Builder, Tensor
from diffhw.workloads._layer import Network

__all__ = ["CNNS"]

_IMAGE = Tensor(3, 224, 224)


def _torchvision(name: str, batch: int, title: str = "", notes: tuple[str, ...] = ()) -> Builder:
    return Builder(name, f"shapes of torchvision.models.{title or name}, 224 x 224", batch, notes)


def alexnet(batch: int = 1) -> Network:
    """Torchvision's AlexNet (one tower, 64-192-384-256-256 channels)."""
    b = _torchvision("alexnet", batch, notes=("the one-tower shape of torchvision, not the paper's",))
    plain: dict[str, Any] = dict(bias=True, norm=False)
    x = b.conv(_IMAGE, 64, 11, "conv1", stride=4, pad=2, **plain)
    x = b.pool(x, 3, 2, "pool1")
    x = b.conv(x, 192, 5, "conv2", **plain)
    x = b.pool(x, 3, 2, "pool2")
    for i, k in ((3, 384), (4, 256), (5, 256)):
        x = b.conv(x, k, 3, f"conv{i}", **plain)
    x = b.pool(x, 3, 2, "pool5")
    x = Tensor(x.size, made_by=x.made_by)
    x = b.linear(x, 4096, "fc6", act="relu")
    x = b.linear(x, 4096, "fc7", act="relu")
    b.linear(x, 1000, "fc8")
    return b.network()


def vgg16(batch: int = 1) -> Network:
    """VGG-16 without batch norm."""
    b, x = _torchvision("vgg16", batch), _IMAGE
    for stage, (k, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for i in range(1, repeats + 1):
            x = b.conv(x, k, 3, f"conv{stage}_{i}", bias=True, norm=False)
        x = b.pool(x, 2, 2, f"pool{stage}")
    x = Tensor(x.size, made_by=x.made_by)
    x = b.linear(x, 4096, "fc6", act="relu")
    x = b.linear(x, 4096, "fc7", act="relu")
    b.linear(x, 1000, "fc8")
    return b.network()


def _resnet(b: Builder, repeats: tuple[int, ...], bottleneck: bool) -> Network:
    x = b.conv(_IMAGE, 64, 7, "conv1", stride=2)
    x = b.pool(x, 3, 2, "maxpool", pad=1)
    for stage, count in enumerate(repeats, 1):
        width = 32 << stage
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            if bottleneck:
                y = b.conv(x, width, 1, f"{name}.conv1")
                y = b.conv(y, width, 3, f"{name}.conv2", stride=stride)  # v1.5: the stride is on the 3x3
                y = b.conv(y, 4 * width, 1, f"{name}.conv3", act="")
            else:
                y = b.conv(x, width, 3, f"{name}.conv1", stride=stride)
                y = b.conv(y, width, 3, f"{name}.conv2", act="")
            if x.c != y.c or stride > 1:
                x = b.conv(x, y.c, 1, f"{name}.downsample", stride=stride, act="")
            x = b.op("relu", b.op("add", y, x, name=f"{name}.add"), name=f"{name}.relu")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def resnet18(batch: int = 1) -> Network:
    """ResNet-18."""
    return _resnet(_torchvision("resnet18", batch), (2, 2, 2, 2), bottleneck=False)


def resnet50(batch: int = 1) -> Network:
    """ResNet-50 v1.5 (stride on the 3 x 3 of a bottleneck)."""
    return _resnet(_torchvision("resnet50", batch), (3, 4, 6, 3), bottleneck=True)


def googlenet(batch: int = 1) -> Network:
    """GoogLeNet with batch norm, auxiliary heads left out."""
    note = "torchvision's 5x5 branch is a 3x3 convolution, and so it is here; auxiliary heads are left out"
    b = _torchvision("googlenet", batch, notes=(note,))
    x = b.conv(_IMAGE, 64, 7, "conv1", stride=2)
    x = b.pool(x, 3, 2, "maxpool1", ceil=True)
    x = b.conv(x, 64, 1, "conv2")
    x = b.conv(x, 192, 3, "conv3")
    x = b.pool(x, 3, 2, "maxpool2", ceil=True)
    blocks = (
        ("3a", 64, 96, 128, 16, 32, 32),
        ("3b", 128, 128, 192, 32, 96, 64),
        ("4a", 192, 96, 208, 16, 48, 64),
        ("4b", 160, 112, 224, 24, 64, 64),
        ("4c", 128, 128, 256, 24, 64, 64),
        ("4d", 112, 144, 288, 32, 64, 64),
        ("4e", 256, 160, 320, 32, 128, 128),
        ("5a", 256, 160, 320, 32, 128, 128),
        ("5b", 384, 192, 384, 48, 128, 128),
    )
    for name, one, reduce3, three, reduce5, five, pooled in blocks:
        if name == "4a":
            x = b.pool(x, 3, 2, "maxpool3", ceil=True)
        if name == "5a":
            x = b.pool(x, 2, 2, "maxpool4", ceil=True)
        block = f"inception{name}"
        y1 = b.conv(x, one, 1, f"{block}.branch1")
        y2 = b.conv(b.conv(x, reduce3, 1, f"{block}.branch2.0"), three, 3, f"{block}.branch2.1")
        y3 = b.conv(b.conv(x, reduce5, 1, f"{block}.branch3.0"), five, 3, f"{block}.branch3.1")
        y4 = b.conv(b.pool(x, 3, 1, f"{block}.pool", pad=1), pooled, 1, f"{block}.branch4")
        both = Tensor(y1.c + y2.c + y3.c + y4.c, y1.h, y1.w)
        x = b.op("concat", y1, y2, y3, y4, name=f"{block}.concat", out=both)
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def squeezenet1_1(batch: int = 1) -> Network:
    """SqueezeNet 1.1."""
    b = _torchvision("squeezenet1_1", batch)
    plain: dict[str, Any] = dict(bias=True, norm=False)
    x = b.conv(_IMAGE, 64, 3, "conv1", stride=2, pad=0, **plain)
    fires = (
        (16, 64, True),
        (16, 64, False),
        (32, 128, True),
        (32, 128, False),
        (48, 192, True),
        (48, 192, False),
        (64, 256, False),
        (64, 256, False),
    )
    for i, (squeeze, expand, pool_first) in enumerate(fires, 2):
        if pool_first:
            x = b.pool(x, 3, 2, f"pool{i - 1}", ceil=True)
        s = b.conv(x, squeeze, 1, f"fire{i}.squeeze", **plain)
        y1 = b.conv(s, expand, 1, f"fire{i}.expand1x1", **plain)
        y3 = b.conv(s, expand, 3, f"fire{i}.expand3x3", **plain)
        x = b.op("concat", y1, y3, name=f"fire{i}.concat", out=Tensor(2 * expand, y1.h, y1.w))
    b.global_pool(b.conv(x, 1000, 1, "conv10", **plain))
    return b.network()


def mobilenet_v1(batch: int = 1) -> Network:
    """MobileNet v1, width 1.0, 224 x 224 (Howard et al. 2017, table 1)."""
    b = Builder("mobilenet_v1", "Howard et al., MobileNets, arXiv 1704.04861, table 1 (recalled)", batch)
    x = b.conv(_IMAGE, 32, 3, "conv1", stride=2)
    table = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *((512, 1),) * 5,
        (1024, 2),
        (1024, 1),
    )
    for i, (k, stride) in enumerate(table, 2):
        x = b.depthwise(x, 3, f"conv{i}.dw", stride=stride)
        x = b.conv(x, k, 1, f"conv{i}.pw")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def _squeeze_excite(b: Builder, x: Tensor, squeeze: int, name: str, gate: str, act: str = "relu") -> Tensor:
    s = b.global_pool(x, f"{name}.se.pool")
    s = b.conv(s, squeeze, 1, f"{name}.se.fc1", bias=True, norm=False, act=act)
    s = b.conv(s, x.c, 1, f"{name}.se.fc2", bias=True, norm=False, act=gate)
    return b.op("mul", x, s, name=f"{name}.se.scale")


def _inverted(
    b: Builder,
    x: Tensor,
    k: int,
    f: int,
    expanded: int,
    stride: int,
    name: str,
    *,
    act: str = "relu",
    squeeze: int = 0,
    gate: str = "hard_sigmoid",
    se_act: str = "relu",
) -> Tensor:
    """Expand 1 x 1, depthwise f x f, (squeeze and excite,) project 1 x 1, residual where shapes agree."""
    y = b.conv(x, expanded, 1, f"{name}.expand", act=act) if expanded != x.c else x
    y = b.depthwise(y, f, f"{name}.dw", stride=stride, act=act)
    if squeeze:
        y = _squeeze_excite(b, y, squeeze, name, gate, se_act)
    y = b.conv(y, k, 1, f"{name}.project", act="")
    return b.op("add", y, x, name=f"{name}.add") if (x.c, x.h) == (y.c, y.h) else y


def mobilenet_v2(batch: int = 1) -> Network:
    """MobileNet v2, width 1.0."""
    b = _torchvision("mobilenet_v2", batch)
    x, i = b.conv(_IMAGE, 32, 3, "conv1", stride=2, act="relu6"), 0
    for t, k, n, s in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(n):
            i += 1
            x = _inverted(b, x, k, 3, t * x.c, s if repeat == 0 else 1, f"block{i}", act="relu6")
    x = b.conv(x, 1280, 1, "conv_last", act="relu6")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def _divisible(value: float, by: int = 8) -> int:
    """Nearest multiple of ``by``, not below 90 % of ``value``: the rounding MobileNets use."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


def mobilenet_v3_large(batch: int = 1) -> Network:
    """MobileNet v3 large, width 1.0."""
    b = _torchvision("mobilenet_v3_large", batch)
    x = b.conv(_IMAGE, 16, 3, "conv1", stride=2, act="hard_swish")
    table = (  # filter, expanded, out, squeeze and excite, activation, stride
        (3, 16, 16, False, "relu", 1),
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hard_swish", 2),
        (3, 200, 80, False, "hard_swish", 1),
        (3, 184, 80, False, "hard_swish", 1),
        (3, 184, 80, False, "hard_swish", 1),
        (3, 480, 112, True, "hard_swish", 1),
        (3, 672, 112, True, "hard_swish", 1),
        (5, 672, 160, True, "hard_swish", 2),
        (5, 960, 160, True, "hard_swish", 1),
        (5, 960, 160, True, "hard_swish", 1),
    )
    for i, (f, expanded, k, excite, act, stride) in enumerate(table, 1):
        squeeze = _divisible(expanded / 4) if excite else 0
        x = _inverted(b, x, k, f, expanded, stride, f"block{i}", act=act, squeeze=squeeze)
    x = b.global_pool(b.conv(x, 960, 1, "conv_last", act="hard_swish"))
    x = b.linear(x, 1280, "fc1", act="hard_swish")
    b.linear(x, 1000, "fc2")
    return b.network()


def efficientnet_b0(batch: int = 1) -> Network:
    """EfficientNet-B0."""
    b = _torchvision("efficientnet_b0", batch)
    x, i = b.conv(_IMAGE, 32, 3, "conv1", stride=2, act="silu"), 0
    for t, f, s, k, n in (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ):
        for repeat in range(n):
            i += 1
            stride = s if repeat == 0 else 1
            options: dict[str, Any] = dict(
                act="silu", squeeze=max(1, x.c // 4), gate="sigmoid", se_act="silu"
            )
            x = _inverted(b, x, k, f, t * x.c, stride, f"block{i}", **options)
    x = b.conv(x, 1280, 1, "conv_last", act="silu")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def mnasnet_b1(batch: int = 1) -> Network:
    """MnasNet-B1 (no squeeze and excite), width 1.0."""
    b = _torchvision("mnasnet_b1", batch, "mnasnet1_0")
    x = b.conv(_IMAGE, 32, 3, "conv1", stride=2)
    x = b.depthwise(x, 3, "sep.dw")
    x, i = b.conv(x, 16, 1, "sep.pw", act=""), 0
    for k, f, s, t, n in (
        (24, 3, 2, 3, 3),
        (40, 5, 2, 3, 3),
        (80, 5, 2, 6, 3),
        (96, 3, 1, 6, 2),
        (192, 5, 2, 6, 4),
        (320, 3, 1, 6, 1),
    ):
        for repeat in range(n):
            i += 1
            x = _inverted(b, x, k, f, t * x.c, s if repeat == 0 else 1, f"block{i}")
    x = b.conv(x, 1280, 1, "conv_last")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def shufflenet_v2(batch: int = 1) -> Network:
    """ShuffleNet v2, width 1.0."""
    b = _torchvision("shufflenet_v2", batch, "shufflenet_v2_x1_0")
    x = b.conv(_IMAGE, 24, 3, "conv1", stride=2)
    x = b.pool(x, 3, 2, "maxpool", pad=1)
    for stage, (k, repeats) in enumerate(((116, 4), (232, 8), (464, 4)), 2):
        half = k // 2
        for i in range(repeats):
            name, stride = f"stage{stage}.{i}", 2 if i == 0 else 1
            if stride == 2:
                left = b.depthwise(x, 3, f"{name}.branch1.dw", stride=2, act="")
                left = b.conv(left, half, 1, f"{name}.branch1.pw")
                right = x
            else:
                left = right = Tensor(half, x.h, x.w, x.made_by)
            right = b.conv(right, half, 1, f"{name}.branch2.pw1")
            right = b.depthwise(right, 3, f"{name}.branch2.dw", stride=stride, act="")
            right = b.conv(right, half, 1, f"{name}.branch2.pw2")
            both = Tensor(k, right.h, right.w)
            x = b.op("concat_shuffle", left, right, name=f"{name}.shuffle", out=both)
    x = b.conv(x, 1024, 1, "conv5")
    b.linear(b.global_pool(x), 1000, "fc")
    return b.network()


def unet(batch: int = 1) -> Network:
    """The original U-Net: one 572 x 572 channel in, two 388 x 388 channels out, valid convolutions."""
    note = "up-convolutions (2x2, stride 2) are written as the products they are: k = 4 x output channels"
    b = Builder("unet", "Ronneberger et al., U-Net, arXiv 1505.04597, figure 1 (recalled)", batch, (note,))
    plain: dict[str, Any] = dict(pad=0, bias=True, norm=False)
    x, skips = Tensor(1, 572, 572), []
    for depth, k in enumerate((64, 128, 256, 512, 1024), 1):
        x = b.conv(x, k, 3, f"down{depth}.conv1", **plain)
        x = b.conv(x, k, 3, f"down{depth}.conv2", **plain)
        if k < 1024:
            skips.append(x)
            x = b.pool(x, 2, 2, f"down{depth}.pool")
    for depth, k in ((4, 512), (3, 256), (2, 128), (1, 64)):
        x = b.up_conv(x, k, 2, f"up{depth}.up_conv")
        both = Tensor(2 * k, x.h, x.w)
        x = b.op("crop_concat", x, skips.pop(), name=f"up{depth}.concat", out=both)
        x = b.conv(x, k, 3, f"up{depth}.conv1", **plain)
        x = b.conv(x, k, 3, f"up{depth}.conv2", **plain)
    b.conv(x, 2, 1, "out", bias=True, norm=False, act="")
    return b.network()


CNNS = {
    build.__name__: build
    for build in (
        alexnet,
        vgg16,
        resnet18,
        resnet50,
        googlenet,
        squeezenet1_1,
        mobilenet_v1,
        mobilenet_v2,
        mobilenet_v3_large,
        efficientnet_b0,
        mnasnet_b1,
        shufflenet_v2,
        unet,
    )
}
