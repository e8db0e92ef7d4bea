"""What the folder of a Hugging Face model says of it: its architecture, its tokens, the hash of its weights. No torch here.

    config.json, tokenizer.json, *.safetensors  ->  ArchitectureConfig

Of proteins each symbol is looked up among the model's tokens. Of text the symbols are tokens already, those of the data's
tokenizer: a decoder must write the same ones, and an encoder that has others reads each text with a tokenizer of its own.
Weights are hashed, not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diled.config import DataSpec
from diled.errors import ConfigError
from diled.hub import NETWORK, fetched
from diled.parts import ArchitectureConfig, NetworkConfig
from diled.tokens import tokenizer_from, tokens_of, word_pieces

__all__ = ["architecture", "decoder_architecture", "read_architecture", "read_decoder", "read_encoder"]

SPECIAL = {
    "start": (("cls_token", "bos_token"), ("<cls>", "[CLS]", "<s>")),
    "end": (("eos_token", "sep_token"), ("<eos>", "[SEP]", "</s>")),
    "unknown": (("unk_token",), ("<unk>", "[UNK]")),
    "pad": (("pad_token",), ("<pad>", "[PAD]")),
    "first": (("bos_token",), ()),
    "last": (("eos_token",), ()),
}
"""Special tokens: what a tokenizer's configuration calls them, and their usual spelling where it does not say."""
UNREAD = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id")
"""What config.json says beside the architecture."""
BERTS = ("bert", "distilbert", "electra", "mobilebert")
"""Kinds of models whose vocab.txt alone says how they cut words into pieces."""


def architecture(network: NetworkConfig, data: DataSpec) -> ArchitectureConfig:
    """What is known of a pretrained encoder: as kept with a run, else as its folder says.

    Raises:
        ConfigError: the folder holds no such encoder, or what was kept is of other symbols.
    """
    known = network.architecture
    if known is None:
        assert network.folder is not None  # as the configuration's own check has it
        return read_encoder(network.folder, data)
    if data.kind == "text":
        if known.tokenizer is None:
            _check_kept(known, data, "network.architecture", "network.folder")
    elif len(known.tokens) != len(data.symbols):
        raise ConfigError(
            f"network.architecture has tokens of {len(known.tokens)} symbols, and these data have "
            f"{len(data.symbols)}: leave it out, so that it is read from network.folder."
        )
    return known


def decoder_architecture(network: NetworkConfig, data: DataSpec) -> ArchitectureConfig:
    """What is known of a pretrained decoder: as kept with a run, else as its folder says.

    Raises:
        ConfigError: the data are no text, the folder holds no such decoder, or what was kept is of another tokenizer.
    """
    if data.kind != "text":
        raise ConfigError(f"network.decoder_folder is for text, not for data of kind '{data.kind}': leave it out.")
    known = network.decoder_architecture
    if known is None:
        assert network.decoder_folder is not None
        return read_decoder(network.decoder_folder, data)
    _check_kept(known, data, "network.decoder_architecture", "network.decoder_folder")
    return known


def _check_kept(known: ArchitectureConfig, data: DataSpec, key: str, folder: str) -> None:
    """Whether what was kept has the tokens of these data."""
    if known.vocabulary != _hash_of(data.symbols):
        raise ConfigError(
            f"{key} is of another tokenizer than these data: leave it out, so that it is read from {folder}, or choose "
            "--preprocess.text.tokenizer as before."
        )


def read_encoder(folder: str | Path, data: DataSpec) -> ArchitectureConfig:
    """What the folder of an encoder says of it, for these data.

    Raises:
        ConfigError: something is missing or damaged, the weights are pickles, or its tokens are of no use here.
    """
    return _read_text_encoder(folder, data.symbols) if data.kind == "text" else read_architecture(folder, data.symbols)


def read_architecture(folder: str | Path, symbols: tuple[str, ...]) -> ArchitectureConfig:
    """What the folder of a Hugging Face encoder of proteins says of it; its weights are only hashed.

    A symbol is a token by itself, or with the mark of a new word before it (ProtT5), or in lower case. The hash is SHA-256 of
    the files of weights one after the other.

    Args:
        folder: with config.json, safetensors, and tokenizer.json, vocab.txt or vocab.json; or `hub:owner/name`.
        symbols: of the data, the end first.

    Raises:
        ConfigError: something is missing or damaged, the weights are pickles, or the tokenizer knows none of the symbols.
    """
    place = _folder(folder)
    table, end, unknown = place.vocabulary, place.special("end"), place.special("unknown")
    found = [next((table[t] for t in ("\u2581" + s, s, s.lower()) if t in table), None) for s in symbols[1:]]
    lost = tuple(symbol for symbol, token in zip(symbols[1:], found, strict=True) if token is None)
    if len(lost) == len(found) or end is None or (lost and unknown is None):
        what = "knows none of the symbols of these data" if len(lost) == len(found) else "has no end or unknown token"
        raise ConfigError(f"network.folder: the tokenizer of {folder} {what}: choose an encoder of such sequences.")
    return place.architecture(
        tokens=(end, *(unknown if token is None else token for token in found)),
        start=place.special("start"),
        unknown=lost,
    )


def _read_text_encoder(folder: str | Path, symbols: tuple[str, ...]) -> ArchitectureConfig:
    """What the folder of an encoder of text says of it, with its tokenizer where that is not the data's."""
    place = _folder(folder)
    own = place.tokenizer
    start, end = place.frame(own)
    if tokens_of(own) == symbols:
        return place.architecture(tokens=(end,), start=start, vocabulary=_hash_of(symbols))
    return place.architecture(tokens=(end,), start=start, tokenizer=own)


def read_decoder(folder: str | Path, data: DataSpec) -> ArchitectureConfig:
    """What the folder of a decoder of text says of it: it starts with its beginning-of-sequence token, or its end token.

    Args:
        folder: with config.json, safetensors and tokenizer.json; or `hub:owner/name`.
        data: text, of the same tokenizer.

    Raises:
        ConfigError: something is missing or damaged, the weights are pickles, the tokenizer is not the data's, or has no end.
    """
    place = _folder(folder, "network.decoder_folder", "decoder")
    own = place.tokenizer
    if tokens_of(own) != data.symbols:
        raise ConfigError(
            f"network.decoder_folder: the decoder writes tokens of its own, and these data have those of another tokenizer: "
            f"choose its own for them, --preprocess.text.tokenizer {folder}."
        )
    end = place.number("last", "eos_token_id")
    special = {added["id"] for added in json.loads(own).get("added_tokens") or () if added.get("special")}
    if end not in special:
        raise ConfigError(
            f"network.decoder_folder: the tokenizer of {folder} has no special token for the end of a text: name one as "
            "'eos_token' in its tokenizer_config.json and among the 'added_tokens' of its tokenizer.json."
        )
    assert end is not None
    start = place.number("first", "bos_token_id")
    return place.architecture(
        tokens=(end,), start=end if start is None else start, pad=end, vocabulary=_hash_of(data.symbols)
    )


def _hash_of(symbols: Sequence[str]) -> str:
    """SHA-256 of all tokens by their numbers."""
    return hashlib.sha256(json.dumps(symbols).encode()).hexdigest()


def _folder(given: str | Path, option: str = "network.folder", what: str = "encoder") -> _Folder:
    """The folder of a path, or of a name on the Hub."""
    return _Folder(fetched(given, NETWORK, ConfigError, option), option, what)


@dataclass(frozen=True)
class _Folder:
    """The folder of a Hugging Face model.

    Args:
        path: of it.
        option: that names it, for messages.
        what: kind of model that is wanted there.
    """

    path: Path
    option: str = "network.folder"
    what: str = "encoder"

    def __post_init__(self) -> None:
        """Complain first about what is missing altogether."""
        _ = self.config, self.weights

    def architecture(self, **more: Any) -> ArchitectureConfig:
        """What is kept of it, with `more` of its tokens."""
        if "pad" not in more:
            pad = self.special("pad")
            more["pad"] = more["tokens"][0] if pad is None else pad
        values = {key: value for key, value in self.config.items() if key not in UNREAD}
        return ArchitectureConfig(values=values, sha256=self.sha256, **more)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What its config.json says."""
        if not self.path.is_dir():
            raise ConfigError(
                f"{self.option}: there is no folder {self.path}: name that of a Hugging Face {self.what}, with config.json, "
                "safetensors and its tokenizer."
            )
        values = self.json("config.json")
        if not isinstance(values.get("model_type"), str):
            raise ConfigError(
                f"{self.option}: {self.path} is no Hugging Face model: it has no config.json with a 'model_type'."
            )
        return values

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file that holds keys and values; empty where there is none."""
        path = self.path / name
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.option}: {path} cannot be read ({error}): copy it again.") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{self.option}: {path} holds no keys and values: copy it again.")
        return values

    @cached_property
    def sha256(self) -> str:
        """Of the files of weights, one after the other."""
        digest = hashlib.sha256()
        for path in self.weights:
            with path.open("rb") as file:
                while block := file.read(2**22):
                    digest.update(block)
        return digest.hexdigest()

    @cached_property
    def weights(self) -> list[Path]:
        """The files of weights, in the order of their names."""
        place = self.path
        whole = place / "model.safetensors"
        parts = {str(name) for name in self.json("model.safetensors.index.json").get("weight_map", {}).values()}
        paths = [whole] if whole.is_file() else [place / name for name in sorted(parts)]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise ConfigError(f"{self.option}: {missing} is missing: copy it again.")
        if not paths:
            pickles = sorted(path.name for path in place.glob("*.bin"))
            why = f"{pickles[0]} is a pickle, which can run any code when it is opened, so it is refused" if pickles else (
                "there is no model.safetensors"
            )  # fmt: skip
            raise ConfigError(
                f"{self.option}: {place} has no weights that can be read: {why}. Where you trust the model, save it anew with "
                "transformers' save_pretrained, which writes safetensors."
            )
        return paths

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> number, by tokenizer.json, vocab.txt or vocab.json."""
        place = self.path
        try:
            if (place / "tokenizer.json").is_file():
                read = self.json("tokenizer.json")
                table = read["model"]["vocab"]
                if isinstance(table, list):  # of pairs: piece, score
                    table = {piece: i for i, (piece, _) in enumerate(table)}
                return {**table, **{token["content"]: token["id"] for token in read.get("added_tokens") or ()}}
            if (place / "vocab.txt").is_file():
                return {line.strip(): i for i, line in enumerate((place / "vocab.txt").read_text("utf-8").splitlines())}
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.option}: the tokenizer of {place} cannot be read ({error}): copy it again."
            ) from None
        table = self.json("vocab.json")
        if not table:
            raise ConfigError(
                f"{self.option}: {place} has no tokenizer: tokenizer.json, vocab.txt or vocab.json is needed. "
                "transformers' AutoTokenizer writes one with save_pretrained."
            )
        return table

    @cached_property
    def said(self) -> dict[str, Any]:
        """What is said of its tokenizer."""
        return self.json("special_tokens_map.json") | self.json("tokenizer_config.json")

    def special(self, role: str) -> int | None:
        """The number of a special token; None where there is none."""
        keys, usual = SPECIAL[role]
        said = [self.said[key] for key in keys if self.said.get(key)]
        named = [token["content"] if isinstance(token, dict) else token for token in said]
        return next((self.vocabulary[text] for text in (*named, *usual) if text in self.vocabulary), None)

    def number(self, role: str, key: str) -> int | None:
        """The same, with what its config.json says where its tokenizer says nothing."""
        found = self.special(role)
        if found is not None:
            return found
        number = self.config.get(key)
        number = number[0] if isinstance(number, list) and number else number
        return number if isinstance(number, int) and number in self.vocabulary.values() else None

    @cached_property
    def tokenizer(self) -> str:
        """Its tokenizer as JSON of the library `tokenizers`: tokenizer.json, or made from BERT's vocab.txt."""
        path, kind = self.path / "tokenizer.json", self.config["model_type"]
        try:
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                tokenizer_from(text)
                tokens_of(text)
                return json.dumps(json.loads(text), separators=(",", ":"))
            if kind in BERTS and (self.path / "vocab.txt").is_file():
                return self._word_pieces()
        except ImportError:
            raise ConfigError("Text needs the library tokenizers: pip install 'diled[text]'.") from None
        except ConfigError:
            raise
        except Exception as error:  # `tokenizers` raises the bare class
            raise ConfigError(
                f"{self.option}: the tokenizer of {self.path} cannot be read ({str(error)[:200]}): copy it again."
            ) from None
        raise ConfigError(
            f"{self.option}: {self.path} has no tokenizer.json, and without it the tokenizer of a '{kind}' is not known. "
            "transformers writes it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )

    def _word_pieces(self) -> str:
        """BERT's own, as its vocab.txt and what is said of it have it."""
        table, lower = self.vocabulary, self.said.get("do_lower_case")
        missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in table]
        capitals = any(token != token.lower() for token in table if not token.startswith("["))
        if missing or (lower is None and capitals):
            why = (
                f"has no {missing[0]}"
                if missing
                else "has capital letters, and nothing says whether they are lower-cased"
            )
            raise ConfigError(
                f"{self.option}: the vocab.txt of {self.path} {why}. Let transformers write its tokenizer.json: "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
            )
        return word_pieces(
            table,
            lowercase=lower is not False,
            chinese=self.said.get("tokenize_chinese_chars") is not False,
            accents=self.said.get("strip_accents"),
        )

    def frame(self, tokenizer: str) -> tuple[int | None, int]:
        """The tokens that stand before and after a text, as the tokenizer puts them, or else as they are named."""
        whole = tokenizer_from(tokenizer).encode("a")
        marks = whole.special_tokens_mask
        inside = [i for i, mark in enumerate(marks) if not mark]
        first, stop = (inside[0], inside[-1] + 1) if inside else (len(marks) // 2,) * 2
        before, after = whole.ids[:first], whole.ids[stop:]
        if len(before) > 1 or len(after) > 1:
            raise ConfigError(
                f"{self.option}: the tokenizer of {self.path} puts {len(before)} tokens before a text and {len(after)} "
                "after it, and one at most is read here: choose another encoder."
            )
        start = before[0] if before else None if after else self.special("start")
        end = after[0] if after else self.special("end")
        if end is None:
            raise ConfigError(f"{self.option}: the tokenizer of {self.path} has no end token: choose another encoder.")
        return start, end
