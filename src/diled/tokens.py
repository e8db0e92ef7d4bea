"""What the numbers of a model of text stand for, as its tokenizer has it. No torch here; `tokenizers` is imported when used.

row 290 518 0 ... 0  ->  tokens 289 517  ->  "good food"  ->  tokens 2204 2833 of another tokenizer
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["one_thread", "reread", "tokenizer_from", "tokens_of", "word_pieces"]

THREADS = "TOKENIZERS_PARALLELISM"


def tokens_of(tokenizer: str) -> tuple[str, ...]:
    """The symbols of rows: the end as an empty text, then all tokens by their numbers; numbers without a token are empty.

    Args:
        tokenizer: JSON of the library `tokenizers`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such JSON, or has no tokens.
    """
    values: dict[str, Any] = json.loads(tokenizer)
    vocabulary = values["model"]["vocab"]  # token -> number, or of Unigram (token, score) in order
    named = vocabulary if isinstance(vocabulary, dict) else {token: i for i, (token, _) in enumerate(vocabulary)}
    tokens = {number: token for token, number in named.items()}
    tokens |= {added["id"]: added["content"] for added in values.get("added_tokens") or ()}
    return ("", *(tokens.get(number, "") for number in range(max(tokens) + 1)))


@lru_cache(maxsize=8)
def tokenizer_from(text: str) -> Any:
    """A `tokenizers.Tokenizer` that cuts nothing, fills up nothing and takes "[SEP]" in a text as text. Do not change it.

    Args:
        text: its JSON.

    Raises:
        ImportError: the library is missing.
        Exception: the bare class, where the JSON is no tokenizer.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def reread(rows: Sequence[Sequence[int]], tokenizer: str, other: str) -> list[list[int]]:
    """Texts as tokens of one tokenizer -> the same texts as tokens of another, both without special tokens.

    Args:
        rows: tokens of each text.
        tokenizer, other: JSON of both.
    """
    with one_thread():
        texts = tokenizer_from(tokenizer).decode_batch(rows, skip_special_tokens=True)
        return [one.ids for one in tokenizer_from(other).encode_batch_fast(texts, add_special_tokens=False)]


def word_pieces(vocabulary: Mapping[str, int], *, lowercase: bool, chinese: bool, accents: bool | None) -> str:
    """The tokenizer of BERT from its vocabulary, as JSON: words, and pieces of words that are marked with ##.

    Args:
        vocabulary: token -> number, with [UNK], [CLS] and [SEP].
        lowercase: texts are lower-cased first.
        chinese: each Chinese character is a word.
        accents: whether accents are taken away; None: where texts are lower-cased.

    Reference: Wu et al. 2016 (arXiv 1609.08144), section 4.1.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocabulary])
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, handle_chinese_chars=chinese, strip_accents=accents
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return str(tokenizer.to_str())


@contextmanager
def one_thread() -> Iterator[None]:
    """Tokenize without threads, unless the user says otherwise: a process that had them cannot fork safely afterwards."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = "false"
    try:
        yield
    finally:
        os.environ.pop(THREADS, None)
