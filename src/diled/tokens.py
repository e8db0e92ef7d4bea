"""What the numbers of a model of text stand for, as its tokenizer has it. Neither torch nor the library `tokenizers` here."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["tokens_of"]


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
