"""Protein sequences as rows of whole numbers, and back.

    "ACDY"  ->  1 2 3 20 0 ... 0        (L numbers; 0 is the end of a sequence, and fills its row)

The symbols are the 20 amino acids, X (unknown), - (a gap of an alignment) and * (a stop): always all of them, so that
bounds of different models are in one measure. Where only some sites of a whole sequence are modelled, a row holds their
residues and the background holds the rest.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diled.config import DataSpec, PreprocessConfig
from diled.data.faults import Kept
from diled.data.scale import symbol_rows
from diled.errors import DataError

__all__ = [
    "COLUMNS",
    "PADDING",
    "RESIDUES",
    "SYMBOLS",
    "Ready",
    "clean",
    "consensus",
    "decode",
    "encode",
    "fits",
    "prepare",
    "protein_spec",
    "residue_rows",
    "sites_of",
    "to_strings",
    "ungapped",
    "whole_sequence",
]

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
SYMBOLS = ("", *RESIDUES, "X", "-", "*")
PADDING = "J."
COLUMNS = ("sequence", "seq", "sequences", "protein", "protein_sequence", "aa_sequence", "peptide", "cdr3", "variant")
"""Customary names of a table's column of sequences."""
RARE = "UOBZ"
"""Selenocysteine, pyrrolysine, and two that leave a choice: read as X."""
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_RARE = str.maketrans(RARE, "X" * len(RARE))
_READ = "".join((*SYMBOLS, RARE, PADDING))
_READ += _READ.lower()


def protein_spec(
    length: int, *, background: str | None = None, sites: Sequence[int] = (), symbols: tuple[str, ...] = SYMBOLS
) -> DataSpec:
    """What a model must know of sequences of at most `length` symbols; `sites` count from 0."""
    return DataSpec(
        kind="protein",
        shape=(length,),
        levels=len(symbols),
        low=0,
        high=len(symbols) - 1,
        symbols=symbols,
        background=background,
        sites=tuple(sites),
    )


def fits(text: str) -> bool:
    """Whether a text consists of symbols of proteins alone, in either case, filling included."""
    text = text.strip()
    return bool(text) and not text.strip(_READ)


def encode(texts: Sequence[str], length: int, symbols: tuple[str, ...] = SYMBOLS) -> np.ndarray:
    """Rows (N, length) uint8 of clean texts of at most that many symbols."""
    table = bytes.maketrans("".join(symbols[1:]).encode("ascii"), bytes(range(1, len(symbols))))
    joined = b"".join(text.encode("ascii").ljust(length, b"\0") for text in texts)
    return np.frombuffer(joined.translate(table), np.uint8).reshape(-1, length).copy()


def decode(values: np.ndarray, symbols: tuple[str, ...] = SYMBOLS) -> list[str]:
    """The symbols of rows (N, L) up to the first end."""
    letters = np.array([0, *map(ord, symbols[1:])], np.uint8)
    return [row.tobytes().split(b"\0", 1)[0].decode("ascii") for row in letters[np.asarray(values)]]


def to_strings(values: np.ndarray, spec: DataSpec) -> list[str]:
    """Rows of numbers (..., L) as text: whole sequences, also where only the sites of a background are modelled.

    A site behind the end of its row is shown as a gap.

    Raises:
        DataError: the data are no sequences, or the rows no rows of theirs.
    """
    rows = symbol_rows(values, spec)
    if spec.background is None:
        return decode(rows, spec.symbols)
    whole = list(spec.background)
    texts = []
    for row in sites_of(rows, spec):
        for site, symbol in zip(spec.sites, row, strict=True):
            whole[site] = symbol
        texts.append("".join(whole))
    return texts


def sites_of(values: np.ndarray, spec: DataSpec) -> list[str]:
    """The symbols at the modelled positions alone, with gaps behind the end where these are sites of a background."""
    texts = decode(symbol_rows(values, spec), spec.symbols)
    return [text.ljust(spec.numel, "-") for text in texts] if spec.sites else texts


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Cleaned:
    """Texts in upper case, without filling, and what is to be said.

    Attributes:
        texts: (N,), those with a fault included.
        faults: record -> what is wrong with it, as a predicate.
        notes: sentences on what was changed.
        rare: the one of these that says how many have residues which were read as X; empty where none has.
    """

    texts: list[str]
    faults: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rare: str = ""


def clean(
    texts: Sequence[str],
    *,
    symbols: tuple[str, ...] = SYMBOLS,
    padding: str = PADDING,
    convert: bool = False,
) -> Cleaned:
    """Upper case, filling taken away at both ends, rare residues as X; gaps stay.

    Args:
        texts: as found.
        symbols: what may stay.
        padding: what only fills up at the ends.
        convert: read what is no symbol as X instead of finding fault with it.
    """
    filling = padding.translate(_UPPER)
    blank = string.whitespace + filling
    bare = [text.strip() for text in texts]
    upper = [text.translate(_UPPER) for text in bare]
    core = [text.strip(blank) for text in upper]
    common = [text.translate(_RARE) for text in core] if "X" in symbols else core
    out = Cleaned(common)
    allowed = "".join(symbols)
    for i, text in enumerate(common):
        if not text:
            out.faults[i] = "is empty"
        elif rest := text.strip(allowed):
            if convert and "X" in symbols:
                common[i] = "".join(c if c in allowed else "X" for c in text)
                continue
            before = len(upper[i]) - len(upper[i].lstrip(blank)) + len(text) - len(text.lstrip(allowed))
            out.faults[i] = _fault(rest[0], before + 1, filling)
    count = _changed(core, common)
    which = f"have {', '.join(RARE[:-1])} or {RARE[-1]}, which were read as X (unknown)"
    out.rare = f"{count:,} of {len(texts):,} sequences {which}." if count else ""
    said = (
        (_changed(bare, upper), "were read in upper case"),
        (_changed(upper, core), f"were filled up at their ends with {_some_of(filling, upper, core)}, which was taken away"),
    )  # fmt: skip
    out.notes = [f"{count:,} of {len(texts):,} sequences {what}." for count, what in said if count]
    out.notes += [out.rare] if out.rare else []
    return out


def _changed(before: list[str], after: list[str]) -> int:
    return sum(a != b for a, b in zip(before, after, strict=True))


def _some_of(characters: str, before: list[str], after: list[str]) -> str:
    """Those of `characters` that were taken away somewhere."""
    used = [c for c in characters if any(a != b and c in a for a, b in zip(before, after, strict=True))]
    return " and ".join(f"'{c}'" for c in used)


def _fault(character: str, position: int, filling: str) -> str:
    shown = "a space" if character.isspace() else f"'{character}'"
    if character in filling:
        return f"has {shown} at position {position}, which may only fill sequences up at their ends"
    return f"has {shown} at position {position}, which is no amino acid"


def residue_rows(
    texts: Sequence[str], spec: DataSpec, *, padding: str = PADDING, convert: bool = False
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """The texts that can be read, as rows of numbers (n, L) uint8; what is wrong with the others, record -> predicate; notes.

    Gaps stay in a text of exactly L symbols, a row of an alignment, and are removed from others, and from all where training
    data were no alignment (`spec.aligned`). Where only sites of a background are modelled, a text is the whole sequence or the
    residues of its sites. A note says how many have rare residues, which are read as X.

    Args:
        texts: of residues.
        spec: of the model's data.
        padding: what only fills up at the ends.
        convert: read what is no amino acid as X, and cut what is too long.

    Raises:
        DataError: the data are no sequences.
    """
    if not spec.sequential:
        raise DataError(f"The data are {spec.kind}s of shape {spec.shape}, not sequences.")
    cleaned = clean(texts, symbols=spec.symbols, padding=padding, convert=convert)
    faults = {
        i: fault if fault == "is empty" else f"{fault}: convert it, or pass convert=True (--convert) to read it as X"
        for i, fault in cleaned.faults.items()
    }
    whole = len(spec.background or "")
    rows = []
    for i, text in enumerate(cleaned.texts):
        if i in faults:
            continue
        text = text if len(text) in (spec.numel, whole) and spec.aligned else text.replace("-", "")
        fault = _misplaced(text, spec) if whole else _unfit(text, spec, convert)
        if fault:
            faults[i] = fault
        elif whole and len(text) == whole:
            rows.append("".join(text[site] for site in spec.sites))
        else:
            rows.append(text[: spec.numel])
    return encode(rows, spec.numel, spec.symbols), faults, [cleaned.rare] if cleaned.rare else []


def ungapped(values: np.ndarray, symbols: Sequence[str] = SYMBOLS) -> np.ndarray:
    """Rows (N, L) without their gaps, filled up with ends."""
    gap = values == symbols.index("-")
    order = np.argsort(gap, axis=1, kind="stable")
    return np.take_along_axis(np.where(gap, np.zeros_like(values), values), order, 1)


def _unfit(text: str, spec: DataSpec, convert: bool) -> str:
    """What is wrong with the length of a sequence."""
    if not text:
        return "has nothing but gaps"
    if len(text) <= spec.numel or convert:
        return ""
    return (
        f"has {len(text):,} symbols, and the model reads at most {spec.numel:,}: shorten it, or pass convert=True (--convert) "
        "to cut it"
    )


def _misplaced(text: str, spec: DataSpec) -> str:
    """What is wrong with a sequence that is neither of the modelled sites nor of their background."""
    whole = spec.background or ""
    if len(text) == len(spec.sites):
        return ""
    if len(text) != len(whole):
        return (
            f"has {len(text):,} residues: the model reads whole sequences of {len(whole):,}, or the residues of its "
            f"{len(spec.sites)} sites"
        )
    for i in range(len(whole)):
        if text[i] != whole[i] and i not in spec.sites:
            return (
                f"has '{text[i]}' at position {i + 1}, where the model's background has '{whole[i]}': only the sites "
                f"{', '.join(str(s + 1) for s in spec.sites)} are modelled"
            )
    return ""


# Preparing for training -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Ready:
    """Sequences that a model can be trained on.

    Attributes:
        values: (N, L) uint8.
        rows: (N,), which of the records they are.
        spec: of them.
        notes: what was found and changed.
    """

    values: np.ndarray
    rows: np.ndarray
    spec: DataSpec
    notes: list[str]


def prepare(
    texts: Sequence[str],
    places: Sequence[str],
    name: str,
    preprocess: PreprocessConfig,
    background: str | None = None,
    faults: Mapping[int, str] | None = None,
) -> Ready:
    """Texts of all splits together, cleaned, brought to one length and encoded.

    Gaps stay as symbols where all sequences have one length with them (an alignment), and are removed elsewhere.

    Args:
        texts: as found.
        places: where each was found, for messages.
        name: of the source.
        preprocess: what to do with faults, and `sequence`.
        background: the whole sequence around `preprocess.sequence.sites`, where it is given.
        faults: record -> what was wrong with it in its file.

    Raises:
        DataError: a record has a fault, or none is left.
    """
    config = preprocess.sequence
    cleaned = clean(texts, padding=config.padding)
    kept = Kept(cleaned.texts, places, preprocess.on_error == "skip")
    kept.drop(cleaned.faults | dict(faults or {}))
    aligned = len(kept.lengths) == 1
    notes = cleaned.notes + _gaps(kept)
    kept.drop({i: "is empty" for i, text in enumerate(kept.texts) if not text})
    if not kept.texts:
        raise DataError(f"{name} has no sequence that can be read.")
    notes += _nucleotides(kept.texts)
    if config.sites:
        spec = _cut_out(kept, name, config.sites, background)
    else:
        most = config.max_length
        if most is not None:
            over = {i: len(text) for i, text in enumerate(kept.texts) if len(text) > most}
            said = f"symbols, more than --preprocess.sequence.max_length {most:,} allows"
            kept.drop({i: f"has {length:,} {said}" for i, length in over.items()})
            if not kept.texts:
                raise DataError(f"Every sequence of {name} is longer than {most:,} symbols.")
        gapped = aligned and any("-" in text for text in kept.texts)  # a longer row would be no row of the alignment
        longest = max(kept.lengths)
        spec = protein_spec(longest if gapped else most or longest).model_copy(update={"aligned": aligned})
    notes += kept.notes()
    low, high = min(kept.lengths), max(kept.lengths)
    size = f"{high}" if low == high else f"{low} to {high}"
    what = "sites" if config.sites else "symbols"
    notes.insert(0, f"{len(kept.texts):,} protein sequences of {size} {what} were found in {name}.")
    return Ready(encode(kept.texts, spec.numel), np.array(kept.rows, np.int64), spec, notes)


def _gaps(kept: Kept) -> list[str]:
    """Remove gaps, in place, unless the sequences are an alignment."""
    some = sum("-" in text for text in kept.texts)
    if not some:
        return []
    count = f"{some:,} of {len(kept.texts):,} sequences have gaps"
    if len(kept.lengths) == 1:
        return [f"{count}, and all have one length: an alignment, so gaps are symbols."]
    kept.texts = [text.replace("-", "") for text in kept.texts]
    return [f"{count}, and lengths differ: no alignment, so gaps were removed."]


def _nucleotides(texts: list[str]) -> list[str]:
    """Every letter of DNA is an amino acid too."""
    if any(text.strip("ACGTNX-") for text in texts):
        return []
    return ["All sequences consist of A, C, G and T alone: if these are nucleotides, they are read as amino acids."]


def _cut_out(kept: Kept, name: str, given: tuple[int, ...], background: str | None) -> DataSpec:
    """Reduce whole sequences to some sites, in place, after checking that they agree elsewhere."""
    length, sites = kept.lengths.most_common(1)[0][0], np.array(given) - 1
    whole = length if background is None else len(background)
    if given[-1] > whole:
        what = "the sequences have" if background is None else "the background has"
        short = background is None and length == len(given)
        more = " (give the whole sequence around them with --preprocess.sequence.background)" if short else ""
        raise DataError(f"{name}: there is no site {given[-1]}, since {what} {whole} residues{more}.")
    only = background is not None and length == len(given)
    wanted = len(given) if only else whole
    odd = {i: len(text) for i, text in enumerate(kept.texts) if len(text) != wanted}
    kept.drop({i: f"has {found} residues, where {wanted} are wanted" for i, found in odd.items()})
    if not kept.texts:
        raise DataError(f"{name} has no sequence of {wanted} residues, as its sites and background want.")
    if only:
        return protein_spec(len(sites), background=background, sites=sites.tolist())
    values = encode(kept.texts, whole)
    reference = consensus(values) if background is None else encode([background], whole)[0]
    outside = np.setdiff1d(np.arange(whole), sites)
    wrong = values[:, outside] != reference[outside]
    others = "the others have" if background is None else "the background has"
    faults = {}
    for i in np.flatnonzero(wrong.any(1)):
        p = int(outside[wrong[i].argmax()])
        said = f"{others} '{SYMBOLS[reference[p]]}', and only the sites may differ"
        faults[int(i)] = f"has '{kept.texts[i][p]}' at position {p + 1}, where {said}"
    kept.drop(faults)
    if not kept.texts:
        raise DataError(f"No sequence of {name} has the background that was given.")
    kept.texts = ["".join(text[s] for s in sites) for text in kept.texts]
    return protein_spec(len(sites), background=decode(reference[None])[0], sites=sites.tolist())


def consensus(values: np.ndarray) -> np.ndarray:
    """The most frequent symbol at each position of rows (N, L), (L,); the first of equals."""
    return np.array([np.bincount(column).argmax() for column in values.T], np.uint8)


def whole_sequence(text: str, what: str) -> str:
    """One sequence that an option gives as text, cleaned.

    Raises:
        DataError: it is none.
    """
    cleaned = clean([text])
    if cleaned.faults:
        raise DataError(f"{what} {cleaned.faults[0]}: give residues, or a FASTA file.")
    return cleaned.texts[0]
