"""``diffhw hardware``: the catalogue, one design, the technology's fits and assumed numbers."""

from diffhw._cli._runtime import emit, start_jax

__all__ = ["run"]


def _catalogue() -> None:
    from diffhw import hardware
    from diffhw.report import Table
    from diffhw.report import _content as content

    rows = []
    for name in hardware.names():
        entry = hardware.catalogue_entry(name)
        hw, published = entry.hardware, entry.published_area_mm2
        rows.append(
            (
                name,
                content.grid_text(hw),
                content.buffers_text(hw),
                f"{float(hw.weight_bits):g}",
                f"{float(hw.technology.node_nm):g}",
                f"{float(hw.freq_hz) / 1e6:g}",
                content.dram_text(hw),
                f"{float(hw.dram.gb_per_s):g}",
                f"{float(hardware.area_mm2(hw)):.3g}",
                "-" if published is None else f"{published:g}",
                entry.dataflow,
            )
        )
    heads = (
        *(
            "design",
            "rows x cols (x lanes)",
            "buffers i/w/o (KiB)",
            "operands (bit)",
            "node (nm)",
            "clock (MHz)",
        ),
        *("DRAM", "DRAM (GB/s)", "our area (mm2)", "published area (mm2)", "dataflow nearest to the chip's"),
    )
    notes = ("our areas are of cells only; diffhw hardware NAME says what a published area covers",)
    emit(Table("catalogue", heads, tuple(rows), left=(0, 6, 10), notes=notes))


def _one(name: str) -> None:
    from diffhw import hardware

    hw = hardware.load(name)
    emit(repr(hw))
    if name in hardware.names():
        entry = hardware.catalogue_entry(name)
        emit(f"  nearest dataflow: {entry.dataflow}", f"  source: {entry.source}", f"  notes: {entry.notes}")
        if entry.published_area_mm2 is not None:
            emit(f"  published area: {entry.published_area_mm2:g} mm2, {entry.published_area_is}")


def _fits() -> None:
    from diffhw import hardware
    from diffhw.report import Table

    for fit in hardware.fits():
        rows = tuple(
            (label, f"{data:.4g}", f"{ours:.4g}", f"{100 * (ours / data - 1):+.1f}")
            for label, data, ours in fit.points
        )
        emit(
            Table(
                f"{fit.quantity} ({fit.role}): {fit.formula}",
                ("point", f"published ({fit.unit})", f"ours ({fit.unit})", "error (%)"),
                rows,
                notes=(
                    f"mean error {100 * fit.mean_error:.1f} %, worst {100 * fit.worst_error:.1f} %",
                    f"source: {fit.source}",
                ),
            ),
            "",
        )


def _assumed() -> None:
    from diffhw import hardware
    from diffhw.report import Table

    rows = tuple((one.name, f"{one.default:.4g}", one.unit, one.why) for one in hardware.ASSUMED)
    title = "numbers that nobody could cite, at 22 nm"
    emit(Table(title, ("number", "value", "unit", "why this value"), rows, left=(0, 2, 3)))


def run(args) -> int:
    """The command; see ``diffhw hardware --help``."""
    start_jax()
    if args.name is not None:
        _one(args.name)
    if args.fits:
        _fits()
    if args.assumed:
        _assumed()
    if args.name is None and not args.fits and not args.assumed:
        _catalogue()
    return 0
