"""What codes hold: how much they say, in which dimensions, and whether the decoder listens.

With codes z ~ q(z | x), the aggregate q(z) = E_x q(z | x) and its marginals q(z_d), the rate against p(z) = N(0, I) is

    E_x KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || p(z))
    KL(q(z) || p(z))         = KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d))
                               total correlation           dimension by dimension

(Hoffman & Johnson 2016; Chen et al. 2018, Eq. 2). q(z) is the mixture of the posteriors of all N examples at hand, so
log q(z) >= log q(z | x) - log N at the example's own code, and no estimate of I exceeds log N. An upper bound comes from
the Gaussian with the moments of q(z), which has the most entropy of all densities with these:

    I(x; z) <= 1/2 log det Cov(z) - 1/2 E_x sum_d log v_d(x),        Cov(z) = Cov(m(x)) + diag E_x v(x)

A dimension whose mean varies counts as active, however much noise drowns it. The nats that it carries are
1/2 log(1 + Var m / E v), the mutual information of a Gaussian channel.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import NoBound, total
from diled.distributions import LOG_2PI, Normal
from diled.draws import BlockNoise, seeded
from diled.errors import ConfigError, DataError
from diled.evaluation.measure import Measured
from diled.evaluation.rows import batch_size, batches
from diled.models.priors import StandardNormal
from diled.models.sampling import BATCH

__all__ = [
    "ACTIVE",
    "DEAD",
    "IGNORED",
    "MOST",
    "Collapse",
    "active_count",
    "active_units",
    "aggregate",
    "averaged",
    "batches",
    "code_figures",
    "code_means",
    "collapse",
    "information",
    "kl_per_unit",
    "listening",
    "posteriors",
    "probes",
    "probes_of_halves",
    "smoothness",
]

ACTIVE = 0.01
"""Variance of a dimension's posterior mean above which it counts as active (Burda et al. 2016)."""
DEAD = 0.1
"""Nats below which a dimension counts as unused."""
MOST = 0.9
"""Share of unused dimensions above which codes count as collapsed."""
IGNORED = 0.01
"""Share of the bound that another example's code must cost, or else the decoder counts as deaf."""

CHUNK = 1 << 22  # numbers in memory at a time where codes meet posteriors: 32 MB


@torch.no_grad()
def code_means(model: Any, x: Tensor) -> Tensor:
    """The means of q(z | x), whatever its kind, of x (N, *shape) in model space: (N, D), float64, on the CPU."""
    return torch.cat([model.encoder(batch).mean.flatten(1).cpu().double() for batch in batches(model, x)])


@torch.no_grad()
def posteriors(model: Any, x: Tensor) -> Normal:
    """q(z | x) of all examples as one flat Gaussian, means and log-variances (N, D), float64, on the CPU.

    Args:
        model: anything with an `encoder`, in evaluation mode.
        x: (N, *shape) in model space.

    Raises:
        NoBound: the model has no encoder, or its codes have no Gaussian noise.
    """
    encoder = getattr(model, "encoder", None)
    if encoder is None:
        raise NoBound(
            f"A {type(model).__name__} has no encoder, so there are no codes whose content could be measured."
        )
    means, log_vars = [], []
    for batch in batches(model, x):
        q = encoder(batch)
        if not isinstance(q, Normal):
            raise NoBound(
                f"The encoder returns a {type(q).__name__}. What codes hold in nats is defined for Gaussian posteriors; "
                "probes and reconstructions need none."
            )
        means.append(q.mean.flatten(1).cpu().double())
        log_vars.append(q.log_var.expand_as(q.mean).flatten(1).cpu().double())
    return Normal(torch.cat(means), torch.cat(log_vars))


def averaged(values: Any, note: str = "") -> Measured:
    """The mean of one number per example, (N,), with its standard error."""
    v = torch.as_tensor(values).double()
    stderr = v.std().item() / math.sqrt(len(v)) if len(v) > 1 else None
    return Measured(v.mean().item(), stderr, len(v), note)


def active_units(means: Tensor, threshold: float = ACTIVE) -> Tensor:
    """Which dimensions are active: Var_x[m_d(x)] > threshold, (D,) booleans.

    Blind to collapse under a prior that follows the codes: all dimensions may be active while none says anything. See
    `information`.

    Args:
        means: posterior means (N, D).
        threshold: in squared units of the code.

    Raises:
        DataError: fewer than two examples.

    Reference: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016, section 5.2.
    """
    _several(means)
    return means.var(0) > threshold


def active_count(means: Tensor) -> Measured:
    """How many of the D dimensions are active, from posterior means (N, D); see `active_units`."""
    return Measured(float(active_units(means).sum()), n=len(means), note=f"of {means.shape[1]}")


def kl_per_unit(means: Tensor, log_vars: Tensor) -> Tensor:
    """E_x KL(q(z_d | x) || N(0, 1)) of each dimension, (D,) nats; means and log-variances are (N, D)."""
    return Normal(means, log_vars).kl_dims(Normal(torch.zeros_like(means), torch.zeros_like(means))).mean(0)


def information(means: Tensor, log_vars: Tensor) -> Tensor:
    """The nats that each dimension carries, 1/2 log(1 + Var_x m_d(x) / E_x v_d(x)), (D,), whatever the prior.

    The mutual information of z_d and x where means are Gaussian and the noise is equal for all.

    Args:
        means: posterior means (N, D).
        log_vars: their log-variances (N, D).

    Raises:
        DataError: fewer than two examples.
    """
    _several(means)
    return 0.5 * torch.log1p(means.var(0) / log_vars.exp().mean(0))


def _several(means: Tensor) -> None:
    if means.ndim != 2 or len(means) < 2:
        raise DataError(f"Codes are compared over at least 2 examples, in a table (N, D); found {tuple(means.shape)}.")


def aggregate(
    means: Tensor, log_vars: Tensor, *, standard_normal: bool = True, samples: int = 1000, seed: int = 0
) -> dict[str, Measured]:
    """Mutual information, total correlation, and the distance of the aggregate posterior from N(0, I), in nats.

        mutual_information_nats      E log q(z | x) - log q(z)                  at most log N
        mutual_information_most      1/2 log det Cov(z) - 1/2 E sum log v       an upper bound without it, for N >> D
        total_correlation_nats       E log q(z) - sum_d log q(z_d)
        aggregate_kl_nats            E log q(z) - log p(z)                      N(0, I) only
        dimension_kl_nats            E sum_d log q(z_d) - log p(z_d)            N(0, I) only

    All come from the same draws z, one for each of up to `samples` examples, and q(z) is the mixture over all N
    posteriors. Standard errors are over the draws; that of the mixture adds nothing to first order, since the mean of
    q(z | x) / q(z) over z is one for every x. An information near log N is a lower bound only, and then total correlation
    and aggregate KL are too large: the remark says so.

    Args:
        means: posterior means (N, D).
        log_vars: their log-variances (N, D).
        standard_normal: the prior is N(0, I); with any other, only what needs no p(z).
        samples: draws at most; the cost grows with samples x N x D.
        seed: of the draws.

    Raises:
        DataError: fewer than two examples.
        ConfigError: fewer than two samples.

    References: Hoffman and Johnson, "ELBO surgery", 2016; Chen et al., "Isolating sources of disentanglement in
    variational autoencoders", 2018, Eq. 2; on the limit log N, Poole et al., "On variational bounds of mutual
    information", 2019.
    """
    _several(means)
    if samples < 2:
        raise ConfigError(f"samples = {samples}: a mean with a standard error takes at least 2.")
    n = len(means)
    q = Normal(means.double(), log_vars.double().expand_as(means))
    with seeded(seed, 21):
        rows = torch.randperm(n)[:samples]
        z = q.sample()[rows]
    own = _log_normal(z, q.mean[rows], q.log_var[rows]).sum(1)
    joint, marginals = _log_mixture(z, q)
    told, limit = own - joint, math.log(n)
    small = large = ""
    if told.mean() > limit - 1:
        small = f"near its limit log N = {limit:.1f}, so a lower bound only: take more examples"
        large = f"the information is near its limit log N = {limit:.1f}, so this is too large: take more examples"
    most = "the Gaussian of equal moments" + ("; too few examples for its covariance" if n < 10 * z.shape[1] else "")
    found = {
        "mutual_information_nats": averaged(told, small),
        "mutual_information_most": Measured(_most_information(q), n=n, note=most),
        "total_correlation_nats": averaged(joint - marginals, large),
    }
    if standard_normal:
        log_p = _log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
        found["aggregate_kl_nats"] = averaged(joint - log_p, large)
        found["dimension_kl_nats"] = averaged(marginals - log_p)
    return found


def _log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mean, var) of each dimension; shapes broadcast."""
    return -0.5 * (LOG_2PI + log_var + (z - mean) ** 2 * (-log_var).exp())


def _log_mixture(z: Tensor, q: Normal) -> tuple[Tensor, Tensor]:
    """log q(z) and sum_d log q(z_d) of the mixture of all posteriors, both (S,), for z (S, D)."""
    n, dims = q.mean.shape
    joint, marginals = [], []
    for part in z.split(max(1, CHUNK // (n * dims))):
        each = _log_normal(part[:, None], q.mean, q.log_var)  # (s, N, D)
        joint.append(each.sum(2).logsumexp(1) - math.log(n))
        marginals.append((each.logsumexp(1) - math.log(n)).sum(1))
    return torch.cat(joint), torch.cat(marginals)


def _most_information(q: Normal) -> float:
    """1/2 log det Cov(z) - 1/2 E sum log v."""
    cov = torch.atleast_2d(q.mean.T.cov()) + torch.diag(q.var.mean(0))
    return 0.5 * (torch.linalg.slogdet(cov).logabsdet - q.log_var.sum(1).mean()).item()


@dataclass(frozen=True)
class Collapse:
    """Whether codes are used, and the numbers that say so.

    Attributes:
        collapsed: most dimensions are unused, or the decoder is deaf.
        words: the verdict, in sentences with numbers.
        unused: dimensions of fewer than `DEAD` nats, out of `dims`.
        gain: nats of reconstruction that an example's own code saves over another's; None where unknown.
    """

    collapsed: bool
    words: str
    unused: int
    dims: int
    gain: float | None = None


def collapse(nats: Tensor, figures: Mapping[str, Measured] | None = None) -> Collapse:
    """A verdict on posterior collapse, in words.

    Codes count as collapsed where more than `MOST` of the dimensions carry less than `DEAD` nats each, or where the bound
    is within `IGNORED` of that of a decoder which ignores its code. Such a decoder pays no more for another example's code:

        shuffled distortion - distortion < IGNORED |bound|

    Args:
        nats: of each dimension, (D,): `kl_per_unit` for a N(0, I) prior, else `information`.
        figures: what `listening` or `measure.bounds` found; without them the dimensions alone decide.
    """
    dims, unused = len(nats), int((nats < DEAD).sum())
    collapsed, gain = unused > MOST * dims, None
    said = [f"{unused} of {dims} dimensions carry less than {DEAD:g} nat each ({nats.sum():.1f} nats in all)."]
    names = ("bound_nats", "distortion_nats", "shuffled_distortion_nats")
    bound, own, other = (figures[name].value if figures and name in figures else None for name in names)
    if bound is not None and own is not None and other is not None:
        gain = other - own
        deaf = gain < IGNORED * abs(bound)
        collapsed = collapsed or deaf
        listens = "the decoder ignores its code" if deaf else "the decoder listens"
        said.append(f"Another example's code costs {gain:.1f} nats, beside a bound of {bound:.1f}: {listens}.")
    verdict = "Collapsed." if collapsed else "In part unused." if unused else "In use."
    return Collapse(collapsed, " ".join([verdict, *said]), unused, dims, gain)


@torch.no_grad()
def listening(model: Any, x: Tensor, *, seed: int = 0) -> dict[str, Measured]:
    """The mean bound, distortion, and distortion from another example's code (`shuffled_distortion_nats`), over x.

    Each example takes the code of the next one in a random order, so that none keeps its own and neighbours in the data
    set are no pairs. A diffusion decoder sees the same noise with both codes.

    Args:
        model: an autoencoder with a bound.
        x: (N, *shape) in model space, N at least 2.
        seed: of order, codes and noise.

    Raises:
        NoBound: the model has none.
        DataError: fewer than two examples.
    """
    if len(x) < 2:
        raise DataError("Codes cannot be exchanged among fewer than 2 examples.")
    bound, codes, size = [], [], batch_size(model, x)
    with seeded(seed, 22):
        order = torch.randperm(len(x))
        for batch in batches(model, x, size):
            bound.append(total(model.terms(batch, exact=True)).cpu())
            codes.append(model.encoder(batch).sample().cpu())
    z = torch.cat(codes)
    other = torch.empty_like(z)
    other[order] = z[order.roll(1)]
    found = {"bound_nats": averaged(torch.cat(bound))}
    for name, code in (("distortion_nats", z), ("shuffled_distortion_nats", other)):
        with seeded(seed, 23):
            pairs = zip(batches(model, code, size), batches(model, x, size), strict=True)
            found[name] = averaged(torch.cat([model.decoder(part).nll(batch).cpu() for part, batch in pairs]))
    return found


def code_figures(
    model: Any, x: Tensor, *, q: Normal | None = None, samples: int = 1000, seed: int = 0
) -> dict[str, Measured]:
    """All that the posteriors of these examples tell: units, information, aggregate, and the verdict on collapse.

        active_units                        of D, with a variance of the mean above 0.01
        information_nats                    sum over dimensions of 1/2 log(1 + Var m / E v)
        unused_units                        of D, with fewer than 0.1 nats
        collapsed                           1 or 0, with the verdict in words
        and those of `aggregate` and `listening`

    Args:
        model: an autoencoder with Gaussian posteriors.
        x, q: (N, *shape) in model space, and their posteriors; without these they are computed.
        samples: draws for `aggregate`.
        seed: of all draws.

    Raises:
        NoBound: the codes have no Gaussian noise.
        DataError: fewer than two examples.
    """
    q = posteriors(model, x) if q is None else q
    normal = isinstance(getattr(model, "prior", None), StandardNormal)
    n, carried = len(x), information(q.mean, q.log_var)
    nats = kl_per_unit(q.mean, q.log_var) if normal else carried
    found = {
        "active_units": active_count(q.mean),
        "information_nats": Measured(carried.sum().item(), n=n, note="dimension by dimension"),
        **aggregate(q.mean, q.log_var, standard_normal=normal, samples=samples, seed=seed),
    }
    try:
        heard = listening(model, x, seed=seed)
    except NoBound:
        heard = {}
    verdict = collapse(nats, heard)
    found["unused_units"] = Measured(float(verdict.unused), n=n, note=f"of {verdict.dims}")
    found["collapsed"] = Measured(float(verdict.collapsed), n=n, note=verdict.words)
    return found | heard


@torch.no_grad()
def smoothness(
    model: Any, a: Tensor, b: Tensor, alphas: Sequence[float] = tuple(k / 10 for k in range(11)), *, seed: int = 0
) -> Tensor:
    """How well the encoder finds again the codes between those of two images.

        z_alpha = alpha z_0 + (1 - alpha) z_1,    x_alpha = decode(z_alpha),    log q(z_alpha | x_alpha)

    z_0 and z_1 are the encoder's means of a and b, and decode gives the decoder's mean (of a diffusion a draw). Returned in
    nats, one row for each of the A alphas, (A, B): `averaged` of each row is the paper's curve.

    Args:
        model: an autoencoder whose codes have noise.
        a, b: pairs of images (B, *shape) in model space.
        alphas: places, in [0, 1].
        seed: of a diffusion decoder's noise, the same at all places.

    Raises:
        NoBound: codes are deterministic, so they have no density.
        DataError: a and b differ in shape.
        ConfigError: an alpha lies outside [0, 1].

    Reference: Xiao, Zenn and Bamler, "A note on generalization in variational autoencoders", 2024, Figure 3.
    """
    if a.shape != b.shape:
        raise DataError(f"Pairs need equal shapes, found {tuple(a.shape)} and {tuple(b.shape)}.")
    wrong = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if wrong or not len(alphas):
        raise ConfigError(f"alphas = {tuple(alphas)}: name at least one place between two codes, in [0, 1].")
    curves = []
    for i, (first, second) in enumerate(zip(batches(model, a), batches(model, b), strict=True)):
        z_0, z_1 = model.encoder(first).mean, model.encoder(second).mean
        rows = []
        for alpha in alphas:
            z = torch.lerp(z_1, z_0, float(alpha))
            noise = BlockNoise(seed, i * BATCH, device=z.device) if getattr(model, "implicit", False) else None
            rows.append(-model.encoder(model.decode(z, noise=noise)).nll(z).double().cpu())
        curves.append(torch.stack(rows))
    return torch.cat(curves, 1)


def probes(
    train_codes: Any, train_labels: Any, test_codes: Any, test_labels: Any, *, limit: int = 5000, seed: int = 0
) -> dict[str, Measured]:
    """How well four classifiers, fitted to training codes, name the classes of test codes.

    `probe_accuracy/logistic`, `/linear_svm`, `/rbf_svm`, `/neighbours` (5 nearest), each at scikit-learn's defaults on
    codes standardised by the training codes. Standard errors are over test examples.

    Args:
        train_codes: (N, ...), flattened.
        train_labels: classes (N,); -1 where missing, and then left out.
        test_codes: (M, ...).
        test_labels: classes (M,).
        limit: examples of each set at most, drawn with the seed; 5,000 take seconds.
        seed: of the draw.

    Raises:
        DataError: codes and labels do not match, codes hold NaN or infinite values, or there are fewer than two classes.

    Reference: Xiao, Zenn and Bamler, "A note on generalization in variational autoencoders", 2024, appendix F.
    """
    x, y = _labelled(train_codes, train_labels)
    x_test, y_test = _labelled(test_codes, test_labels)
    if len(np.unique(y)) < 2:
        raise DataError("A probe needs training codes of at least 2 classes.")
    if x.shape[1] != x_test.shape[1]:
        raise DataError(f"Training codes have {x.shape[1]} dimensions and test codes {x_test.shape[1]}.")
    rng = np.random.default_rng(seed)
    some, some_test = rng.permutation(len(x))[:limit], rng.permutation(len(x_test))[:limit]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    kinds = {
        "logistic": LogisticRegression(max_iter=300),
        "linear_svm": LinearSVC(random_state=0),
        "rbf_svm": SVC(),
        "neighbours": KNeighborsClassifier(min(5, len(some))),
    }
    found = {}
    for name, kind in kinds.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier = make_pipeline(StandardScaler(), kind).fit(x[some], y[some])
        right = classifier.predict(x_test[some_test]) == y_test[some_test]
        found[f"probe_accuracy/{name}"] = averaged(right, f"fitted to {len(some):,} codes")
    return found


def probes_of_halves(codes: Any, labels: Any, *, limit: int = 5000, seed: int = 0) -> dict[str, Measured]:
    """`probes` as the paper has them: codes of one set only, fitted to one stratified half and scored on the other.

    Args:
        codes: (N, ...), of the test set.
        labels: classes (N,), at least two examples of each.
        limit: examples of each half at most.
        seed: of the division.

    Raises:
        DataError: as for `probes`, or a class has a single example.
    """
    from sklearn.model_selection import train_test_split

    x, y = _labelled(codes, labels)
    try:
        a, b, y_a, y_b = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
    except ValueError as error:
        raise DataError(f"The codes cannot be divided into two halves with all classes in both: {error}") from None
    return probes(a, y_a, b, y_b, limit=limit, seed=seed)


def _labelled(codes: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Flat codes and their labels, without those whose label is missing."""
    x, y = np.asarray(codes, dtype=np.float64), np.asarray(labels)
    if len(x) != len(y) or y.ndim != 1:
        raise DataError(f"Codes {x.shape} and labels {y.shape} do not match: one label per code.")
    if not np.isfinite(x).all():
        raise DataError("Codes hold NaN or infinite values.")
    there = y != -1 if y.dtype.kind == "i" else np.ones(len(y), bool)
    if not there.any():
        raise DataError("No code has a label.")
    return x[there].reshape(there.sum(), -1), y[there]
