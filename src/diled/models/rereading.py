"""Texts as an encoder with a tokenizer of its own reads them.

    row of the data's tokens  --written out-->  text  --read again-->  row of the encoder's tokens

Both kinds of rows are as in `sequences`: token k is the number k + 1, and 0 ends a row and fills it. A text that has more
tokens than the encoder reads is cut; `check` refuses such texts before a training starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diled.errors import ConfigError
from diled.sequences import END, lengths
from diled.tokens import reread, tokens_of

__all__ = ["Rereading"]

BLOCK = 10_000
"""Texts that are looked at together."""


@dataclass(frozen=True)
class Rereading:
    """Rows (B, L) of the data's tokens -> rows (B, T) of another tokenizer's, each with room for its end.

    Args:
        tokenizer: the data's, as JSON of the library `tokenizers`.
        own: the encoder's, as the same.
        most: tokens of one text that the encoder reads; None: any number.
    """

    tokenizer: str = field(repr=False)
    own: str = field(repr=False)
    most: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, T).

        Raises:
            ConfigError: these are probabilities (B, L, V), which cannot be written out as text.
        """
        if x.ndim != 2:
            raise ConfigError(
                "This encoder has a tokenizer of its own, so it reads texts and no probabilities of tokens, which gradients "
                "need: choose network.kind transformer, or the encoder's own tokens for the data, --preprocess.text.tokenizer "
                "FOLDER."
            )
        rows = [row[: self.most] for row in self.tokens(x)]
        width = 1 + max(map(len, rows), default=0)
        filled = [[token + 1 for token in row] + [END] * (width - len(row)) for row in rows]
        return torch.tensor(filled, dtype=torch.long, device=x.device).reshape(len(rows), width)

    def tokens(self, x: Tensor) -> list[list[int]]:
        """The encoder's tokens of each row (B, L), however many."""
        rows = zip((x.long() - 1).tolist(), lengths(x).tolist(), strict=True)
        return reread([row[:size] for row, size in rows], self.tokenizer, self.own)

    def check(self, x: Tensor, names: str) -> None:
        """Refuse rows (N, L) that have too many tokens; only those with as many bytes are read.

        Raises:
            ConfigError: with the number of the first.
        """
        if self.most is None:
            return
        bytes_of = torch.tensor([len(token.encode()) for token in tokens_of(self.tokenizer)])
        for start in range(0, len(x), BLOCK):
            block = x[start : start + BLOCK].long()
            long = (2 * bytes_of[block].sum(1) > self.most).nonzero()[:, 0]  # a factor for what a tokenizer may add
            sizes = list(map(len, self.tokens(block[long])))
            found = next((i for i, size in enumerate(sizes) if size > self.most), None)
            if found is not None:
                raise ConfigError(
                    f"network.folder: this encoder reads at most {self.most} tokens of a text, and number "
                    f"{start + int(long[found]) + 1:,} of {names} has {sizes[found]:,}: choose another one, or train on "
                    "shorter texts (--preprocess.sequence.max_length)."
                )
