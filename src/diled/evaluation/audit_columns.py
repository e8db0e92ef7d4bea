"""What the tables of an audit show: which figures, their headings, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diled.evaluation.measure import Measured

__all__ = [
    "ATTACK",
    "CODES",
    "COLUMNS",
    "LIKELIHOOD",
    "POOL",
    "SPLIT",
    "SPLITS",
    "TERMS",
    "attacks_of",
    "codes_of",
    "columns_of",
    "competing",
    "terms_of",
    "worded",
]

Figures = Mapping[str, Mapping[str, Measured]]

COLUMNS = {
    "bound_nats/test": ("bound, test", "lower"),
    "generalization_gap": ("generalization gap", "lower"),
    "generalization_gap/unseen": ("the same, unseen texts", "lower"),
    "amortization_gap_train": ("amortization gap, train", "lower"),
    "amortization_gap_test": ("amortization gap, test", "lower"),
    "approximation_gap_test": ("approximation gap", "lower"),
    "robustness_gap": ("robustness gap", "lower"),
    "robustness_gap/substitutions=1": ("robustness gap, 1 substitution", "lower"),
    "robustness_gap/substitutions=2": ("2 substitutions", "lower"),
    "robustness_gap/substitutions=4": ("4 substitutions", "lower"),
    "robustness_gap/words/substitutions=4": ("the same, of words", "lower"),
    "rate_nats/test": ("rate", ""),
    "mutual_information_nats": ("information", ""),
    "probe_accuracy/logistic": ("probe", "higher"),
}
"""Metric -> its column's heading, and what is better."""

LIKELIHOOD = {
    "log_p_nats/train": ("log p(x), train", ""),
    "log_p_nats/test": ("log p(x), test", ""),
    "effective_weights/test": ("effective weights, test", ""),
    "inference_gap_test": ("inference gap, test", ""),
    "ais_nats/test": ("log p(x) by AIS, test", ""),
    "bdmc_gap_nats": ("BDMC gap", ""),
}
"""The same, of estimates of log p(x)."""

POOL = {
    "nearest_ratio": ("nearest-neighbour ratio", ""),
    "nearer_train": ("nearer to train", "lower"),
    "copying": ("copying", "lower"),
    "copies": ("exact copies", "lower"),
    "c2st_accuracy": ("two-sample accuracy", "lower"),
    "c2st_floor": ("two-sample, real data", ""),
    "c2st_accuracy/images": ("two-sample, by a network", "lower"),
    "c2st_floor/images": ("by a network, real data", ""),
    "frechet_pool": ("Frechet", "lower"),
    "frechet_floor": ("Frechet, real data", ""),
    "precision_pool": ("precision", "higher"),
    "recall_pool": ("recall", "higher"),
    "entropy_offset_nats": ("entropy offset", ""),
    "pool/sample_perplexity": ("perplexity", ""),
    "pool/sample_perplexity/floor": ("perplexity, real data", ""),
    "pool/reverse_perplexity": ("reverse perplexity", "lower"),
    "pool/reverse_perplexity/floor": ("reverse, real data", ""),
    "pool/mauve": ("MAUVE", "higher"),
    "pool/mauve/floor": ("MAUVE, real data", ""),
    "pool/valid": ("valid", "higher"),
    "pool/frechet_samples": ("Frechet, networks of sequences", "lower"),
    "pool/frechet_floor": ("of real data, networks", ""),
    "pool/position_error": ("position error", "lower"),
    "pool/position_error/floor": ("of real data, positions", ""),
    "pool/coupling_error": ("coupling error", "lower"),
    "pool/coupling_error/floor": ("of real data, couplings", ""),
    "pool/nearest_training": ("distance to training", ""),
    "pool/nearest_training/floor": ("of real data, distance", ""),
    "pool/diversity": ("diversity", ""),
    "pool/diversity/floor": ("of real data, diversity", ""),
    "pool/novel": ("novel", ""),
    "pool/unique": ("unique", ""),
    "pool/unique/floor": ("unique, real data", ""),
    "pool/copied": ("copies of training", "lower"),
    "pool/copied/floor": ("copies, real data", ""),
}
"""The same, of synthetic training sets."""

CODES = {
    "active_units": ("active units", "higher"),
    "unused_units": ("unused units", "lower"),
    "information_nats": ("information of units", ""),
    "total_correlation_nats": ("total correlation", ""),
    "smoothness_nats": ("smoothness", "higher"),
    "encoder_slope": ("encoder slope", "lower"),
    "psnr": ("PSNR, dB", "higher"),
    "residue_accuracy": ("residues", "higher"),
    "sequence_accuracy": ("sequences", "higher"),
    "bleu": ("BLEU", "higher"),
    "bleu_shuffled": ("BLEU, codes of others", "lower"),
    "exact_match": ("exact", "higher"),
    "mutual_information_nats": ("information of codes", ""),
    "probe_accuracy/logistic": ("logistic probe", "higher"),
    "probe_accuracy/linear_svm": ("linear SVM", "higher"),
    "probe_accuracy/rbf_svm": ("RBF SVM", "higher"),
    "probe_accuracy/neighbours": ("5 neighbours", "higher"),
}
"""The same, of codes."""

SPLITS = {
    "generative_gap": ("decoder's share", ""),
    "encoder_gap": ("encoder's share", ""),
    "inference_gap_train": ("inference gap, train", ""),
    "approximation_gap_train": ("approximation gap, train", ""),
    "amortization_gap_train": ("amortization gap, train", ""),
    "inference_gap_test": ("inference gap, test", ""),
    "approximation_gap_test": ("approximation gap, test", ""),
    "amortization_gap_test": ("amortization gap, test", ""),
    "best_bound_nats/train": ("best bound, train", ""),
    "best_bound_nats/test": ("best bound, test", ""),
}
"""The same, of gaps that others are split into."""

SPLIT = [
    "Decoder's and encoder's share: the generalization gap of the best bounds, and the amortization gap on test minus that on "
    "training examples (Zhang et al. 2022); both of the examples whose q was optimised, so their sum may differ from the "
    "generalization gap of all.",
    "Inference gap: the bound minus -log p(x). It is the approximation plus the amortization gap of the same examples (Cremer "
    "et al. 2018). Beside a diffusion prior, or where annealing won, log p(x) is of the first few of them, and the "
    "amortization gap shown is of all, so the figures need not add up. A poor log p(x) makes the first two too small.",
]
ATTACK = [
    "Attack SKL: the symmetric KL between the codes of an image and of the attacked one, in nats: what attacks make large. "
    "Similarities: of the images, and of their reconstructions; the robustness gap is the first minus the second. "
    "Without a radius: the published attack; strong: the worst of several restarts, by radius."
]
TERMS = "Each term's generalization gap: its mean on test minus that on training examples. Parts of a rate add up to its gap."


def codes_of(figures: Figures) -> dict[str, tuple[str, str]]:
    """`CODES`, and what codes tell of each measured property."""
    said = {"spearman": "Spearman of {}", "label_smoothness": "smoothness of {}"}
    found = dict.fromkeys(m for row in figures.values() for m in row if m.split("/")[0] in said)
    return CODES | {m: (said[m.split("/")[0]].format(_property(m)), "higher") for m in found}


def _property(metric: str) -> str:
    return metric.partition("/")[2].removesuffix("/probe")


def columns_of(figures: Figures) -> dict[str, tuple[str, str]]:
    """`COLUMNS`, with the strong attack at that of its radii that is next to 0.1, after the published one."""
    radii = sorted({_radius(m) for row in figures.values() for m in row if m.startswith("robustness_gap/strong/")})
    if not radii:
        return COLUMNS
    radius = min(radii, key=lambda r: abs(r - 0.1))
    strong = {f"robustness_gap/strong/{radius:g}": (f"the same, strong attack at {radius:g}", "lower")}
    places = list(COLUMNS).index("robustness_gap") + 1
    items = list(COLUMNS.items())
    return dict(items[:places]) | strong | dict(items[places:])


def _radius(metric: str) -> float:
    return float(metric.rsplit("/", 1)[1])


def worded(metric: str) -> str:
    """A metric in words: `robustness_gap/strong/0.1` is robustness gap, strong attack at 0.1."""
    apart = re.sub(r"_(test|train)$", r"/\1", metric.replace("_nats", "")).replace("strong/", "strong attack at ")
    counted = re.sub(r"substitutions=(\d+)", lambda m: f"{m[1]} substitution{'' if m[1] == '1' else 's'}", apart)
    return counted.replace("/", ", ").replace("_", " ")


def terms_of(figures: Figures) -> dict[str, tuple[str, str]]:
    """Columns of the generalization gap's terms that were measured."""
    return {
        m: (m.removeprefix("generalization_gap/"), "")
        for row in figures.values()
        for m in row
        if m.startswith("generalization_gap/") and m not in COLUMNS
    }


def attacks_of(figures: Figures) -> dict[str, tuple[str, str]]:
    """Columns of what attacks did: SKL and similarities, of the published attack, then of the strong one by radius."""
    kinds = {
        "attack_skl": "attack SKL",
        "input_similarity": "inputs' similarity",
        "reconstruction_similarity": "outputs'",
    }
    kinds["robustness_gap"] = "gap"
    known = dict.fromkeys(m for row in figures.values() for m in row)
    found = {k: (said, "") for k, said in kinds.items() if k in known and k != "robustness_gap"}
    strong = sorted(
        (m for m in known if m.split("/")[0] in kinds and "/strong/" in m),
        key=lambda m: (_radius(m), list(kinds).index(m.split("/")[0])),
    )
    return found | {m: (f"strong {_radius(m):g}: {kinds[m.split('/')[0]]}", "") for m in strong}


def competing(figures: Figures) -> tuple[str, ...]:
    """Bounds and gaps, of which the smallest is marked only where it is the smallest beyond chance."""
    return tuple(metric for metric, (_, better) in columns_of(figures).items() if better == "lower")
