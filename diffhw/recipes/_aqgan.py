"""AQGAN: a conditional generator that proposes per-layer bit widths for a wished accuracy and budget.

Kao, Ramamurthy, Krishna, "Generative Design of Hardware-aware DNNs" (arXiv 2006.03968). From the paper: a
conditional generative model maps a target accuracy to a suite of bit-width configurations; a cost model
prices the proposals and the one within the budget is taken; a new wish costs a forward pass, not a search.
Ours: how the training set is built, the surrogate, the default (autoregressive) generator, budgets as a
second condition, correction by the surrogate, the answer when nothing is feasible.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from diffhw import search
from diffhw.recipes._bit_problem import BitProblem
from diffhw.recipes._bit_samples import BitSamples, bit_surrogate, sample_bits
from diffhw.search import Condition, Generator

__all__ = ["Aqgan", "AqganAnswer", "aqgan", "load_aqgan", "sample_bits"]

_PROPOSALS = 64

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class AqganAnswer:
    """Configurations for one wish.

    wanted: the wish.  feasible: some proposal is within ``tolerance`` of the target and the budgets.
    bits: (K, L), best first.  predicted: (K,) accuracy by the surrogate.  accuracy: (K,) really evaluated,
    or None.  costs: metric -> (K,), exact.  evaluations: spent on this answer.  seconds.
    nearest: where the wish is infeasible, the accuracy nearest to it that the budgets seem to allow.
    note: one sentence.
    """

    wanted: dict[str, float | None]
    feasible: bool
    bits: np.ndarray
    predicted: np.ndarray
    accuracy: np.ndarray | None
    costs: dict[str, np.ndarray]
    evaluations: int
    seconds: float
    nearest: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Aqgan:
    """A fitted generator with its problem; `ask` answers wishes, `save` keeps it.

    designs, accuracy: the training set, really evaluated.  evaluations: spent on it.
    """

    problem: BitProblem
    generator: Generator
    designs: np.ndarray
    accuracy: np.ndarray
    seconds: float

    @property
    def evaluations(self) -> int:
        """Network evaluations of the training set."""
        return len(self.designs)

    def propose(
        self, wanted: Mapping[str, float | None], n: int = _PROPOSALS, seed: int = 0, correct: bool = True
    ) -> np.ndarray:
        """Index vectors (n, L) for a wish, no evaluation; milliseconds after the first call."""
        key = jax.random.key(seed)
        drawn = self.generator.sample(jax.random.fold_in(key, 0), wanted, n)
        return self.generator.correct(jax.random.fold_in(key, 1), drawn, wanted) if correct else drawn

    def ask(
        self,
        accuracy: float | None = None,
        *,
        budgets: Mapping[str, float] | None = None,
        n: int = _PROPOSALS,
        keep: int = 8,
        evaluate: bool = True,
        tolerance: float = 0.015,
        seed: int = 0,
    ) -> AqganAnswer:
        """Configurations near a target accuracy and within budgets, best first.

        accuracy: wished, in [0, 1]; None: the highest within the budgets.  budgets: metric -> most.
        n: proposals; ``keep`` are kept, by evaluation of all that keep the budgets (``evaluate``) or by the
        surrogate.
        tolerance: how near counts as met.
        Where the wish cannot be met, the nearest accuracy that can is found by bisection on the
        generator, and its proposals are returned with a note.
        Raises ValueError for an accuracy that no configuration has (the range is named), an unknown budget,
        or a budget below what the smallest configuration takes.
        """
        begin, spent = time.perf_counter(), self.problem.ledger.evaluations
        wanted: dict[str, float | None] = {"accuracy": accuracy, **(budgets or {})}
        note, nearest = "", None
        if accuracy is None:
            aim = self._reach(wanted, seed)
            note = f"highest accuracy within the budgets, about {aim:.3f}"
        else:
            self.generator._asked(wanted)
            aim = accuracy
            if budgets:
                top = self._reach(wanted, seed)
                if top < accuracy - tolerance:
                    aim = nearest = top
        drawn = self.propose(wanted | {"accuracy": aim}, n, seed)
        legal = np.all(
            [self.problem.cost(name, drawn) <= most for name, most in (budgets or {}).items()], axis=0
        )
        legal = np.broadcast_to(legal, len(drawn))
        if not legal.any():
            nearest = aim if nearest is None else nearest
            if accuracy is None:
                note = "no proposal keeps the budgets: these are over them"
        drawn = drawn[legal] if legal.any() else drawn
        predicted = self.generator.predict(drawn)["accuracy"]
        measured = self.problem.evaluate(drawn) if evaluate else None
        value = predicted if measured is None else measured
        if nearest is not None and accuracy is not None:
            # Predicted maxima are too high more often than too low, so what was run decides.
            nearest = float(value[np.argmin(np.abs(value - accuracy))])
            how = "predicted" if measured is None else "found"
            fits = "does not fit the budgets" if legal.any() else "came with no proposal within the budgets"
            note = f"accuracy {accuracy:.3f} {fits}: the nearest {how} is {nearest:.3f}"
            aim = nearest
        goal = np.inf if accuracy is None else aim
        order = np.argsort(-value if np.isinf(goal) else np.abs(value - goal), kind="stable")[:keep]
        met = nearest is None and (accuracy is None or abs(float(value[order[0]]) - accuracy) <= tolerance)
        return AqganAnswer(
            wanted=wanted,
            feasible=bool(met),
            bits=drawn[order] + 1,
            predicted=predicted[order],
            accuracy=None if measured is None else measured[order],
            costs={name: self.problem.cost(name, drawn[order]) for name in self.problem.tables},
            evaluations=self.problem.ledger.evaluations - spent,
            seconds=time.perf_counter() - begin,
            nearest=nearest,
            note=note,
        )

    def _reach(self, wanted: Mapping[str, float | None], seed: int) -> float:
        """The highest accuracy that proposals within the budgets are predicted to have."""
        place = [one.name for one in self.generator.conditions].index("accuracy")
        low, high = self.generator.low[place], self.generator.high[place]
        budgets = {name: value for name, value in wanted.items() if name != "accuracy"}
        best = -np.inf
        for _ in range(7):
            middle = (low + high) / 2
            drawn = self.propose(budgets | {"accuracy": middle}, _PROPOSALS, seed, correct=False)
            top = float(self.generator.predict(drawn)["accuracy"].max())
            best = max(best, top)
            low, high = (middle, high) if top >= middle - 0.005 else (low, middle)
        return best

    def save(self, folder: str | Path) -> None:
        """generator.bin, training_set.npz and aqgan.json in a folder; `load_aqgan` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.generator.save(folder / "generator.bin")
        np.savez(folder / "training_set.npz", designs=self.designs, accuracy=self.accuracy)
        about = {
            "network": self.problem.network,
            "layers": list(self.problem.names),
            "weights": self.problem.fingerprint,
            "max_bits": self.problem.max_bits,
            "selection_images": len(self.problem.selection),
            "float_accuracy": self.problem.float_accuracy,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }
        (folder / "aqgan.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load_aqgan(folder: str | Path, problem: BitProblem) -> Aqgan:
    """What `Aqgan.save` wrote, for the same network. Raises ValueError (one sentence) if it is another's."""
    folder = Path(folder)
    try:
        about = json.loads((folder / "aqgan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: holds no saved generator ({error})") from error
    if tuple(about["layers"]) != problem.names:
        raise ValueError(
            f"{folder}: the generator was made for {about['network']} with {len(about['layers'])} quantized "
            f"layers, the network given is {problem.network} with {len(problem.names)}"
        )
    if about["weights"] != problem.fingerprint:
        raise ValueError(
            f"{folder}: the generator was made for another training of {problem.network}: train it the same "
            "way (data, epochs, seed), or fit a new generator in another folder"
        )
    fitted = search.load_generator(folder / "generator.bin", problem.sizes)
    with np.load(folder / "training_set.npz") as stored:
        designs, accuracy = stored["designs"], stored["accuracy"]
    return Aqgan(problem, fitted, designs, accuracy, about["seconds"])


def aqgan(
    problem: BitProblem,
    *,
    evaluations: int = 10_000,
    budgets: tuple[str, ...] = ("bytes",),
    kind: str = "autoregressive",
    seed: int = 0,
    members: int = 4,
    surrogate_steps: int = 2000,
    steps: int = 1200,
    polish: int = 1000,
    pool: int = 60_000,
    hidden: int = 64,
    training_set: BitSamples | tuple[np.ndarray, np.ndarray] | None = None,
    surrogate: search.Surrogate | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Aqgan:
    """Builds the training set, the surrogate and the generator of one network.

    evaluations: of the network, all for the training set.  budgets: metrics of ``problem.tables`` that may
    be limited.  kind: of the generator ("adversarial" is the paper's family).  training_set: of
    `sample_bits`, or (designs, accuracy), to use in place of a new one.  surrogate: of that
    training set, if there is one already.  resume: file in which the generator's fit is kept.
    Raises ValueError for an unknown budget metric; see also `sample_bits` and `search.generator`.
    """
    begin = time.perf_counter()
    for name in budgets:
        if name not in problem.tables:
            raise ValueError(f"no metric is called {name!r}: known are {', '.join(problem.tables)}")
    if training_set is None:
        training_set = sample_bits(problem, evaluations, seed, progress=progress)
    designs, accuracy, *more = training_set
    known = BitSamples(designs, accuracy, more[0] if more else np.zeros((len(designs), 0)))
    key = jax.random.key(seed)
    told = None if progress is None else lambda done, total: progress("surrogate", done, total)
    if surrogate is None:
        start = jax.random.fold_in(key, 100)
        surrogate = bit_surrogate(problem, known, start, members, surrogate_steps, told)
    conditions = [Condition("accuracy"), *(Condition(n, "budget", problem.tables[n]) for n in budgets)]
    fitted = search.generator(
        surrogate,
        conditions,
        jax.random.fold_in(key, 101),
        kind=kind,
        pool=pool,
        steps=steps,
        polish=polish,
        hidden=hidden,
        known=designs,
        names=problem.names,
        resume=resume,
        progress=progress,
    )
    seconds = time.perf_counter() - begin
    return Aqgan(problem, replace(fitted, notes={"network": problem.network}), designs, accuracy, seconds)
