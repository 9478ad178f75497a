"""``diffhw sweep``: millions to billions of designs, resumable, on one machine or several."""

import os
import sys

from diffhw._cli._errors import UserError
from diffhw._cli._files import check_writable
from diffhw._cli._hosts import host_of, start_distributed
from diffhw._cli._runtime import emit, emit_json, start_jax

__all__ = ["run"]

_MANY = 10**10


def _problem(args):
    """What is swept, once every argument is known to be right. Raises ValueError."""
    from diffhw import recipes
    from diffhw.recipes._sweep import metric_name

    for name in (args.objective, *args.pareto, *(args.record if isinstance(args.record, list) else ())):
        metric_name(name)
    if not os.path.exists(args.space):
        raise UserError(f"--space {args.space}: no such file")
    if args.record:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError("--record needs pyarrow: pip install 'diffhw[sweep]'") from None
    return recipes.sweep_problem(
        args.networks,
        args.space,
        model=args.model,
        combine=args.combine,
        dataflow=args.dataflow,
        layer=args.layer,
        mapping=args.mapping,
        batch=args.batch,
    )


def _amount(args, space) -> tuple[str, int | None]:
    """(order, budget or None for all)."""
    size = space.size
    everything = args.budget is None or args.budget >= size
    if args.budget is None and not args.all and size > _MANY:
        shown = f"{size:,}" if isinstance(size, int) and size < 10**15 else f"{float(size):.3g}"
        raise UserError(f"the space has {shown} designs: say how many with --budget N, or --all")
    order = args.order or ("enumerate" if everything and not space.is_continuous else "random")
    if order != "enumerate" and args.budget is None:
        raise UserError(f"--order {order} draws as many designs as --budget N says; give it")
    return order, None if everything and order == "enumerate" else args.budget


def run(args) -> int:
    """The command; see ``diffhw sweep --help``."""
    host = host_of(args)
    out = check_writable(args.out)
    jax = start_jax()
    start_distributed(jax, args, host)
    problem = _problem(args)
    order, budget = _amount(args, problem.space)

    from diffhw import recipes
    from diffhw._cli._progress import Progress
    from diffhw._cli._sweep_show import Told, report_sweep
    from diffhw.recipes._sweep import metric_name

    objective = metric_name(args.objective)
    try:
        with Progress(recipes.METRICS[objective]) as progress:
            result = recipes.run_sweep(
                problem,
                objective=objective,
                order=order,
                budget=budget,
                seed=args.seed,
                top_k=args.top_k,
                pareto=args.pareto,
                record=args.record or False,
                out=out,
                chunk=args.chunk,
                host=host,
                progress=Told(progress),
            )
    except KeyboardInterrupt:
        print(
            f"diffhw: interrupted; finished chunks are safe in {out}: run the same command to go on",
            file=sys.stderr,
        )
        return 130
    document, shown = report_sweep(args, problem, result, objective, out, host)
    if args.json:
        emit_json(document)
    else:
        emit(*shown)
    return 0
