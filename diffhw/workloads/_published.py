"""Published counts of the zoo's networks, each with its source and how we know it.

"read": the figure was looked up in the source named. "recalled": from memory of the source.
torchvision prints GFLOPS that are multiply-accumulates (one per weight use), products of activations
included; BERT papers print FLOPs that are two per MAC, halved here and said so.
"""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True)
class Published:
    """One network's published figures; None where we know of none.

    params: parameters.  macs: multiply-accumulates for batch 1, with the products of two activations.
    source: who printed it.  how: "read" or "recalled".
    """

    params: int | None
    macs: float | None
    source: str
    how: str


def _torchvision(params: int, giga: float, model: str) -> Published:
    source = f"torchvision {model} weights metadata: num_params, _ops (GFLOPS there are MACs)"
    return Published(params, giga * 1e9, source, "read")


_BERT = "params: summaries of HuggingFace bert-base-uncased (read); "
_GPT2 = Published(124_439_808, None, "summaries of HuggingFace gpt2, tied head counted once", "read")
_LLAMA = Published(8_030_261_248, None, "HuggingFace safetensors metadata of Llama 3 8B, as quoted", "read")

PUBLISHED: dict[str, Published] = {
    "alexnet": _torchvision(61_100_840, 0.714, "alexnet"),
    "vgg16": _torchvision(138_357_544, 15.47, "vgg16"),
    "resnet18": _torchvision(11_689_512, 1.814, "resnet18"),
    "resnet50": _torchvision(25_557_032, 4.089, "resnet50"),
    "googlenet": _torchvision(6_624_904, 1.498, "googlenet"),
    "squeezenet1_1": _torchvision(1_235_496, 0.349, "squeezenet1_1"),
    "mobilenet_v1": Published(
        4_231_976,
        569e6,
        "Howard et al. 2017: 569 M mult-adds, 4.2 M parameters; exact parameters: Keras, trainable ones",
        "recalled",
    ),
    "mobilenet_v2": _torchvision(3_504_872, 0.301, "mobilenet_v2"),
    "mobilenet_v3_large": _torchvision(5_483_032, 0.217, "mobilenet_v3_large"),
    "efficientnet_b0": _torchvision(5_288_548, 0.386, "efficientnet_b0"),
    "mnasnet_b1": _torchvision(4_383_312, 0.314, "mnasnet1_0"),
    "shufflenet_v2": _torchvision(2_278_604, 0.145, "shufflenet_v2_x1_0"),
    "unet": Published(
        31_031_685,
        None,
        "summaries of Keras re-implementations, which end in one more 3x3 convolution; the paper prints none",
        "read",
    ),
    "bert_base": Published(
        109_482_240, 11.25e9, _BERT + "22.5 GFLOPs in the TinyBERT paper, halved (recalled)", "recalled"
    ),
    "bert_base_512": Published(109_482_240, None, _BERT + "no MAC count", "read"),
    "vit_b16": _torchvision(86_567_656, 17.564, "vit_b_16"),
    "gpt2_prefill": _GPT2,
    "gpt2_decode": _GPT2,
    "llama3_8b_prefill": _LLAMA,
    "llama3_8b_decode": _LLAMA,
}
