"""An executable contract for models, in the manner of scikit-learn's estimator checks: `check_model(model, data)`.

It holds for the models of the family, for hand-composed ones and for new ones. The model is used with slightly perturbed
weights, because a layer that starts at zero hides what lies behind it, and is put back bit by bit afterwards.

    terms      named, (B,), finite; in both modes; `progress` may be a number or a tensor
    bound      (B,) and finite, or refused in words; independent of progress, of labels and of extras
    values     in training the terms are the same nats as in the bound, up to noise
    batches    the terms (but for extras), code and reconstruction of an example do not depend on the other examples
    samples    of the data's shape, finite; sample i depends on its own noise alone
    gradients  reach every parameter that some stage trains, and none that is frozen
    saving     weights come back from safetensors bit by bit, and with them terms and samples

Examples are numbers in model space, or sequences of symbols as whole numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

from diled.api import Density, NoBound, Stage, Terms, total
from diled.distributions import Normal
from diled.draws import BlockNoise, seeded
from diled.models.check_case import Case, CheckFailed, as_before, frozen_tensors, parameter_names, perturb
from diled.sequences import TokenSequence, cut

__all__ = ["CheckFailed", "check_model"]

T = TypeVar("T")

REPEATS = 16
"""Estimates whose means are compared where a value is random."""


def check_model(
    model: Density,
    data: Tensor,
    *,
    stages: Sequence[Stage] | None = None,
    rebuild: Callable[[], Density] | None = None,
    seed: int = 0,
    tolerance: float = 1e-4,
    labels: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Check that a model keeps the contract of a `Density`, so that it trains, samples, is measured and saved like any other.

    Args:
        model: any density. Weights, gradients, modes and torch's random state are afterwards as they were before.
        data: examples in model space, (B, ...) with 4 or more of them that are not all equal: floating-point numbers, or
            whole numbers (B, L), of which 0 ends a sequence and fills its row.
        stages: how it is trained; by default in one stage, with nothing frozen.
        rebuild: makes another model of the same parts, to load the saved weights into. Without it they are loaded into
            the same model after all its weights were erased.
        seed: of everything random.
        tolerance: relative to the size of what is compared, for results that differ by rounding only.
        labels: column -> (B,), of examples for a model that learns from them; no bound may depend on them.

    Raises:
        CheckFailed: the model breaks the contract.
        ValueError: the data are unfit for a check.

    Example:
        >>> import torch
        >>> from diled.models.priors import StandardNormal
        >>> check_model(StandardNormal((2,)), torch.randn(8, 2))
    """
    fits = data.is_floating_point() or (data.ndim == 2 and torch.equal(cut(data), data))
    if data.ndim < 2 or len(data) < 4 or not fits or bool((data == data[:1]).all()):
        raise ValueError(
            "check_model wants 4 or more different examples (B, ...) in model space, or sequences (B, L) with zeros only at "
            f"their ends, not {data.dtype} {tuple(data.shape)}."
        )
    if not isinstance(model, Density):
        raise CheckFailed(f"{type(model).__name__} is no Density: derive it from diled.Density.")
    device = next((p.device for p in model.parameters()), data.device)
    chosen = tuple(stages) if stages is not None else (Stage("joint", model),)
    there = {column: values.to(device) for column, values in labels.items()}
    case = Case(model, data.to(device), chosen, rebuild, seed, tolerance, there)
    with seeded(seed), as_before(case):
        _check_terms(case, "with its own weights")
        perturb(case)
        for check in CHECKS:
            check(case)


# The checks -----------------------------------------------------------------------------------------------------------


def _check_terms(case: Case, when: str = "with perturbed weights") -> None:
    """Named (B,) tensors in both modes, for numbers and tensors as progress, and x is left alone."""
    before = case.data.clone()
    for training in (True, False):
        case.model.train(training)
        mode = f"{when}, in {'training' if training else 'evaluation'} mode"
        for progress in (0.0, 1.0):
            _require_terms(_terms(case, progress=progress), len(case.data), f"terms(x, progress={progress:g}) {mode}")
        number = _terms(case, progress=0.5)
        tensor = _terms(case, progress=torch.tensor(0.5, device=case.data.device))
        _require_terms(tensor, len(case.data), f"terms(x, progress=tensor(0.5)) {mode}")
        _require_close(case, number, tensor, "progress=0.5 and progress=tensor(0.5) give different values")
        again = _terms(case, progress=0.5)
        for name, term in number.items():
            if name not in again or not torch.equal(term, again[name]):
                raise CheckFailed(
                    f"term '{name}' differs between two calls after the same torch.manual_seed ({mode}): its randomness "
                    "comes from elsewhere, so training would not be reproducible."
                )
    if not torch.equal(before, case.data):
        raise CheckFailed("terms(x) changes x in place.")


def _check_bound(case: Case) -> None:
    """(B,) and finite, or NoBound with a reason; no extras, whatever the progress."""
    case.model.eval()
    early, late = _exact(case, case.data, progress=0.0), _exact(case, case.data, progress=1.0)
    bound = _attempt("bound(x)", lambda: case.model.bound(case.data), allow=NoBound)
    refused = [part is None for part in (early, late, bound)]
    if any(refused) and not all(refused):
        raise CheckFailed("bound(x) and terms(x, exact=True) must either all raise NoBound, or none.")
    if early is None or late is None or bound is None:
        return
    _require_terms(late, len(case.data), "terms(x, exact=True)")
    _require_terms({"bound": bound}, len(case.data), "bound(x)")
    _require_close(case, early, late, "terms(x, exact=True) depend on progress, so the bound is weighted")
    if case.labels:
        labelled = _exact(case, case.data, progress=1.0, **_labels(case, case.model))
        assert labelled is not None
        _require_close(case, late, labelled, "terms(x, exact=True) depend on labels")
    extras = [name for name in late if "extra/" in name]
    if extras:
        raise CheckFailed(f"terms(x, exact=True) hold the extras {extras}, which are no part of a bound.")


def _check_values(case: Case) -> None:
    """A term has the same mean in training as in the bound: what is printed while training is nats."""
    case.model.eval()
    if _exact(case, case.data) is None:
        return
    draws: dict[str, list[list[float]]] = {}
    with torch.no_grad():
        for _ in range(REPEATS):
            trained, exact = case.model.terms(case.data), case.model.terms(case.data, exact=True)
            for name in trained.keys() & exact.keys():
                pair = draws.setdefault(name, [[], []])
                pair[0].append(float(trained[name].double().mean()))
                pair[1].append(float(exact[name].double().mean()))
    for name, pair in draws.items():
        values = torch.tensor(pair, dtype=torch.float64)
        mean, error = values.mean(1), values.std(1) / REPEATS**0.5
        gap, allowed = float((mean[0] - mean[1]).abs()), 7 * float(error.norm())
        if gap > allowed + case.tolerance * (1 + float(mean.abs().max())):
            raise CheckFailed(
                f"term '{name}' is {mean[0]:.4g} in training and {mean[1]:.4g} in the bound (means of {REPEATS}). Weights "
                "belong in the gradient (`scale_gradient`, `with_gradient_of`), so that the printed values stay nats."
            )


def _check_distribution(case: Case) -> None:
    """A distribution instead of a tensor: so the model can be another one's prior."""
    case.model.eval()
    q: Any = _around(case.data)
    what = "terms(q) of a distribution q"
    _require_terms(_attempt(what, lambda: case.model.terms(q)), len(case.data), what)
    exact = _exact(case, q)
    if exact is not None:
        _require_terms(exact, len(case.data), f"{what}, exact=True,")


def _check_batches(case: Case) -> None:
    """What belongs to an example does not depend on the others (stratified times are the same for the same seed).

    An extra may be about the batch: it trains only.
    """
    model, x = case.model.eval(), case.data
    changed = F.pad(x[1:, 1:], (0, 1)) if case.symbols else x[1:].flip(0) * 0.5  # sequences without their first symbol
    others = torch.cat([x[:1], changed])
    with torch.no_grad():
        here, there = ({n: t[:1] for n, t in _terms(case, x=one).items() if "extra/" not in n} for one in (x, others))
        message = "of an example depends on the other examples of its batch, in evaluation mode"
        _require_close(case, here, there, f"the value {message}")
        for name, function in _maps(model).items():
            whole = _attempt(f"{name} of a batch", partial(function, x))
            single = [_attempt(f"{name} of one example", partial(function, one)) for one in x.split(1)]
            _require_close(case, {name: whole}, {name: torch.cat(single)}, f"the result {message}")


def _check_reconstruction(case: Case) -> None:
    """`reconstruct`, where there is one: the shape of x, finite, and the same each time."""
    model: Any = case.model.eval()
    if not model.has_codes:
        return
    reconstruct = model.reconstruct
    with torch.no_grad():
        first, second = (_attempt("reconstruct(x)", lambda: reconstruct(case.data)) for _ in range(2))
    _require_examples(first, case.data, len(case.data), "reconstruct(x)")
    if not torch.equal(first, second):
        raise CheckFailed(
            "reconstruct(x) differs between two calls: it must use the posterior's mean unless asked to draw."
        )


def _check_samples(case: Case) -> None:
    """Shape, finiteness, and noise as the only randomness: sample i is the same whatever n is."""
    model = case.model.eval()
    takes_mean = "mean" in inspect.signature(model.sample).parameters
    for options in ({}, {"mean": False}) if takes_mean else ({},):
        drawn = {n: _sample(case, n, options) for n in (1, 3, 5)}
        for n, x in drawn.items():
            _require_examples(x, case.data, n, f"sample({n})")
        torch.manual_seed(case.seed + 1)
        if not torch.equal(drawn[5], _sample(case, 5, options)):
            raise CheckFailed(
                "sample(5, noise=noise) differs between two calls with the same noise: part of its randomness does not come "
                "from `noise`."
            )
        for n in (1, 3):
            _require_samples_close(case, drawn[5][:n], drawn[n], n)
    with torch.no_grad():
        pair = []
        for _ in range(2):
            torch.manual_seed(case.seed)
            pair.append(_attempt("sample(3)", lambda: model.sample(3)))
    if not torch.equal(pair[0], pair[1]):
        raise CheckFailed("sample(3) differs between two calls after the same torch.manual_seed.")


def _check_gradients(case: Case) -> None:
    """Every parameter that may train is reached in some stage; what is frozen is neither reached nor changed."""
    names = parameter_names(case)
    missing = {id(p) for p in names if p.requires_grad}
    for stage in case.stages:
        if not any(p.requires_grad for p in stage.density.parameters()):
            continue
        with stage.training():
            frozen = frozen_tensors(stage)
            kept = [tensor.detach().clone() for tensor in frozen.values()]
            for p in names:
                p.grad = None
            for _ in range(2):
                given = _labels(case, stage.density)
                terms = _attempt(f"terms(x) in stage '{stage.name}'", partial(stage.density.terms, case.data, **given))
                loss = total(terms).mean()
                if not loss.requires_grad:
                    raise CheckFailed(f"stage '{stage.name}' trains nothing: no gradient flows from its terms.")
                loss.backward()
            for p, name in names.items():
                if p.grad is None:
                    continue
                if not bool(torch.isfinite(p.grad).all()):
                    raise CheckFailed(f"the gradient of '{name}' in stage '{stage.name}' is not finite.")
                if bool(p.grad.any()):
                    missing.discard(id(p))
            _require_frozen(stage, frozen, kept)
    left = [name for p, name in names.items() if id(p) in missing]
    if left:
        raise CheckFailed(
            f"no stage gives a gradient to {', '.join(left)}: use these parameters, remove them, or call "
            "requires_grad_(False) on what is meant to stay fixed."
        )


def _check_saving(case: Case) -> None:
    """state_dict -> safetensors -> another model of the same parts: the same bits, terms and samples."""
    model = case.model.eval()
    state = _attempt("state_dict()", lambda: {n: t.cpu().contiguous().clone() for n, t in model.state_dict().items()})
    written = _attempt("writing state_dict() as safetensors", lambda: load(save(state)))
    before = {**_terms(case), "sample": _sample(case, 3, {})}
    if case.rebuild is None:
        fresh = model
        for tensor in model.state_dict().values():
            tensor.zero_()
    else:
        fresh = case.rebuild().to(case.data.device).eval()
    _attempt("load_state_dict() of the saved weights", lambda: fresh.load_state_dict(written))
    back = fresh.state_dict()
    for name, tensor in state.items():
        if name not in back or not torch.equal(back[name].cpu(), tensor):
            raise CheckFailed(f"'{name}' is not the same after saving and loading.")
    loaded = Case(fresh, case.data, (), None, case.seed, case.tolerance, case.labels)
    after = {**_terms(loaded), "sample": _sample(loaded, 3, {})}
    for name, value in before.items():
        if name not in after or not torch.equal(value, after[name]):
            raise CheckFailed(
                f"'{name}' is not the same after saving and loading: something that it depends on is not in state_dict()."
            )


CHECKS: tuple[Callable[[Case], None], ...] = (
    _check_terms,
    _check_bound,
    _check_values,
    _check_distribution,
    _check_batches,
    _check_reconstruction,
    _check_samples,
    _check_gradients,
    _check_saving,
)


# Requirements ---------------------------------------------------------------------------------------------------------


def _require_terms(terms: Any, batch: int, what: str) -> None:
    """A non-empty dictionary of finite floating-point tensors of shape (B,)."""
    if not isinstance(terms, dict) or not terms:
        raise CheckFailed(f"{what} must be a dictionary of named terms, not {terms!r}.")
    for name, term in terms.items():
        if not isinstance(name, str) or not isinstance(term, Tensor):
            raise CheckFailed(f"{what}: {name!r} must be the name of a tensor, not of {type(term).__name__}.")
        if tuple(term.shape) != (batch,):
            raise CheckFailed(
                f"{what}: term '{name}' has shape {tuple(term.shape)} instead of {(batch,)}: one number per example. "
                "Anything else would broadcast to a wrong total."
            )
        if not term.is_floating_point() or not bool(torch.isfinite(term).all()):
            raise CheckFailed(f"{what}: term '{name}' is not finite everywhere (or no floating-point tensor).")


def _require_examples(x: Any, data: Tensor, n: int, what: str) -> None:
    """n examples of the data's shape: finite numbers, or whole ones where the data are symbols."""
    wanted = (n, *data.shape[1:])
    if not isinstance(x, Tensor) or tuple(x.shape) != wanted:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise CheckFailed(f"{what} must have the shape {wanted} of the data, not {found}.")
    if not data.is_floating_point():
        if x.is_floating_point() or bool((x < 0).any()) or not torch.equal(cut(x), x):
            raise CheckFailed(
                f"{what} must be sequences of whole numbers with zeros only at their ends, as the data are."
            )
    elif not x.is_floating_point() or not bool(torch.isfinite(x).all()):
        raise CheckFailed(f"{what} is not finite everywhere (or no floating-point tensor).")


def _require_close(case: Case, a: Terms, b: Terms, message: str) -> None:
    """The same names, and values that are equal up to rounding."""
    if a.keys() != b.keys():
        raise CheckFailed(f"{message}: the terms are {sorted(a)} and {sorted(b)}.")
    for name in a:
        gap = (a[name] - b[name]).abs()
        if bool((gap > case.tolerance * (1 + a[name].abs().max())).any()):
            raise CheckFailed(f"{message}: '{name}' by up to {float(gap.max().detach()):.3g}.")


def _require_samples_close(case: Case, a: Tensor, b: Tensor, n: int) -> None:
    """Equal up to rounding, but for the few values that rounding moves to the next grey level."""
    far = ((a - b).abs() > case.tolerance * (1 + a.abs().max())).double().mean()
    if float(far) > 0.01:
        raise CheckFailed(
            f"the first samples of sample(5) and sample({n}) differ although their noise is the same: samples must not depend "
            "on how many are drawn at once."
        )


def _require_frozen(stage: Stage, frozen: dict[str, Tensor], kept: list[Tensor]) -> None:
    """No gradient, and the bits of before."""
    for (name, tensor), old in zip(frozen.items(), kept, strict=True):
        if tensor.grad is not None:
            raise CheckFailed(f"'{name}' is frozen in stage '{stage.name}' and still gets a gradient.")
        if not torch.equal(tensor, old):
            raise CheckFailed(f"'{name}' is frozen in stage '{stage.name}' and still changes.")


# Helpers --------------------------------------------------------------------------------------------------------------


def _attempt(what: str, function: Callable[[], T], allow: type[Exception] | None = None) -> T:
    """The function's result; None where it raises `allow` with a reason.

    Raises:
        CheckFailed: it raises anything else.
    """
    try:
        return function()
    except Exception as error:
        if allow is not None and isinstance(error, allow):
            if not str(error).strip():
                raise CheckFailed(f"{what} raises {allow.__name__} without saying why.") from error
            return None  # type: ignore[return-value]
        raise CheckFailed(f"{what} raised {type(error).__name__}: {error}") from error


def _terms(case: Case, x: Tensor | None = None, **options: Any) -> Terms:
    """Training terms after seeding torch."""
    torch.manual_seed(case.seed)
    said = "".join(f", {name}={value}" for name, value in options.items())
    given = options | _labels(case, case.model)
    return _attempt(f"terms(x{said})", lambda: case.model.terms(case.data if x is None else x, **given))


def _labels(case: Case, density: Any) -> dict[str, Any]:
    """The labels, for a density that learns from them."""
    return {"labels": case.labels} if bool(case.labels) and bool(getattr(density, "columns", None)) else {}


def _around(x: Tensor) -> Any:
    """Distributions about examples: a little noise on numbers; of symbols likely the same ones."""
    if x.is_floating_point():
        return Normal(x, torch.full_like(x, -2.0))
    return TokenSequence(2 * F.one_hot(x.long(), int(x.max()) + 1).float())


def _exact(case: Case, q: Any, **options: Any) -> Terms | None:
    """Exact terms after seeding torch, None where there is no bound."""
    torch.manual_seed(case.seed)
    with torch.no_grad():
        return _attempt("terms(q, exact=True)", lambda: case.model.terms(q, exact=True, **options), allow=NoBound)


@torch.no_grad()
def _sample(case: Case, n: int, options: dict[str, Any]) -> Tensor:
    """n samples from noise that depends on the seed alone."""
    kind = torch.float32 if case.symbols else case.data.dtype
    noise = BlockNoise(case.seed, device=case.data.device, dtype=kind)
    return _attempt(f"sample({n}, noise=noise)", lambda: case.model.sample(n, noise=noise, **options))


def _maps(model: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """What takes every example by itself, where the model has it."""
    maps: dict[str, Callable[[Tensor], Tensor]] = {}
    if model.has_codes:
        maps["encode(x)"] = lambda x: model.encode(x)
        maps["reconstruct(x)"] = lambda x: model.reconstruct(x)
    return maps
