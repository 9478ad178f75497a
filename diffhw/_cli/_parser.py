"""The command line as argparse sees it. Imports nothing heavy: ``diffhw --help`` must be quick."""

import argparse
import math
import re
from collections.abc import Callable, Sequence

import diffhw
from diffhw._cli._errors import UserError, nearest

__all__ = ["build", "parse"]


class _Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors and nearest names instead of the usage text."""

    def error(self, message: str):
        message = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message)
        found = re.match(r"(\S+): invalid choice: '(.*?)'", message)
        if found:
            known = _choices(self, found[1])
            hint = nearest(found[2], known) or ";"
            message = f"unknown {found[1].lower()} {found[2]!r}{hint} There are {', '.join(known)}"
            message = message.replace("; There", "; there")
        raise UserError(message)


def _choices(parser: argparse.ArgumentParser, metavar: str) -> list[str]:
    for action in parser._actions:
        if action.choices and action.metavar == metavar:
            return list(action.choices)
    return []


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs a number, got {text!r}") from None


def positive(text: str) -> float:
    """A finite number > 0."""
    value = _number(text)
    if not value > 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text}")
    return value


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number from ``low`` (to ``high``)."""

    def check(text: str) -> int:
        value = _number(text)
        allowed = f">= {low}" if high is None else f"from {low} to {high}"
        if math.isnan(value) or math.isinf(value) or value != int(value) or value < low:
            raise argparse.ArgumentTypeError(f"must be a whole number {allowed}, got {text}")
        if high is not None and value > high:
            raise argparse.ArgumentTypeError(f"must be a whole number {allowed}, got {text}")
        return int(value)

    return check


def share(text: str) -> float:
    """A fraction from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return value


def one_of(*names: str) -> Callable[[str], str]:
    """One of a few words."""

    def check(text: str) -> str:
        if text not in names:
            hint = nearest(text, names)
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(names)}, got {text!r}{hint}")
        return text

    return check


def words(text: str) -> list[str]:
    """Names between commas; "none" for none."""
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"must be names with commas between them, got {text!r}")
    return [] if found == ["none"] else found


def auto_or_whole(text: str) -> int | None:
    """A whole number >= 1, or None for "auto"."""
    return None if text == "auto" else whole(1)(text)


def _codesign(add) -> None:
    command = add(
        "codesign", "find the best accelerator for one or several networks, and prove how good it is"
    )
    command.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="zoo name, .onnx file or SCALE-Sim .csv"
    )
    option = command.add_argument
    option("--objective", type=one_of("edp", "latency", "energy"), default="edp",
           metavar="edp|latency|energy", help="what to minimise, summed (default: edp)")  # fmt: skip
    option("--area-mm2", type=positive, metavar="A", help="budget: area of the chip in mm2")
    option("--power-w", type=positive, metavar="P", help="budget: average power in W, of the worst network")
    option("--latency-ms", type=positive, metavar="T", help="budget: latency in ms, of the worst network")
    option("--hardware", metavar="START", help="catalogue name or file to start from as well")
    option(
        "--bits",
        type=whole(1, 64),
        default=8,
        metavar="N",
        help="bits of weights and activations (default: 8)",
    )
    option("--batch", type=whole(1), default=1, metavar="N", help="inferences run together (default: 1)")
    option("--node-nm", type=positive, default=22.0, metavar="NM", help="process node (default: 22)")
    option("--freq-mhz", type=positive, default=1000.0, metavar="MHZ", help="clock (default: 1000)")
    option("--dram", default="auto", metavar="auto|TYPE", help="DRAM type, auto: it is chosen too (default)")
    option(
        "--per-layer-dataflow", action="store_true", help="the array may change its dataflow between layers"
    )
    option("--seed", type=whole(0, 2**31 - 1), default=0, metavar="S", help="of the search (default: 0)")
    option("--model", type=one_of("systolic", "loopnest"), default="systolic", metavar="systolic|loopnest",
           help="loopnest: Gemmini's sizes and all mappings, as DOSA (default: systolic)")  # fmt: skip
    option("--samples", type=positive, default=10_500, metavar="N",
           help="with --model loopnest: network evaluations to spend (default: 10500)")  # fmt: skip
    option("--no-certify", action="store_true", help="leave out the enumeration or the bounds")
    option("--json", action="store_true", help="print result.json on standard output and nothing else")
    option("--out", default="diffhw-out", metavar="DIR", help="where the files go (default: ./diffhw-out)")


def _cost(add) -> None:
    command = add("cost", "what a network costs on given hardware, layer by layer")
    command.add_argument(
        "network", metavar="NETWORK", help="zoo name, .onnx file, SCALE-Sim .csv or MAESTRO .m"
    )
    option = command.add_argument
    option("--hardware", metavar="NAME|FILE", help="catalogue name, .yaml, SCALE-Sim .cfg or MAESTRO file")
    option("--design", metavar="FILE", help="design.yaml as written by diffhw codesign")
    option("--mapping", type=one_of("os", "ws", "is", "best"), metavar="os|ws|is|best",
           help="dataflow (default: the design's own, else the best by EDP)")  # fmt: skip
    option("--dataflow", metavar="FILE.m|STYLE|best|search",
           help="cost it under directives instead: those of a MAESTRO file, a style such as kcp_ws, or the "
           "best style per layer, or a search for each (default for a .m network: its own)")  # fmt: skip
    option(
        "--batch", type=whole(1), metavar="N", help="inferences run together (default: the design's, else 1)"
    )
    option("--bits", type=whole(1, 64), metavar="N",
           help="bits of stored weights and activations (default: the hardware's)")  # fmt: skip
    option("--layers", action="store_true", help="print every layer, not only the longest")
    option("--plots", metavar="DIR", help="with --dataflow: draw time, energy and what PEs hold into DIR")
    option("--json", action="store_true", help="print one JSON object on standard output")


def _map(add) -> None:
    command = add("map", "the best mapping of every layer on a memory hierarchy, and prove how good it is")
    command.add_argument(
        "network", metavar="NETWORK", help="zoo name, or a file (.onnx, .csv, .m, ZigZag or Timeloop .yaml)"
    )
    option = command.add_argument
    option("--hardware", required=True, metavar="NAME|FILE",
           help="gemmini, eyeriss_like, simba_like, a Timeloop or ZigZag .yaml, or an accelerator: catalogue "
           "name or file, design.yaml")  # fmt: skip
    option("--objective", type=one_of("edp", "energy", "latency"), default="edp",
           metavar="edp|energy|latency", help="what to minimise, summed (default: edp)")  # fmt: skip
    option("--certify", action="store_true", help="count the mappings that the proof speaks of, per layer")
    option("--bypass", action="store_true", help="also choose which tensors pass a level by")
    option("--min-utilization", type=share, default=0.0, metavar="X",
           help="least share of the MACs in use, 0 to 1 (default: 0)")  # fmt: skip
    option("--seconds", type=positive, default=5.0, metavar="S",
           help="per search, of which EDP takes three a layer: then the answer is a proven gap "
           "(default: 5)")  # fmt: skip
    option("--spread", type=one_of("ws", "os", "is", "any"), metavar="ws|os|is|any",
           help="of an accelerator: loops that its PE grid spreads (default: as its dataflow, else "
           "ws)")  # fmt: skip
    option("--layer", metavar="NAME", help="only this layer, with its loop nest")
    option("--batch", type=whole(1), default=1, metavar="N", help="inferences run together (default: 1)")
    option("--layers", action="store_true", help="print every layer, not only the largest")
    option("--out", metavar="DIR", help="write the mappings (Timeloop YAML, loop nests) and a summary here")
    option("--plots", metavar="DIR", help="draw energy, latency, slopes and traffic against buffer size here")
    option("--json", action="store_true", help="print one JSON object on standard output")


def _sweep(add) -> None:
    command = add("sweep", "evaluate millions to billions of designs; a kill loses nothing")
    command.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="zoo name, or a file (.onnx, .csv, .m, ZigZag .yaml)"
    )
    option = command.add_argument
    option("--space", required=True, metavar="FILE",
           help="YAML: the base design and what is variable in it (docs/sweep.md)")  # fmt: skip
    option("--model", type=one_of("systolic", "dataflow", "loopnest"), metavar="systolic|dataflow|loopnest",
           help="cost model (default: the file's, else systolic)")  # fmt: skip
    option("--objective", default="edp", metavar="NAME",
           help="figure to make small: edp, latency_s, energy_pj, area_mm2, power_w (short: latency, energy, "
           "area, power), cycles, idle, dram_bytes (default: edp)")  # fmt: skip
    option("--pareto", type=words, default=["latency_s", "energy_pj", "area_mm2"], metavar="NAME,NAME",
           help="axes of the Pareto set, or none (default: latency_s,energy_pj,area_mm2)")  # fmt: skip
    option("--top-k", type=whole(1, 10_000), default=10, metavar="K", help="best designs kept (default: 10)")
    amount = command.add_mutually_exclusive_group()
    amount.add_argument("--budget", type=whole(1), metavar="N", help="designs to evaluate (default: all)")
    amount.add_argument("--all", action="store_true", help="all, even if these are more than 10^10")
    option("--order", type=one_of("enumerate", "random", "low-discrepancy"),
           metavar="enumerate|random|low-discrepancy",
           help="which designs first (default: enumerate if all are visited, else random)")  # fmt: skip
    option("--combine", type=one_of("sum", "worst"), default="sum", metavar="sum|worst",
           help="of several networks: one after the other, or the worst of them (default: sum)")  # fmt: skip
    option("--dataflow", metavar="NAME", help="where it is no variable: os, ws, is, or a style")
    option("--layer", metavar="NAME", help="loopnest: the layer whose mappings are swept")
    option("--mapping", metavar="FILE|DIR", help="loopnest: Timeloop mappings to keep instead")
    option("--batch", type=whole(1), default=1, metavar="N", help="inferences run together (default: 1)")
    option("--record", nargs="?", const=True, type=words, metavar="NAME,NAME",
           help="write every design to Parquet (needs pyarrow), all figures or these")  # fmt: skip
    option("--chunk", type=auto_or_whole, metavar="auto|N", help="designs per saved chunk (default: auto)")
    option("--seed", type=whole(0, 2**31 - 1), default=0, metavar="S", help="of the order (default: 0)")
    option("--hosts", type=whole(1), metavar="N",
           help="processes that share DIR, which all must see (default: 1, or what SLURM says)")  # fmt: skip
    option("--host-id", type=whole(0), metavar="I", help="which of them this one is, from 0")
    option("--coordinator", metavar="HOST:PORT",
           help="start jax.distributed there first; only for devices that need it")  # fmt: skip
    option("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    option("--out", default="diffhw-sweep", metavar="DIR",
           help="folder of the sweep; the same command goes on there (default: ./diffhw-sweep)")  # fmt: skip


def _recipe(add) -> None:
    command = add("recipe", "run a published system: aqgan (bit widths for a wished accuracy and budget)")
    command.add_argument("name", choices=["aqgan"], metavar="RECIPE", help="aqgan")
    option = command.add_argument
    option("--network", metavar="NAME",
           help="mobilenet_v2_small, shufflenet_v2_small, squeezenet_small, mnasnet_small, "
           "efficientnet_small (default: mobilenet_v2_small)")  # fmt: skip
    option("--data", metavar="NAME|PATH",
           help="digits, or a path: CIFAR-10, folders of images, .npz (default: digits)")  # fmt: skip
    option("--accuracy", type=share, metavar="A", help="wished, 0 to 1 (default: the highest in the budget)")
    option("--budget-kb", type=positive, metavar="KB", help="most for the weights, in 1000 bytes")
    option("--budget-uj", type=positive, metavar="E", help="most energy of an image, in microjoules")
    option("--budget-us", type=positive, metavar="T", help="most latency of an image, in microseconds")
    option("--array", type=one_of("bit_fusion", "bit_serial", "fixed"),
           metavar="bit_fusion|bit_serial|fixed",
           help="what energy and latency are of (default where one is limited: bit_fusion)")  # fmt: skip
    option("--hardware", metavar="NAME|FILE", help="catalogue name or file of that array (default: edge)")
    option("--max-bits", type=whole(1, 16), metavar="B", help="widest weights (default: 8)")
    option("--keep", type=whole(1, 64), default=8, metavar="K", help="configurations shown (default: 8)")
    option("--evaluations", type=whole(100), metavar="N",
           help="network evaluations for the training set (default: 6000)")  # fmt: skip
    option("--epochs", type=whole(1), metavar="N", help="of the network (default: 120)")
    option("--kind", type=one_of("autoregressive", "adversarial"),
           metavar="autoregressive|adversarial",
           help="family of the generator (default: autoregressive)")  # fmt: skip
    option("--seed", type=whole(0, 2**31 - 1), metavar="S",
           help="of training and fit (default: 0)")  # fmt: skip
    option("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    option("--out", default="diffhw-aqgan", metavar="DIR",
           help="network, generator and answer are kept here; the next wish reuses them and "
           "takes all options above but the wish from there (default: ./diffhw-aqgan)")  # fmt: skip


def _lists(add) -> None:
    command = add("networks", "list the networks, or describe one")
    command.add_argument("name", nargs="?", metavar="NAME", help="zoo name or file")
    command = add("hardware", "list the catalogue, or describe one design")
    command.add_argument("name", nargs="?", metavar="NAME", help="catalogue name or file")
    command.add_argument("--fits", action="store_true", help="every technology fit with its data and error")
    command.add_argument("--assumed", action="store_true", help="every number that nobody could cite")


def _validate(add) -> None:
    command = add("validate", "compare our models with another tool's recorded answers")
    command.add_argument(
        "tool",
        choices=["scalesim", "maestro", "timeloop", "zigzag", "silicon"],
        metavar="TOOL",
        help="scalesim, maestro, timeloop, zigzag, or silicon (published chips)",
    )
    command.add_argument(
        "files", nargs="*", metavar="FILE", help="tables of runs of that tool: .csv, .jsonl (zigzag)"
    )
    option = command.add_argument
    option("--dtype", type=one_of("float32", "float64"), default="float64", metavar="float32|float64",
           help="of the model's arithmetic (default: float64)")  # fmt: skip
    option(
        "--require", type=share, metavar="F", help="exit code 1 if a column has a smaller share of exact rows"
    )
    option(
        "--architectures",
        metavar="FILE",
        help="timeloop and zigzag only (default: beside each table)",
    )
    option("--json", action="store_true", help="print one JSON object on standard output")


def build() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = _Parser(
        prog="diffhw",
        description="Differentiable hardware models: cost, search and co-design of accelerators.",
        epilog="example: diffhw codesign mobilenet_v2 --objective edp --area-mm2 4",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"diffhw {diffhw.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        return command

    for fill in (_codesign, _cost, _map, _sweep, _recipe, _lists, _validate):
        fill(add)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; raises `UserError` for a mistake, SystemExit for --help and --version."""
    parser = build()
    args, extra = parser.parse_known_args(argv)
    if extra:
        command = next(a for a in parser._actions if a.dest == "command").choices[args.command]  # ty: ignore[not-subscriptable]
        known = [option for action in command._actions for option in action.option_strings]
        raise UserError(f"unknown argument {extra[0]!r} of {args.command}{nearest(extra[0], known)}")
    return args
