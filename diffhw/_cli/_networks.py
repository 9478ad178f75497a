"""``diffhw networks``: the zoo, or one network."""

from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]


def _si(value: float | None) -> str:
    from diffhw.models._show import digits, scaled_unit

    if value is None:
        return "-"
    factor, prefix = scaled_unit(value, "MACs")
    return f"{digits(value / factor)} {prefix.removesuffix('MACs').strip()}".strip()


def _zoo() -> None:
    from diffhw import workloads
    from diffhw.report import Table

    rows = []
    for name in workloads.names():
        network = workloads.load(name)
        sums = network.summary()
        published = workloads.PUBLISHED.get(name)
        rows.append(
            (
                name,
                str(network.merged().size),
                _si(sums["macs"]),
                _si(sums["macs_without_attention"]),
                _si(published.macs) if published else "-",
                _si(sums["params"]),
                _si(published.params) if published else "-",
                published.how if published else "",
            )
        )
    heads = (
        *("network", "distinct layers", "MACs", "MACs without attention products", "MACs published"),
        *("parameters", "parameters published", "published, how known"),
    )
    emit(Table("networks, batch 1", heads, tuple(rows), left=(0, 7)))


def _one(name: str) -> None:
    from diffhw import workloads
    from diffhw.report import Table

    network = workloads.load(name)
    sums, merged, info = network.summary(), network.merged(), network.info
    rows = []
    for label, layer, count in zip(merged.names, merged.rows(), merged.count, strict=False):
        get = lambda field, layer=layer: f"{float(getattr(layer, field)):g}"
        rows.append(
            (
                label,
                f"{float(count):g}",
                *(get(field) for field in ("n", "g", "k", "c")),
                f"{get('p')} x {get('q')}",
                f"{get('r')} x {get('s')}",
                f"{get('stride_h')} x {get('stride_w')}",
                _si(float(layer.macs) * float(count)),
                "0" if float(layer.weight_is_activation) else _si(float(layer.weight_words) * float(count)),
            )
        )
    heads = ("layer", "runs", "n", "g", "k", "c", "p x q", "r x s", "stride", "MACs", "parameters")
    title = f"{info.name}: {_si(sums['macs'])} MACs, {_si(sums['params'])} parameters"
    emit(Table(title, heads, tuple(rows), notes=tuple(f"note: {note}" for note in info.notes)))
    if info.operators:
        kinds: dict[str, list[int]] = {}
        for one in info.operators:
            entry = kinds.setdefault(one.kind, [0, 0])
            entry[0] += one.count
            entry[1] += one.count * one.elements
        body = tuple(
            (kind, str(n), _si(size)) for kind, (n, size) in sorted(kinds.items(), key=lambda x: -x[1][1])
        )
        emit(
            "",
            Table("operators without MACs (no model charges for them)", ("kind", "runs", "elements"), body),
        )
    published = workloads.PUBLISHED.get(name)
    if published:
        emit(
            f"published: {_si(published.macs)} MACs, {_si(published.params)} parameters ({published.how}: "
            f"{published.source})"
        )
    if info.source:
        emit(f"source: {info.source}")


def run(args) -> int:
    """The command; see ``diffhw networks --help``."""
    start_jax()
    _zoo() if args.name is None else _one(args.name)
    return 0
