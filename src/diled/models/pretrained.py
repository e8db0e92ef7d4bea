"""Encoders and decoders from Hugging Face folders: their architecture, and their weights.

    model_type, sizes  --transformers-->  a network with random weights  <-- model.safetensors, once, when a training starts

A run keeps the architecture in its configuration and all weights in its own file, so the folder is read only once. No
pickle is opened, and no code from the folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diled.config import DataSpec
from diled.draws import seeded
from diled.errors import ConfigError, ModelError
from diled.hub import NETWORK, fetched
from diled.models.rereading import Rereading
from diled.nn.pretrained import PretrainedEncoder, PretrainedStates, blocks_of, first_blocks
from diled.nn.pretrained_decoder import PretrainedDecoder, all_but
from diled.parts import NetworkConfig
from diled.tokens import tokens_of

__all__ = [
    "check_rereading",
    "load_pretrained",
    "pretrained_decoder",
    "pretrained_encoder",
    "pretrained_states",
    "written_by",
]

UNUSED = ("pooler", "contact_head")
"""Heads that read the states, which ours replaces."""
SHORT, LONG = 4, 7
"""Tokens of the two rows that tell whether an encoder can be read."""
CHANGED = 1e-4
"""By how much the states of a row may change with what stands beside it, relative to the largest: rounding is 1e-6, and what
is not masked out some 4e-4 at least, even of random weights."""


def pretrained_encoder(network: NetworkConfig, data: DataSpec, out: int) -> PretrainedEncoder:
    """x (B, L) -> (B, out): the encoder that `network.architecture` describes, with random weights.

    Args:
        network: resolved.
        data: what is known of the sequences.
        out: size of the result.

    Raises:
        ModelError: transformers is missing.
        ConfigError: the architecture is unknown or no encoder, or it does not fit the sequences or `network.frozen`; or two
            short rows show that it cannot be called here, or does not leave out what fills a row up.
    """
    known = network.architecture
    assert known is not None, "call ModelConfig.resolved(data) first"
    model = _encoder(deepcopy(known.values))
    config: Any = model.config
    whole, around = data.background or "", 1 + (known.start is not None)
    own = known.tokenizer
    tokens = known.tokens
    if data.kind == "text":
        tokens = (*tokens, *range(len(data.symbols if own is None else tokens_of(own)) - 1))
    most = _most_tokens(model, tokens, around + (1 if own is not None else len(whole) or data.numel))
    longest = min(LONG, most or LONG)
    _without_heads(
        model, [*([] if known.start is None else [known.start]), *tokens], longest, None if whole else known.pad
    )
    reread = None if own is None else Rereading(data.tokenizer or "", own, None if most is None else most - around)
    states = PretrainedStates(
        model,
        config.hidden_size,
        tokens=tokens,
        start=known.start,
        pad=known.pad,
        frozen=_frozen(model, "network.frozen", network.frozen),
        pace=network.pace,
        whole=[data.symbols.index(symbol) for symbol in whole],
        sites=data.sites,
    )
    return PretrainedEncoder(states, out, network.heads, reread)


def pretrained_decoder(network: NetworkConfig, data: DataSpec, dim: int) -> PretrainedDecoder:
    """z (B, dim) -> p(x | z): the decoder that `network.decoder_architecture` describes, with random weights.

    Args:
        network: resolved.
        data: what is known of the texts.
        dim: size of the code.

    Raises:
        ModelError: transformers is missing.
        ConfigError: the architecture is unknown or no decoder, or it does not fit the texts or `network.decoder_frozen`.
    """
    known, new = network.decoder_architecture, network.new_blocks
    assert known is not None, "call ModelConfig.resolved(data) first"
    model = _decoder(deepcopy(known.values), new)
    _check_decoder(model, data)
    with _quiet() as transformers:
        try:
            return PretrainedDecoder(
                model,
                data.numel,
                len(data.symbols),
                dim=dim,
                start=known.tokens[0] if known.start is None else known.start,
                end=known.tokens[0],
                cache=transformers.DynamicCache,
                inject=network.inject,
                word_dropout=network.word_dropout,
                frozen=_frozen(model, "network.decoder_frozen", network.decoder_frozen, new),
                pace=network.decoder_pace,
            )
        except ValueError as error:
            raise ConfigError(
                f"network.decoder_folder: '{known.values['model_type']}' cannot write from a code here: {error}. Choose a "
                "decoder such as GPT-2, OPT or Llama."
            ) from None


def pretrained_states(model: nn.Module) -> PretrainedStates | None:
    """The pretrained encoder somewhere in a model; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PretrainedStates)), None)


def written_by(model: nn.Module) -> PretrainedDecoder | None:
    """The pretrained decoder somewhere in a model; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PretrainedDecoder)), None)


def load_pretrained(part: PretrainedStates | PretrainedDecoder, folder: str | Path, new_blocks: int = 0) -> None:
    """Give a pretrained encoder or decoder the weights of its folder.

    Args:
        part: with random weights.
        folder: of a model of its architecture, or `hub:owner/name`.
        new_blocks: of its blocks, those at the bottom which the folder does not have, and which stay as they are.

    Raises:
        ModelError: transformers is missing, or the weights are damaged, incomplete or of another architecture.
    """
    model: Any = part.model
    place, config = str(fetched(folder, NETWORK, ModelError)), deepcopy(model.config)
    at = _blocks_name(model) if new_blocks else ""
    if new_blocks:
        _more_layers(config, -new_blocks)
    with _quiet(), seeded(0):
        try:
            found, report = type(model).from_pretrained(
                place, config=config, dtype=torch.float32, local_files_only=True, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:  # whatever transformers makes of a damaged file
            raise ModelError(f"The weights in {folder} cannot be read: {_first_line(error)}.") from None
    wanted = model.state_dict()
    values = {_raised(name, at, new_blocks): value for name, value in found.state_dict().items()}
    other = sorted(name for name, *_ in report["mismatched_keys"] if _raised(name, at, new_blocks) in wanted)
    if other:
        raise ModelError(f"The weights in {folder} do not fit its config.json: '{other[0]}' has another size.")
    missing = sorted(name for name in report["missing_keys"] if _raised(name, at, new_blocks) in wanted)
    if missing:
        raise ModelError(f"The weights in {folder} are incomplete: '{missing[0]}' is missing.")
    model.load_state_dict({name: values.get(name, value) for name, value in wanted.items()})


def check_rereading(model: nn.Module, values: Tensor, names: str) -> None:
    """Refuse texts that are too long for an encoder with a tokenizer of its own; without one nothing happens.

    Args:
        model: with or without such an encoder.
        values: rows (N, L) of the data.
        names: what they are, for messages: the training texts, say.

    Raises:
        ConfigError: with the number of the first such text.
    """
    encoder = next((part for part in model.modules() if isinstance(part, PretrainedEncoder)), None)
    if encoder is not None and isinstance(encoder.reread, Rereading):
        encoder.reread.check(values, names)


def _encoder(values: dict[str, Any]) -> nn.Module:
    """An encoder of that configuration, with random weights from torch's generator."""
    kind = values["model_type"]
    with _quiet() as transformers:
        lists = transformers.models.auto.modeling_auto
        both = bool(values.get("is_encoder_decoder"))
        alone = lists.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(kind, "").endswith("EncoderModel")
        masked = kind in lists.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not both and not values.get("is_decoder")
        _check_known(transformers, kind, "folder", "an encoder such as ESM, BERT or T5")
        if not alone and not masked:
            raise ConfigError(
                f"network.folder: '{kind}' is {'an encoder with a decoder' if both else 'a decoder'}, and an encoder by "
                "itself is wanted: choose one such as ESM, BERT or T5."
            )
        auto = transformers.AutoModelForTextEncoding if alone else transformers.AutoModel
        model = _built(transformers, auto, values, "network.folder: its config.json describes no encoder")
    return model


def _without_heads(model: Any, tokens: Sequence[int], longest: int, pad: int | None) -> None:
    """Take out the heads that ours replaces, as far as the encoder can be called without them.

    Args:
        model: an encoder.
        tokens: that it may read.
        longest: how many of them make the longer of the two rows that it reads for a trial.
        pad: token that fills the shorter one up; None: rows are never filled up.

    Raises:
        ConfigError: it cannot be called at all, or its states depend on what fills a row up, or on chance.
    """
    heads = {name: head for name in UNUSED if (head := getattr(model, name, None)) is not None}
    row = [tokens[i % len(tokens)] for i in range(longest)]
    changed, failed = 0.0, "it fails"
    for stand_in in (lambda head: None, lambda head: nn.Identity(), lambda head: head):  # some call them regardless
        for name, head in heads.items():
            setattr(model, name, stand_in(head))
        try:
            changed, failed = _changed(model, row, pad), ""
            break
        except Exception as error:  # whatever transformers makes of the call
            failed = _first_line(error)
    if not failed and not changed <= CHANGED:
        failed = "the states of a sequence change with what stands beside it, or from call to call"
    if failed:
        raise ConfigError(
            f"network.folder: '{model.config.model_type}' cannot be read from here: {failed}. Choose an encoder such as ESM, "
            "BERT or T5."
        )


@torch.no_grad()
def _changed(model: Any, row: Sequence[int], pad: int | None) -> float:
    """By how much the states of a row's start change, relative to the largest, where it is filled up beside the whole row."""
    ids = torch.tensor([list(row), list(row)])
    mask = torch.ones_like(ids)
    n = len(row) if pad is None else min(SHORT, len(row))
    if pad is not None:
        ids[0, n:], mask[0, n:] = pad, 0
    training = model.training
    with _quiet(), seeded(0):
        model.eval()
        try:
            alone = model(input_ids=ids[:1, :n], attention_mask=mask[:1, :n]).last_hidden_state[0]
            beside = model(input_ids=ids, attention_mask=mask).last_hidden_state[0, :n]
        finally:
            model.train(training)
    if alone.shape != (n, model.config.hidden_size):
        raise ValueError("it has no state for each token")
    return float((alone - beside).abs().max() / alone.abs().max())


def _decoder(values: dict[str, Any], new_blocks: int) -> nn.Module:
    """A decoder of that configuration, with more blocks, and random weights from torch's generator."""
    kind = values["model_type"]
    with _quiet() as transformers:
        lists = transformers.models.auto.modeling_auto
        both = bool(values.get("is_encoder_decoder"))
        masked = kind in lists.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not values.get("is_decoder")
        _check_known(transformers, kind, "decoder_folder", "a decoder such as GPT-2, OPT or Llama")
        if both or masked or kind not in lists.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ConfigError(
                f"network.decoder_folder: '{kind}' is {'an encoder with a decoder' if both else 'no decoder of text'}, and a "
                "decoder by itself is wanted: choose one such as GPT-2, OPT or Llama."
            )
        said = "network.decoder_folder: its config.json describes no decoder"
        return _built(transformers, transformers.AutoModelForCausalLM, values, said, new_blocks)


def _check_known(transformers: Any, kind: str, option: str, such: str) -> None:
    """Whether transformers has that kind of model."""
    if kind not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"network.{option}: the architecture '{kind}' is unknown to transformers {transformers.__version__}; code in the "
            f"folder is not run. Choose {such}."
        )


def _built(transformers: Any, auto: Any, values: dict[str, Any], said: str, new_blocks: int = 0) -> nn.Module:
    """A model of one of transformers' kinds."""
    try:
        config = transformers.AutoConfig.for_model(**values)
        if new_blocks:
            _more_layers(config, new_blocks)
        model: nn.Module = auto.from_config(config, dtype=torch.float32)
    except Exception as error:  # whatever transformers makes of wrong values
        raise ConfigError(f"{said}: {_first_line(error)}.") from None
    return model


def _more_layers(config: Any, more: int) -> None:
    """Change the number of layers of a configuration, and what it says of each at the bottom."""
    for key in ("layer_types", "attention_layers"):
        value = getattr(config, key, None)
        if value:
            setattr(config, key, [*value[:1] * more, *value] if more > 0 else value[-more:])
    config.num_hidden_layers += more


def _blocks_name(model: Any) -> str:
    """The name of a model's list of blocks, with a dot after it."""
    blocks = blocks_of(model, model.config.num_hidden_layers)
    return next(name for name, part in model.named_modules() if part is blocks) + "."


def _raised(name: str, at: str, by: int) -> str:
    """The name of a weight where there are more blocks below it."""
    if not by or not name.startswith(at):
        return name
    number, _, rest = name.removeprefix(at).partition(".")
    return f"{at}{int(number) + by}.{rest}"


def _frozen(model: Any, option: str, frozen: str | int, new: int = 0) -> tuple[nn.Module, ...]:
    """The modules of a model that stay as they are."""
    if frozen == "none":
        return ()
    try:
        layers = model.config.num_hidden_layers
        if isinstance(frozen, int):
            return first_blocks(model, layers, frozen, new)
        trained = set(blocks_of(model, layers)[:new]) if new else set()
        if frozen == "blocks":
            trained |= {model.get_input_embeddings(), model.get_output_embeddings()}
        return tuple(all_but(model, trained)) if trained else (model,)
    except ValueError as error:
        what = "encoder" if option == "network.frozen" else "decoder"
        raise ConfigError(f"{option} = {frozen} does not fit this {what}: {error}.") from None


def _most_tokens(model: nn.Module, tokens: tuple[int, ...], length: int) -> int | None:
    """How many tokens an encoder reads, where there is a limit; whether it has all tokens, and as many positions."""
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if max(tokens) >= rows:
        raise ConfigError(f"network.folder: its tokenizer has the token {max(tokens)}, and its table {rows} rows only.")
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            most = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
            if length > most:
                raise ConfigError(
                    f"network.folder: this encoder reads at most {most} tokens, and these sequences have up to {length}: "
                    "choose another one, or train on shorter sequences."
                )
            return most
    return None


def _check_decoder(model: Any, data: DataSpec) -> None:
    """Whether a decoder has all tokens, and as many positions."""
    rows = model.get_input_embeddings().num_embeddings
    if len(data.symbols) - 1 > rows:
        raise ConfigError(
            f"network.decoder_folder: the tokenizer has {len(data.symbols) - 1:,} tokens, and its table {rows:,} rows only."
        )
    most = data.numel
    for name, taken in {"max_position_embeddings": 0, "sliding_window": 1, "window_size": 1}.items():
        limit: Any = getattr(model.config, name, None)
        if isinstance(limit, int):
            most = min(most, limit - taken)  # the code takes a place in a window, but no position
    if data.numel > most:
        raise ConfigError(
            f"network.decoder_folder: this decoder writes at most {most} tokens, and these texts have up to {data.numel}: "
            "choose another one, or train on shorter texts (--preprocess.sequence.max_length)."
        )


@contextmanager
def _quiet() -> Iterator[Any]:
    """The package transformers, which says nothing within the block.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ModelError("A pretrained network needs transformers: pip install 'diled[text]'.") from None
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    """What went wrong, in one line without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
