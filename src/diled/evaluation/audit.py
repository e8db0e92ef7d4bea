"""The audit: how well an autoencoder generalizes, in sections that are measured one by one.

    bounds        bound, rate and distortion on real training and test examples: the generalization gap
    amortization  the best bound of each example on both sets: the amortization gap, and Zhang's split
    likelihood    IWAE (and AIS with BDMC where asked): log p(x), Cremer's split
    robustness    the published attack, and a stronger one at several radii
    codes         units, information, collapse, smoothness, probes, reconstruction, the encoder's slope
    pool          memorisation and coverage of the synthetic set that the model was trained on

A section takes a model and the examples, and gives figures, numbers per example, and remarks. Where the model has no bound,
the first three raise `NoBound`, and the others give what needs none. Where it is no autoencoder, only its bounds and its
synthetic set are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import device_of
from diled.diffusion import Diffusion
from diled.distributions import Normal
from diled.draws import BLOCK, seeded
from diled.errors import ConfigError, DataError, DiledError, ModelError, NoBound
from diled.evaluation.ais import ais, bdmc
from diled.evaluation.amortization import ROWS, optimal_bounds
from diled.evaluation.attack import paper_attack, sign_attack
from diled.evaluation.codes import (
    active_count,
    averaged,
    code_figures,
    code_means,
    information,
    posteriors,
    probes,
    probes_of_halves,
    smoothness,
)
from diled.evaluation.effort import BRIEF, THOROUGH, Effort
from diled.evaluation.gaps import amortization, generalization, generalization_by_term
from diled.evaluation.likelihood import elbo, iwae
from diled.evaluation.measure import FEW, Measured
from diled.evaluation.robustness import jacobian_norm, robustness
from diled.evaluation.rows import batch_size, rows_of_decoder, rows_of_encoder, rows_that_fit
from diled.evaluation.similarity import ms_ssim, ms_ssim_kuzina, psnr, to_unit
from diled.space import log_unit

__all__ = [
    "BRIEF",
    "PUBLISHED",
    "SECTIONS",
    "THOROUGH",
    "Effort",
    "Examples",
    "Section",
    "audit_section",
    "nats_of_codes",
]

SECTIONS = ("bounds", "amortization", "likelihood", "robustness", "codes", "pool")
"""In the order in which they are measured."""
OF_ANY = ("bounds", "pool")
"""Those that need no encoder."""
CHUNK, OPTIMISED, ATTACKED, LOGITS = 4096, 250, 256, 2**26
"""Rows that go through a decoder at once, examples whose q is optimised at once, and images that are attacked at once, where
a model is not large (see `rows`); and the most logits of texts, a quarter of a GiB: there are fewer rows of them."""
PUBLISHED = {"grey": (0.1, 50, 50), "colour": (0.05, 20, 100)}
"""Kind of images -> radius, references and iterations of the published attack (Xiao et al. 2024, Table 2)."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model is audited on, in model space, on the CPU. Binarised data are drawn once.

    Attributes:
        train, test: (n, *shape), real examples.
        grey: (n, *shape), the test examples before binarisation.
        train_labels, test_labels: classes (n,), or None.
        data: where they come from, for feature networks.
        pool: (m, *shape), examples of the synthetic set that the model was trained on, or None.
        shown: all of these with grey values, in which a synthetic set is compared; None: as they are.
        columns: split -> label column -> values, in the order of the examples.
        rest: gives the training examples that are not in `train`, in parts; a synthetic set is compared with these too.
    """

    train: Tensor
    test: Tensor
    grey: Tensor
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    data: Any
    pool: Tensor | None = None
    columns: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    rest: Callable[[], Iterable[Tensor]] = tuple
    shown: Examples | None = None

    @property
    def sequential(self) -> bool:
        """Whether the examples are sequences of symbols."""
        return not self.test.is_floating_point()

    @property
    def text(self) -> bool:
        """Whether the examples are texts."""
        return self.sequential and self.data is not None and bool(self.data.spec.kind == "text")

    @property
    def unit(self) -> float:
        """What to add to a bound to refer it to the data's own units, in nats; 0 on a grid."""
        return 0.0 if self.data is None else log_unit(self.data.spec)

    @property
    def chunk(self) -> int:
        """How many rows go through a decoder at once, whatever its size."""
        if not self.text:
            return CHUNK
        return max(BLOCK, min(CHUNK, LOGITS // (self.data.spec.numel * len(self.data.spec.symbols))))

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

    def add(
        self, what: str, measure: Callable[[], Section], passing: tuple[type[DiledError], ...] = (NoBound,)
    ) -> DiledError | None:
        """Add what `measure` finds; or, where it is refused by an error that is `passing`, a note with that error's words.

        Args:
            what: it would find.
            measure: without arguments.
            passing: kinds of refusals that leave the rest of the section as it is.

        Returns:
            The refusal, where there was one.
        """
        try:
            found = measure()
        except passing as refusal:
            self.notes.append(f"no {what}: {refusal}")
            return refusal
        self.figures |= found.figures
        self.arrays |= found.arrays
        self.notes += found.notes
        return None


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
        model: an autoencoder, or for bounds and pool any density, in evaluation mode.
        examples: real training and test examples.
        effort: how much work.
        seed: of all draws.
        earlier: sections that are there; `likelihood` makes use of `amortization`.

    Raises:
        NoBound: the section needs a bound, and the model has none.
        ModelError: the section needs an encoder, and the model has none.
        ConfigError: there is no such section, or it does not apply: pictures are attacked, and only a pool can be compared.
    """
    from diled.evaluation.audit_pool import pool_section

    sections: dict[str, Callable[..., Section]] = {
        "bounds": bounds_section,
        "amortization": amortization_section,
        "likelihood": partial(likelihood_section, amortized=(earlier or {}).get("amortization")),
        "robustness": robustness_section,
        "codes": codes_section,
        "pool": pool_section,
    }
    if examples.sequential:
        from diled.evaluation.audit_sequences import SEQUENCE_SECTIONS, TEXT_SECTIONS

        sections |= TEXT_SECTIONS if examples.text else SEQUENCE_SECTIONS
    if name not in sections:
        raise ConfigError(f"There is no section '{name}' in an audit. Sections: {', '.join(sections)}.")
    if name not in OF_ANY and not callable(getattr(model, "encoder", None)):
        raise ModelError(f"{type(model).__name__} is no autoencoder, so only its bounds are measured.")
    return sections[name](model, examples, effort, seed)


def _chunk(model: Any, examples: Examples) -> int:
    """How many rows go through the model at once."""
    if examples.sequential:
        return examples.chunk
    return max(BLOCK, rows_that_fit(model.terms, examples.test[:1].to(device_of(model)), CHUNK, gradient=False))


def _at_once(model: Any, examples: Examples, samples: int) -> tuple[int, int]:
    """How many examples are optimised at once, with so many samples of each, and how many rows are then evaluated at once."""
    if examples.sequential:
        rows = examples.chunk if examples.chunk < CHUNK else OPTIMISED * samples
        return max(1, min(OPTIMISED, rows // samples)), ROWS
    rows = rows_of_decoder(model, examples.test[:1].to(device_of(model)), OPTIMISED * samples)
    return max(1, rows // samples), min(ROWS, _chunk(model, examples))


def bounds_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`bound_nats/train`, `.../test`, rate and distortion likewise, and `generalization_gap` with its terms.

    Where the rate of a prior has several terms, as a diffusion's path and its last KL, or the bound of a model without codes
    has, each of them has a gap of its own: `generalization_gap/rate/diffusion`, `generalization_gap/rate/terminal`.
    """
    device, chunk = device_of(model), _chunk(model, examples)
    found, terms, own = Section(), {}, {}
    for name, x in zip(("train", "test"), examples.first(effort.bounded, device), strict=True):
        each = elbo(model, x, effort.samples, chunk=chunk, seed=seed)
        unit = examples.unit
        nats = {"bound": unit - each.value, "rate": each.rate, "distortion": each.distortion + unit}
        terms[name] = {key: value.double().cpu().numpy() for key, value in nats.items()}
        own[name] = _of_several(each.terms)
        for key, value in terms[name].items():
            found.figures[f"{key}_nats/{name}"] = averaged(value)
            found.arrays[f"{name}_{key}"] = value
    found.figures["generalization_gap"] = generalization(terms["train"]["bound"], terms["test"]["bound"])
    parts = {name: {key: nats[key] for key in ("rate", "distortion")} | own[name] for name, nats in terms.items()}
    for key, gap in generalization_by_term(parts["train"], parts["test"]).items():
        found.figures[f"generalization_gap/{key}"] = gap
    found.notes.append(f"Bounds are means of {effort.samples} estimates of each example.")
    return found


def _of_several(terms: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The terms that the rate is made of, or the whole bound of a model without codes; none where there is only one."""
    parts = {name: term.double().cpu().numpy() for name, term in terms.items() if name != "distortion"}
    return parts if len(parts) > 1 else {}


def amortization_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`amortization_gap_train`, `amortization_gap_test`, the best bounds, and how sure the optimisation is."""
    found, (batch, rows) = Section(), _at_once(model, examples, effort.samples)
    for name, x in zip(("train", "test"), examples.first(effort.examples, device_of(model)), strict=True):
        sizes: dict[str, Any] = {"steps": effort.steps, "samples": effort.samples, "batch": batch, "rows": rows}
        best = optimal_bounds(model, x, **sizes, seed=seed)
        before, after = (v.double().cpu().numpy() + examples.unit for v in (best.bound, best.best_bound))
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

    Of both, that with the better mean over the annealed test examples counts as log p(x) there: `test_log_p_best`. A model
    that admits one of them only gets that one. It raises the first refusal where it admits none.
    """
    found, passing = Section(), (NoBound, DataError, ModelError)
    refusal = found.add("importance weights", partial(_weighted, model, examples, effort, seed, amortized), passing)
    if effort.annealed:
        found.add("annealed importance sampling", partial(_annealed, model, examples, effort, seed), passing)
    if refusal is not None and not found.figures:
        raise refusal
    if "test_ais" in found.arrays:
        _choose(found)
    return found


def _weighted(model: Any, examples: Examples, effort: Effort, seed: int, amortized: Section | None) -> Section:
    """log p(x) from importance weights.

    Codes are drawn from the encoder's q, and where the best q of each example is known, from that as well: an encoder that
    misses new examples makes a poor proposal. Both are lower bounds, and the one with the better mean counts.
    """
    prior = getattr(model, "prior", None)
    found, ode = Section(), prior is not None and any(isinstance(part, Diffusion) for part in prior.modules())
    largest = effort.ode_weights if ode else effort.weights
    n = min(effort.ode_examples, effort.examples) if ode else effort.examples
    counts = (*(k for k in (1, 10, 100, 1000, 5000) if k < largest), largest)
    weights_of = partial(
        iwae, model, counts=counts, chunk=_chunk(model, examples), seed=seed, prior="ode" if ode else None
    )
    for name, x in zip(("train", "test"), examples.first(n, device_of(model)), strict=True):
        tried = {"the encoder's q": weights_of(x)}
        for k, log_p in zip(counts, tried["the encoder's q"].log_p, strict=True):
            found.figures[f"iwae_nats/{name}/{k}"] = averaged(log_p.cpu() - examples.unit)
        if amortized is not None:
            kept = (torch.from_numpy(amortized.arrays[f"{name}_{k}"][:n]) for k in ("mean", "log_var"))
            mean, log_var = (values.float().to(x.device) for values in kept)
            best = Normal(mean, log_var)
            tried["the best q"] = weights_of(x, proposal=best)
        for weighted in tried.values():
            _check_finite(weighted.log_p[-1], name)
        how, weighted = max(tried.items(), key=lambda item: item[1].best.mean().item())
        log_p = weighted.best.double().cpu() - examples.unit
        found.figures[f"log_p_nats/{name}"] = averaged(log_p)
        found.figures[f"effective_weights/{name}"] = averaged(weighted.ess.cpu())
        found.arrays[f"{name}_log_p"] = log_p.numpy()
        under = ", under the ODE of the prior" if ode else ""
        found.notes.append(
            f"{name}: log p(x) from {largest} weights of each of {len(x)} examples, codes drawn from {how}{under}; "
            f"{weighted.ess.mean():.3g} effective weights on average, and it is higher still where these are few."
        )
    return found


def _check_finite(log_p: Tensor, split: str) -> None:
    if failed := int((~log_p.isfinite()).sum()):
        raise DataError(
            f"log p(x) of {failed:,} of {len(log_p):,} {split} examples is not finite, so there is neither a mean nor a gap."
        )


def _annealed(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """log p(x) of the first test examples by AIS, and the error of AIS on as many samples of the model by BDMC."""
    x = examples.test[: effort.annealed].to(device_of(model))
    options: dict[str, Any] = {"steps": effort.annealing, "seed": seed}
    if not examples.sequential:
        options["rows"] = rows_of_decoder(model, x[:1], CHUNK)
    log_p = ais(model, x, **options).log_p.double().cpu() - examples.unit
    gap = bdmc(model, len(x), **options).gap.cpu()
    _check_finite(log_p, "test")
    return Section({"ais_nats/test": averaged(log_p), "bdmc_gap_nats": averaged(gap)}, {"test_ais": log_p.numpy()})


def _choose(found: Section) -> None:
    """The better lower bound of two on log p(x) of the examples that both were run on, by its mean."""
    names = {"importance weights": "test_log_p", "annealing": "test_ais"}
    tried = {how: found.arrays[name] for how, name in names.items() if name in found.arrays}
    n = min(len(values) for values in tried.values())
    means = {how: values[:n].mean() for how, values in tried.items()}
    best = max(means, key=lambda how: means[how])
    found.arrays["test_log_p_best"] = tried[best][:n]
    said = " and ".join(f"{mean:.2f} nats by {how}" for how, mean in means.items())
    found.notes.append(f"test: log p(x) of the first {n} examples is {said}; the best estimate is that by {best}.")


def robustness_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`robustness_gap` as published, and `robustness_gap/strong/RADIUS`, with SKL and similarities.

    Codes without Gaussian noise have no SKL in closed form: there the attacks move the codes' means.
    """
    if examples.test.ndim != 4:
        raise ConfigError("The robustness gap compares pictures, and these data are none.")
    found, x = Section(), examples.test.to(device_of(model))
    labels = None if examples.test_labels is None else examples.test_labels[: len(x)]
    (radius, few, steps), said = _published(effort, x.shape[1])
    with torch.no_grad():
        target = "skl" if isinstance(model.encoder(x[:1]), Normal) else "means"
    published = partial(paper_attack, steps=steps, target=target)
    strong = partial(sign_attack, restarts=effort.restarts, steps=effort.iterations, target=target)
    runs: list[tuple[str, Any, tuple[float, ...], int, Any]] = [
        ("", published, (radius,), few, ms_ssim_kuzina),
        ("/strong", strong, effort.radii, effort.references, ms_ssim),
    ]
    for kind, attack, radii, references, similarity in runs:
        n = min(references, len(x))
        for one in robustness(
            model, x, attack=attack, radii=radii, references=n, labels=labels, similarity=similarity, seed=seed,
            batch=min(rows_of_encoder(model, x, ATTACKED), batch_size(model, x, ATTACKED)),
        ):  # fmt: skip
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
    gain = "symmetric KL" if target == "skl" else "squared distance of the codes' means, as they have no Gaussian noise"
    found.notes += [
        f"As published: mean over 10 restarts of gradient ascent, {said}. "
        f"Strong: the worst of {effort.restarts} restarts of sign-gradient ascent, {effort.iterations} steps.",
        f"Both attacks maximise the {gain}.",
    ]
    return found


def _published(effort: Effort, channels: int) -> tuple[tuple[float, int, int], str]:
    """Radius, references and iterations of the published attack, and how to say so."""
    kind = "grey" if channels == 1 else "colour"
    asked = (effort.published_radius, effort.published_references, effort.published_iterations)
    radius, references, steps = (
        theirs if mine is None else mine for mine, theirs in zip(asked, PUBLISHED[kind], strict=True)
    )
    whose = f"as in the paper for {kind} images" if (radius, references, steps) == PUBLISHED[kind] else "as asked for"
    said = f"radius {radius:g}, {references} references and {steps} iterations, {whose}"
    return (radius, int(references), int(steps)), said


@torch.no_grad()
def _attacked(model: Any, one: Any, seed: int, few: int = 8) -> dict[str, np.ndarray]:
    """Some references, the first attack on each, and their reconstructions, to be looked at."""
    reference, attacked = one.attack.reference[:few], one.attack.attacked[:few, 0]
    with seeded(seed, 7):
        decoded = [model.decode(model.encoder(x).mean) for x in (reference, attacked)]
    shown = [reference, decoded[0], attacked, decoded[1]]
    names = ("shown_reference", "shown_reference_decoded", "shown_attacked", "shown_attacked_decoded")
    return {name: x.float().cpu().numpy() for name, x in zip(names, shown, strict=True)}


def codes_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """What the codes of test examples hold, what they are good for, and how smooth the encoder is.

    Means of codes are enough for active units, probes, PSNR and the encoder's slope. Nats need Gaussian noise and smoothness a
    density; what a model or its data do not have is left out, with a note.
    """
    device, passing = device_of(model), (NoBound, DataError, ModelError)
    train, test = examples.first(max(effort.examples, min(5000, len(examples.test))), device)
    of_train, of_test = code_means(model, train), code_means(model, test)
    found = Section({"active_units": active_count(of_test)})

    def probed(halves: bool) -> Section:
        assert examples.train_labels is not None
        assert examples.test_labels is not None
        a, b = examples.train_labels[: len(train)], examples.test_labels[: len(test)]
        if not halves:
            return Section(probes(of_train, a, of_test, b, seed=seed))
        return Section({f"{name}/halves": value for name, value in probes_of_halves(of_test, b, seed=seed).items()})

    found.add("nats of codes", partial(nats_of_codes, model, test, seed), passing)
    if examples.train_labels is not None and examples.test_labels is not None:
        found.add("probes", partial(probed, False), passing)
        found.add("probes of halves", partial(probed, True), passing)
    found.add("PSNR", partial(_psnr, model, test, examples.grey), passing)
    found.add("slope of the encoder", partial(_slope, model, test[: effort.references], seed), passing)
    n = min(effort.pairs, len(test) // 2)
    found.add("smoothness", partial(_smoothness, model, test[:n], test[n : 2 * n], seed), passing)
    return found


def nats_of_codes(model: Any, x: Tensor, seed: int) -> Section:
    """Figures of Gaussian codes, and the nats of each dimension, the largest first."""
    q = posteriors(model, x)
    figures = code_figures(model, x, q=q, samples=min(1000, len(x)), seed=seed)
    kept = {name: m for name, m in figures.items() if name not in ("bound_nats", "distortion_nats")}
    nats = information(q.mean, q.log_var).sort(descending=True).values
    return Section(kept, {"unit_nats": nats.numpy()})


def _slope(model: Any, x: Tensor, seed: int) -> Section:
    """The encoder's Jacobian norm."""
    slope = jacobian_norm(model.encoder, x, seed=seed, batch=rows_of_encoder(model, x, ATTACKED))
    norms = {"encoder_slope": slope.norm, "encoder_slope/scaled": slope.scaled}
    return Section({name: averaged(norm.cpu(), slope.method) for name, norm in norms.items() if norm is not None})


def _smoothness(model: Any, a: Tensor, b: Tensor, seed: int) -> Section:
    """How well codes between those of two images are found again, and the curve along the way."""
    curve = smoothness(model, a, b, seed=seed)
    lowest = averaged(curve[1:-1].min(0).values, "the lowest between two images")
    return Section({"smoothness_nats": lowest}, {"smoothness": curve.numpy()})


@torch.no_grad()
def _psnr(model: Any, x: Tensor, grey: Tensor) -> Section:
    """Peak signal-to-noise ratio of decoded mean codes against the images before binarisation."""
    x = x[:FEW] if getattr(model, "implicit", False) else x
    out = []
    size = batch_size(model, x)
    for part, target in zip(x.split(size), grey[: len(x)].split(size), strict=True):
        shown = to_unit(model.decode(model.encoder(part).mean).cpu()).clamp(0, 1)
        out.append(psnr(shown, to_unit(target)))
    return Section({"psnr": averaged(torch.cat(out))})
