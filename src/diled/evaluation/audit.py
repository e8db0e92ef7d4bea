"""The audit: how well an autoencoder generalizes, in sections that are measured one by one.

    bounds        bound, rate and distortion on real training and test examples: the generalization gap
    amortization  the best bound of each example on both sets: the amortization gap, and Zhang's split
    likelihood    IWAE (and AIS with BDMC where asked): log p(x), Cremer's split
    robustness    the published attack, and a stronger one at several radii
    codes         units, information, collapse, smoothness, probes, reconstruction, the encoder's slope
    pool          memorisation and coverage of the synthetic set that the model was trained on

A section takes an autoencoder and the examples, and gives figures, numbers per example, and remarks. It raises `NoBound`
where the model has none; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.diffusion import Diffusion
from diled.distributions import Normal
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.ais import ais, bdmc
from diled.evaluation.amortization import optimal_bounds
from diled.evaluation.attack import paper_attack, sign_attack
from diled.evaluation.codes import averaged, code_figures, posteriors, probes, probes_of_halves, smoothness
from diled.evaluation.gaps import amortization, generalization, generalization_by_term
from diled.evaluation.likelihood import elbo, iwae
from diled.evaluation.measure import Measured, features_for
from diled.evaluation.pools import pool_figures
from diled.evaluation.robustness import jacobian_norm, robustness
from diled.evaluation.similarity import ms_ssim, ms_ssim_kuzina, psnr, to_unit
from diled.models.sampling import BATCH

__all__ = ["BRIEF", "SECTIONS", "THOROUGH", "Effort", "Examples", "Section", "audit_section"]

SECTIONS = ("bounds", "amortization", "likelihood", "robustness", "codes", "pool")
"""In the order in which they are measured."""


@dataclass(frozen=True)
class Effort:
    """How much work the audit does.

    Attributes:
        bounded: examples of the training and of the test split whose bound is measured.
        examples: the first of these, for all that costs more.
        samples: of a posterior for the bound, and in each step of the per-example optimisation.
        steps: of that optimisation.
        weights: of the importance-weighted bound.
        ode_weights, ode_examples: the same with a diffusion prior, where each weight takes a whole ODE with its trace.
        annealed: test examples for AIS, and samples of the model for BDMC; 0: neither.
        annealing: intermediate distributions of AIS.
        references, restarts, iterations: of the strong attack.
        radii: of the strong attack, on the scale [0, 1].
        published_references, published_radius, published_iterations: of the attack as published.
        pairs: of test images, for the smoothness of codes.
    """

    bounded: int = 10_000
    examples: int = 1000
    samples: int = 16
    steps: int = 300
    weights: int = 5000
    ode_weights: int = 10
    ode_examples: int = 50
    annealed: int = 0
    annealing: int = 500
    references: int = 500
    restarts: int = 20
    iterations: int = 50
    radii: tuple[float, ...] = (0.05, 0.1, 0.2)
    published_references: int = 50
    published_radius: float = 0.1
    published_iterations: int = 50
    pairs: int = 200

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("annealed",) else 2 if name in ("examples", "bounded") else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} = {value}: at least {least} is needed.")
        for radius in (*self.radii, self.published_radius):
            if not 0 <= radius <= 1:
                raise ConfigError(
                    f"radius = {radius}: an attack's radius lies between 0 and 1, on the scale of pixels."
                )


BRIEF = Effort()
"""Fits two cores: minutes for a small model."""
THOROUGH = Effort(
    examples=5000,
    samples=64,
    steps=1000,
    ode_weights=200,
    ode_examples=300,
    annealed=100,
    annealing=10_000,
    references=1000,
    restarts=50,
    iterations=100,
    radii=(0.02, 0.05, 0.1, 0.2),
    pairs=1000,
)
"""Hours on two cores, minutes on a GPU."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model is audited on, in model space, on the CPU. Binarised data are drawn once.

    Attributes:
        train, test: (n, *shape), real examples.
        grey: (n, *shape), the test examples before binarisation.
        train_labels, test_labels: classes (n,), or None.
        data: where they come from, for feature networks.
        pool: (m, *shape), examples of the synthetic set that the model was trained on, or None.
    """

    train: Tensor
    test: Tensor
    grey: Tensor
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    data: Any
    pool: Tensor | None = None

    def first(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first n training and test examples on a device."""
        return self.train[:n].to(device), self.test[:n].to(device)


@dataclass(eq=False)
class Section:
    """What one section found.

    Attributes:
        figures: metric -> value.
        arrays: name -> numbers per example, for intervals of differences and for plots.
        notes: what must be known to read them.
    """

    figures: dict[str, Measured] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def audit_section(
    name: str,
    model: Any,
    examples: Examples,
    effort: Effort = BRIEF,
    seed: int = 0,
    earlier: Mapping[str, Section] | None = None,
) -> Section:
    """Measure one section.

    Args:
        name: one of `SECTIONS`.
        model: an autoencoder, in evaluation mode.
        examples: real training and test examples.
        effort: how much work.
        seed: of all draws.
        earlier: sections that are there; `likelihood` makes use of `amortization`.

    Raises:
        NoBound: the section needs a bound, and the model has none.
        ConfigError: there is no such section, or it does not apply: pictures are attacked, and only a pool can be compared.
    """
    sections: dict[str, Callable[..., Section]] = {
        "bounds": bounds_section,
        "amortization": amortization_section,
        "likelihood": partial(likelihood_section, amortized=(earlier or {}).get("amortization")),
        "robustness": robustness_section,
        "codes": codes_section,
        "pool": pool_section,
    }
    if name not in sections:
        raise ConfigError(f"There is no section '{name}' in an audit. Sections: {', '.join(sections)}.")
    return sections[name](model, examples, effort, seed)


def bounds_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`bound_nats/train`, `.../test`, rate and distortion likewise, and `generalization_gap` with its terms."""
    device = _device(model)
    found, terms = Section(), {}
    for name, x in zip(("train", "test"), examples.first(effort.bounded, device), strict=True):
        each = elbo(model, x, effort.samples, seed=seed)
        nats = {"bound": -each.value, "rate": each.rate, "distortion": each.distortion}
        terms[name] = {key: value.double().cpu().numpy() for key, value in nats.items()}
        for key, value in terms[name].items():
            found.figures[f"{key}_nats/{name}"] = averaged(value)
            found.arrays[f"{name}_{key}"] = value
    found.figures["generalization_gap"] = generalization(terms["train"]["bound"], terms["test"]["bound"])
    parts = {name: {key: nats[key] for key in ("rate", "distortion")} for name, nats in terms.items()}
    for key, gap in generalization_by_term(parts["train"], parts["test"]).items():
        found.figures[f"generalization_gap/{key}"] = gap
    found.notes.append(f"Bounds are means of {effort.samples} estimates of each example.")
    return found


def amortization_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`amortization_gap_train`, `amortization_gap_test`, the best bounds, and how sure the optimisation is."""
    found = Section()
    for name, x in zip(("train", "test"), examples.first(effort.examples, _device(model)), strict=True):
        best = optimal_bounds(model, x, steps=effort.steps, samples=effort.samples, seed=seed)
        before, after = (v.double().cpu().numpy() for v in (best.bound, best.best_bound))
        found.figures[f"amortization_gap_{name}"] = amortization(before, after)
        found.figures[f"best_bound_nats/{name}"] = averaged(after)
        found.figures[f"still_improving/{name}"] = Measured(best.still_improving, n=len(x))
        found.arrays |= {f"{name}_before": before, f"{name}_best": after}
        found.arrays |= {f"{name}_mean": best.posterior.mean.cpu().numpy()}
        found.arrays |= {f"{name}_log_var": best.posterior.log_var.expand_as(best.posterior.mean).cpu().numpy()}
        won = ", ".join(f"{start} {share:.0%}" for start, share in best.won.items())
        found.notes.append(f"{name}: {effort.steps} steps with {effort.samples} samples; the best q came from {won}.")
        if best.still_improving > 0.05:
            found.notes.append(
                f"{name}: {best.still_improving:.0%} of the examples were still gaining more than {best.threshold:g} nats in "
                "the last quarter of the steps, so the gap is larger than the figure: take more steps."
            )
    return found


def likelihood_section(
    model: Any, examples: Examples, effort: Effort, seed: int, amortized: Section | None = None
) -> Section:
    """`log_p_nats/train` and `/test` from many importance weights, their reliability, and AIS with BDMC where asked.

    Codes are drawn from the encoder's q, and where the best q of each example is known, from that as well: an encoder that
    misses new examples makes a poor proposal. Both are lower bounds, and the one with the better mean counts.
    """
    found, ode = Section(), any(isinstance(part, Diffusion) for part in model.prior.modules())
    largest = effort.ode_weights if ode else effort.weights
    n = min(effort.ode_examples, effort.examples) if ode else effort.examples
    counts = (*(k for k in (1, 10, 100, 1000, 5000) if k < largest), largest)
    for name, x in zip(("train", "test"), examples.first(n, _device(model)), strict=True):
        tried = {"the encoder's q": iwae(model, x, counts, seed=seed, prior="ode" if ode else None)}
        for k, log_p in zip(counts, tried["the encoder's q"].log_p, strict=True):
            found.figures[f"iwae_nats/{name}/{k}"] = averaged(log_p.cpu())
        if amortized is not None:
            mean, log_var = (torch.from_numpy(amortized.arrays[f"{name}_{k}"][:n]).to(x) for k in ("mean", "log_var"))
            best = Normal(mean, log_var)
            tried["the best q"] = iwae(model, x, counts, seed=seed, prior="ode" if ode else None, proposal=best)
        how, weighted = max(tried.items(), key=lambda item: item[1].best.mean().item())
        found.figures[f"log_p_nats/{name}"] = averaged(weighted.best.cpu())
        found.figures[f"effective_weights/{name}"] = averaged(weighted.ess.cpu())
        found.arrays[f"{name}_log_p"] = weighted.best.double().cpu().numpy()
        under = ", under the ODE of the prior" if ode else ""
        found.notes.append(
            f"{name}: log p(x) from {largest} weights of each of {len(x)} examples, codes drawn from {how}{under}; "
            f"{weighted.ess.mean():.3g} effective weights on average, and it is higher still where these are few."
        )
    if effort.annealed:
        x = examples.test[: effort.annealed].to(_device(model))
        annealed = ais(model, x, steps=effort.annealing, seed=seed)
        both = bdmc(model, len(x), steps=effort.annealing, seed=seed)
        found.figures["ais_nats/test"] = averaged(annealed.log_p.cpu())
        found.figures["bdmc_gap_nats"] = averaged((both.upper - both.lower).cpu())
        found.arrays["test_ais"] = annealed.log_p.double().cpu().numpy()
    return found


def robustness_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`robustness_gap` as published, and `robustness_gap/strong/RADIUS`, with SKL and similarities."""
    if examples.test.ndim != 4:
        raise ConfigError("The robustness gap compares pictures, and these data are none.")
    found, (_, x) = Section(), examples.first(len(examples.test), _device(model))
    labels = None if examples.test_labels is None else examples.test_labels[: len(x)]
    published = partial(paper_attack, steps=effort.published_iterations)
    strong = partial(sign_attack, restarts=effort.restarts, steps=effort.iterations)
    runs: list[tuple[str, Any, tuple[float, ...], int, Any]] = [
        ("", published, (effort.published_radius,), effort.published_references, ms_ssim_kuzina),
        ("/strong", strong, effort.radii, effort.references, ms_ssim),
    ]
    for kind, attack, radii, references, similarity in runs:
        n = min(references, len(x))
        for one in robustness(
            model, x, attack=attack, radii=radii, references=n, labels=labels, similarity=similarity, seed=seed
        ):
            name = kind and f"{kind}/{one.radius:g}"
            interval = f"95 % between {one.low:.3f} and {one.high:.3f}"
            found.figures[f"robustness_gap{name}"] = Measured(
                one.gap, averaged(one.gaps.cpu()).stderr, n, f"radius {one.radius:g}; {interval}"
            )
            found.figures[f"input_similarity{name}"] = averaged(one.input_similarity.cpu())
            found.figures[f"reconstruction_similarity{name}"] = averaged(one.reconstruction_similarity.cpu())
            if one.skl is not None:
                found.figures[f"attack_skl{name}"] = averaged(one.skl.cpu())
            found.arrays[f"gaps{name}"] = one.gaps.double().cpu().numpy()
            if not kind:
                found.arrays |= _attacked(model, one, seed)
    found.notes.append(
        f"As published: mean over 10 restarts of gradient ascent on the symmetric KL, radius {effort.published_radius:g}. "
        f"Strong: the worst of {effort.restarts} restarts of sign-gradient ascent, {effort.iterations} steps."
    )
    return found


@torch.no_grad()
def _attacked(model: Any, one: Any, seed: int, few: int = 8) -> dict[str, np.ndarray]:
    """Some references, the first attack on each, and their reconstructions, to be looked at."""
    reference, attacked = one.attack.reference[:few], one.attack.attacked[:few, 0]
    with seeded(seed, 7):
        shown = [reference, model.decode(model.encode(reference)), attacked, model.decode(model.encode(attacked))]
    names = ("shown_reference", "shown_reference_decoded", "shown_attacked", "shown_attacked_decoded")
    return {name: x.float().cpu().numpy() for name, x in zip(names, shown, strict=True)}


def codes_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """What the codes of test examples hold, what they are good for, and how smooth the encoder is."""
    device = _device(model)
    train, test = examples.first(max(effort.examples, min(5000, len(examples.test))), device)
    figures = code_figures(model, test, samples=min(1000, len(test)), seed=seed)
    found = Section(figures={name: m for name, m in figures.items() if name not in ("bound_nats", "distortion_nats")})
    codes = {name: posteriors(model, x).mean.numpy() for name, x in (("train", train), ("test", test))}
    if examples.train_labels is not None and examples.test_labels is not None:
        of_train, of_test = examples.train_labels[: len(train)], examples.test_labels[: len(test)]
        found.figures |= probes(codes["train"], of_train, codes["test"], of_test, seed=seed)
        halves = probes_of_halves(codes["test"], of_test, seed=seed)
        found.figures |= {f"{name}/halves": value for name, value in halves.items()}
    found.figures["psnr"] = averaged(_psnr(model, test, examples.grey[: len(test)]))
    slope = jacobian_norm(model.encoder, test[: effort.references], seed=seed)
    found.figures["encoder_slope"] = averaged(slope.norm.cpu(), slope.method)
    if slope.scaled is not None:
        found.figures["encoder_slope/scaled"] = averaged(slope.scaled.cpu(), slope.method)
    n = min(effort.pairs, len(test) // 2)
    curve = smoothness(model, test[:n], test[n : 2 * n], seed=seed)
    found.arrays["smoothness"] = curve.double().cpu().numpy()
    found.figures["smoothness_nats"] = averaged(curve[1:-1].min(0).values.cpu(), "the lowest between two images")
    found.arrays["unit_nats"] = _unit_nats(model, test)
    return found


def _unit_nats(model: Any, x: Tensor) -> np.ndarray:
    """Nats of each dimension, the largest first."""
    from diled.evaluation.codes import information

    q = posteriors(model, x)
    return information(q.mean, q.log_var).numpy()[np.argsort(-information(q.mean, q.log_var).numpy())]


@torch.no_grad()
def _psnr(model: Any, x: Tensor, grey: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of decoded mean codes against the images before binarisation, (B,)."""
    out = []
    for part, target in zip(x.split(BATCH), grey.split(BATCH), strict=True):
        shown = to_unit(model.decode(model.encode(part)).cpu()).clamp(0, 1)
        out.append(psnr(shown, to_unit(target)))
    return torch.cat(out)


def pool_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """Memorisation and coverage of the synthetic set that the model was trained on."""
    if examples.pool is None:
        raise ConfigError("The model was not trained on a synthetic set, so there is none to compare.")
    net = features_for(examples.data)
    found = pool_figures(examples.pool, examples.train, examples.test, net, model=model, seed=seed)
    return Section(figures=found, notes=[f"{len(examples.pool):,} examples of the synthetic set were looked at."])


def _device(model: torch.nn.Module) -> torch.device:
    return next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
