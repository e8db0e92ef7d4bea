"""Text as rows of whole numbers, and back.

    "good food"  ->  tokens 289 517  ->  290 518 0 ... 0        (L numbers; 0 is the end of a text, and fills its row)

A tokenizer of the library `tokenizers` cuts a text into tokens; token k is the number k + 1. One that is trained here is
byte-level BPE: it starts from the 256 bytes and joins the most frequent neighbours, so that it can write every text and
`decode(encode(t)) == t`. One that is given is used as it is, but adds no special tokens, fills up nothing and cuts nothing.

Reference: Sennrich et al. 2016 (arXiv 1508.07909), algorithm 1; Radford et al. 2019 (GPT-2), section 2.2, for bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec
from diled.data.faults import short
from diled.data.scale import raw_dtype, symbol_rows
from diled.errors import DataError
from diled.hub import TOKENIZER, fetched, on_hub
from diled.tokens import one_thread, tokenizer_from, tokens_of

__all__ = [
    "decode_rows",
    "encode_texts",
    "filled",
    "load_tokenizer",
    "named",
    "reread",
    "text_spec",
    "token_counts",
    "token_rows",
    "tokenized",
    "tokenizer_of",
    "train_tokenizer",
    "unknown_token",
]

BLOCK = 10_000
"""Texts that are tokenized at once."""
OTHERS = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
"""Files in which tokenizers of older models are kept."""


def text_spec(length: int, tokenizer: str) -> DataSpec:
    """What a model must know of texts of at most `length` tokens.

    Args:
        length: L, most tokens of a text.
        tokenizer: JSON of the library `tokenizers`.

    Raises:
        DataError: the JSON is no tokenizer, or the library is missing.
    """
    try:
        symbols = tokens_of(tokenizer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The tokenizer has no tokens that can be read ({error}).") from None
    return DataSpec(
        kind="text",
        shape=(length,),
        levels=len(symbols),
        low=0,
        high=len(symbols) - 1,
        symbols=symbols,
        tokenizer=tokenizer,
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int = 8000) -> str:
    """Byte-level BPE trained on texts, as JSON: the 256 bytes, then joined pairs, the most frequent first.

    The same texts in the same order give the same tokenizer. Pairs that occur once are not joined.

    Args:
        texts: to train on.
        vocabulary: most tokens, at least 256.

    Raises:
        DataError: the library `tokenizers` is missing.
    """
    library = _library()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=sorted(alphabet),
    )
    with one_thread():
        tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def load_tokenizer(given: str | Path) -> str:
    """The JSON of a tokenizer: of a file tokenizer.json, of a folder with one, here or on the Hub, or of that JSON itself.

    Raises:
        DataError: nothing there, a folder with other files than tokenizer.json, or no tokenizer.
    """
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return _whole(given, "The tokenizer")
    from diled.data.sources import existing

    path = fetched(given, TOKENIZER, DataError, "preprocess.text.tokenizer") if on_hub(given) else existing(given)
    if path.is_dir():
        folder, path = path, path / "tokenizer.json"
        if not path.is_file():
            old = [name for name in OTHERS if (folder / name).is_file()]
            more = (
                f" It has {' and '.join(old)}, which transformers converts: AutoTokenizer.from_pretrained(FOLDER)."
                "save_pretrained(FOLDER)."
                if old
                else ""
            )
            raise DataError(f"The folder {folder} holds no tokenizer.json.{more}")
    try:
        return _whole(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a tokenizer: {error}.") from None


def tokenizer_of(spec: DataSpec) -> Any:
    """The tokenizer of a text model, a `tokenizers.Tokenizer`, kept for the next call. Do not change it.

    Raises:
        DataError: the data are no text, or the library `tokenizers` is missing.
    """
    if spec.tokenizer is None:
        raise DataError(f"The data are {spec.kind}s, which have no tokenizer.")
    return _tokenizer(spec.tokenizer)


def encode_texts(
    texts: Sequence[str], spec: DataSpec, *, places: Sequence[str] | None = None, convert: bool = False
) -> np.ndarray:
    """Texts as rows of numbers (N, L), in the type of `scale.raw_dtype`.

    Args:
        texts: as they are; nothing is stripped or lower-cased.
        spec: of the model's data.
        places: a name for each text, for messages.
        convert: cut what is too long.

    Raises:
        DataError: a text has no token or more than L, or is no text.
    """
    rows, faults = token_rows(texts, spec, convert=convert)
    for i, fault in faults.items():
        raise DataError(f"{places[i] if places else named(i, texts[i])} {fault}.")
    return rows


def token_rows(texts: Sequence[str], spec: DataSpec, *, convert: bool = False) -> tuple[np.ndarray, dict[int, str]]:
    """The texts that can be read, as rows of numbers (n, L), and what is wrong with the others: record -> predicate.

    Args:
        texts: as they are; nothing is stripped or lower-cased.
        spec: of the model's data.
        convert: cut what is too long.

    Raises:
        DataError: something in the list is no text.
    """
    flat, sizes = tokenized(texts, spec)
    fit = (sizes > 0) & ((sizes <= spec.numel) | convert)
    faults = {i: _unfit(int(sizes[i]), spec) for i in np.flatnonzero(~fit).tolist()}
    return filled(flat[np.repeat(fit, sizes)], sizes[fit], spec), faults


def _unfit(size: int, spec: DataSpec) -> str:
    """What is wrong with a text of so many tokens."""
    if not size:
        return "has no token of the tokenizer"
    return (
        f"has {size:,} tokens, and the model reads at most {spec.numel:,}: shorten it, or pass convert=True (--convert) to "
        "cut it"
    )


def decode_rows(values: np.ndarray, spec: DataSpec) -> list[str]:
    """The texts of rows (..., L), up to the first end; special tokens are left out.

    Raises:
        DataError: the rows are no rows of these data.
    """
    rows = symbol_rows(values, spec)
    sizes = np.where((rows == 0).any(1), (rows == 0).argmax(1), rows.shape[1])
    tokens = rows.astype(np.int64) - 1
    tokenizer, texts = tokenizer_of(spec), []
    for start in range(0, len(rows), BLOCK):
        block = zip(tokens[start : start + BLOCK].tolist(), sizes[start : start + BLOCK].tolist(), strict=True)
        with one_thread():
            texts += tokenizer.decode_batch([row[:size] for row, size in block], skip_special_tokens=True)
    return texts


def reread(texts: Sequence[str], spec: DataSpec) -> list[str]:
    """The texts (N,) as a model of `spec` would have read and written them, of any length; empty where no token is left.

    Raises:
        DataError: something in the list is no text.
    """
    flat, sizes = tokenized(texts, spec)
    tokenizer, rows = tokenizer_of(spec), np.split(flat - 1, np.cumsum(sizes)[:-1]) if len(sizes) else []
    with one_thread():
        return tokenizer.decode_batch([row.tolist() for row in rows], skip_special_tokens=True)


def token_counts(texts: Sequence[str], spec: DataSpec) -> np.ndarray:
    """How many tokens each text has, (N,), the end not counted."""
    return tokenized(texts, spec)[1]


def tokenized(texts: Sequence[str], spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all texts one after the other, (sum of sizes,), and how many each has, (N,).

    Raises:
        DataError: something in the list is no text.
    """
    tokenizer = tokenizer_of(spec)
    parts: list[np.ndarray] = []
    sizes: list[int] = []
    for start in range(0, len(texts), BLOCK):
        block = list(texts[start : start + BLOCK])
        wrong = next((i for i, text in enumerate(block) if not _is_text(text)), None)
        if wrong is not None:
            raise DataError(f"Text {start + wrong + 1} is no text that can be written in UTF-8.")
        with one_thread():
            ids = [one.ids for one in tokenizer.encode_batch_fast(block, add_special_tokens=False)]
        sizes += map(len, ids)
        parts.append(np.fromiter((k for row in ids for k in row), np.int32) + 1)
    return np.concatenate(parts) if parts else np.zeros(0, np.int32), np.array(sizes, np.int64)


def filled(flat: np.ndarray, sizes: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Rows (N, L) of numbers that stand one after the other, filled up with ends; what is longer than L is cut."""
    rows = np.zeros((len(sizes), spec.numel), raw_dtype(spec))
    row = np.repeat(np.arange(len(sizes)), sizes)
    column = np.arange(len(flat)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = column < spec.numel
    rows[row[kept], column[kept]] = flat[kept]
    return rows


def unknown_token(tokenizer: str) -> int | None:
    """The number of what a tokenizer writes where it has no token; None where it can write everything."""
    model = json.loads(tokenizer)["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"]) + 1
    token = _tokenizer(tokenizer).token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return None if token is None else token + 1


def named(i: int, text: str, kind: str = "Text") -> str:
    """A text by its number in a list, for messages."""
    return f"{kind} {i + 1} ('{short(text)}')"


def _is_text(text: Any) -> bool:
    """Whether something is text without halves of surrogate pairs."""
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise DataError("Text needs the library tokenizers: pip install 'diled[text]'.") from None
    return tokenizers


def _whole(text: str, name: str) -> str:
    """A tokenizer's JSON without cutting and filling up, which are not the tokenizer's affair here."""
    try:
        tokenizer = _library().Tokenizer.from_str(text)
    except DataError:
        raise
    except Exception as error:  # `tokenizers` raises the bare class
        raise DataError(f"{name} is no tokenizer of the library tokenizers ({str(error)[:200]}).") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(tokenizer.to_str())


@lru_cache(maxsize=8)
def _tokenizer(text: str) -> Any:
    return tokenizer_from(_whole(text, "The tokenizer"))
