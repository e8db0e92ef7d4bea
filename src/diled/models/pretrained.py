"""Encoders from Hugging Face folders: their architecture, and their weights.

    model_type, sizes  --transformers-->  a network with random weights  <-- model.safetensors, once, when a training starts

A run keeps the architecture in its configuration and all weights in its own file, so the folder is read only once. Nothing
is downloaded, no pickle is opened, and no code from the folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diled.config import DataSpec
from diled.draws import seeded
from diled.errors import ConfigError, ModelError
from diled.nn.pretrained import PretrainedEncoder, PretrainedStates, first_blocks
from diled.parts import NetworkConfig

__all__ = ["load_pretrained", "pretrained_encoder", "pretrained_states"]

UNUSED = ("pooler", "contact_head")
"""Heads that read the states, which ours replaces."""


def pretrained_encoder(network: NetworkConfig, data: DataSpec, out: int) -> PretrainedEncoder:
    """x (B, L) -> (B, out): the encoder that `network.architecture` describes, with random weights.

    Args:
        network: resolved.
        data: what is known of the sequences.
        out: size of the result.

    Raises:
        ModelError: transformers is missing.
        ConfigError: the architecture is unknown or no encoder, or it does not fit the sequences or `network.frozen`.
    """
    known = network.architecture
    assert known is not None, "call ModelConfig.resolved(data) first"
    model = _architecture(deepcopy(known.values))
    config: Any = model.config
    whole = data.background or ""
    _check_fits(model, known.tokens, (len(whole) or data.numel) + (known.start is not None) + 1)
    frozen: tuple[nn.Module, ...] = (model,) if network.frozen == "all" else ()
    if isinstance(network.frozen, int):
        try:
            frozen = first_blocks(model, config.num_hidden_layers, network.frozen)
        except ValueError as error:
            raise ConfigError(f"network.frozen = {network.frozen} does not fit this encoder: {error}.") from None
    states = PretrainedStates(
        model,
        config.hidden_size,
        tokens=known.tokens,
        start=known.start,
        pad=known.pad,
        frozen=frozen,
        pace=network.pace,
        whole=[data.symbols.index(symbol) for symbol in whole],
        sites=data.sites,
    )
    return PretrainedEncoder(states, out, network.heads)


def pretrained_states(model: nn.Module) -> PretrainedStates | None:
    """The pretrained encoder somewhere in a model; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PretrainedStates)), None)


def load_pretrained(states: PretrainedStates, folder: str | Path) -> None:
    """Give a pretrained encoder the weights of its folder.

    Raises:
        ModelError: transformers is missing, or the weights are damaged, incomplete or of another architecture.
    """
    model: Any = states.model
    with _quiet(), seeded(0):
        try:
            found, report = type(model).from_pretrained(
                str(folder), config=model.config, dtype=torch.float32, local_files_only=True, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:  # whatever transformers makes of a damaged file
            raise ModelError(f"The weights in {folder} cannot be read: {_first_line(error)}.") from None
    wanted = model.state_dict()
    other = sorted(name for name, *_ in report["mismatched_keys"] if name in wanted)
    if other:
        raise ModelError(f"The weights in {folder} do not fit its config.json: '{other[0]}' has another size.")
    missing = sorted(name for name in report["missing_keys"] if name in wanted)
    if missing:
        raise ModelError(f"The weights in {folder} are incomplete: '{missing[0]}' is missing.")
    values = found.state_dict()
    model.load_state_dict({name: values[name] for name in wanted})


def _architecture(values: dict[str, Any]) -> nn.Module:
    """An encoder of that configuration, with random weights from torch's generator."""
    kind = values["model_type"]
    with _quiet() as transformers:
        lists = transformers.models.auto.modeling_auto
        both = bool(values.get("is_encoder_decoder"))
        alone = lists.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(kind, "").endswith("EncoderModel")
        masked = kind in lists.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not both and not values.get("is_decoder")
        if kind not in transformers.CONFIG_MAPPING:
            raise ConfigError(
                f"network.folder: the architecture '{kind}' is unknown to transformers {transformers.__version__}; code in the "
                "folder is not run. Choose an encoder such as ESM, BERT or T5."
            )
        if not alone and not masked:
            raise ConfigError(
                f"network.folder: '{kind}' is {'an encoder with a decoder' if both else 'a decoder'}, and an encoder by "
                "itself is wanted: choose one such as ESM, BERT or T5."
            )
        try:
            config = transformers.AutoConfig.for_model(**values)
            auto = transformers.AutoModelForTextEncoding if alone else transformers.AutoModel
            model: nn.Module = auto.from_config(config, dtype=torch.float32)
        except Exception as error:  # whatever transformers makes of wrong values
            raise ConfigError(f"network.folder: its config.json describes no encoder: {_first_line(error)}.") from None
    for name in UNUSED:
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    return model


def _check_fits(model: nn.Module, tokens: tuple[int, ...], length: int) -> None:
    """Whether an encoder has all tokens, and as many positions."""
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


@contextmanager
def _quiet() -> Iterator[Any]:
    """The package transformers, which says nothing within the block.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ModelError("A pretrained encoder needs transformers: pip install 'diled[text]'.") from None
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
