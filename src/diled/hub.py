"""Folders of the Hugging Face Hub: `hub:owner/name`, or `hub:owner/name@revision`, where the path of a folder is asked for.

What is read here is fetched: JSON, plain text and safetensors, neither pickles nor code. `huggingface_hub` keeps it and asks
only for what has changed; without a network what it has kept is used. A name without `hub:` never asks the network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diled.errors import ConfigError, DiledError

__all__ = ["AUTOENCODER", "NETWORK", "PREFIX", "SOURCE", "TOKENIZER", "fetched", "library", "on_hub"]

PREFIX = "hub:"
NETWORK = ("*.json", "*.txt", "model*.safetensors")
"""Of a model of transformers: its configuration, tokenizer and weights."""
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
AUTOENCODER = ("model_index.json", "config.json", "diffusion_pytorch_model*", "vae/config.json", "vae/diffusion_*")
"""Of an `AutoencoderKL` of diffusers, or of a pipeline around one, whose other networks are left where they are."""
SOURCE = ("model_index.json", "config.json", "scheduler_config.json", "diffusion_pytorch_model*", "unet/*", "scheduler/*",
          "model.safetensors", "provenance.json", "tokenizer.json")  # fmt: skip
"""Of what samples are drawn from: a pipeline of diffusers, or a model of ours."""
LEFT_OUT = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.py", "*.fp16.*", "*.non_ema.*")
"""Pickles, code, weights of other libraries, and second copies of the weights."""
NAME = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>.+))?")


def on_hub(source: Any) -> bool:
    """Whether this names a folder on the Hub."""
    return isinstance(source, str) and source.startswith(PREFIX)


def library(why: str, error: type[DiledError] = ConfigError) -> Any:
    """The module `huggingface_hub`.

    Args:
        why: it is needed, as the beginning of a sentence.
        error: to raise without it.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise error(f"{why}, huggingface_hub is needed: pip install 'diled[hub]'.") from None
    return huggingface_hub


def fetched(source: str | Path, files: Sequence[str], error: type[DiledError] = ConfigError, where: str = "") -> Path:
    """The folder that is meant: a path as it is, and of `hub:owner/name` where its files lie on this machine.

    Args:
        source: a path, or a name on the Hub.
        files: patterns of what is wanted.
        error: to raise.
        where: the option that names it, for messages.

    Raises:
        DiledError: `error`, where the name is none, or cannot be fetched.
    """
    if not on_hub(source):
        return Path(source)
    named = NAME.fullmatch(str(source))
    before = f"{where}: " if where else ""
    if named is None:
        raise error(f"{before}{source} is no name on the Hub: write hub:owner/name, or hub:owner/name@revision.")
    hub = library(f"{before}To fetch {source}", error)
    try:
        place = hub.snapshot_download(
            named["name"], revision=named["revision"], allow_patterns=list(files), ignore_patterns=list(LEFT_OUT)
        )
    except Exception as fault:  # of the network, of the Hub, of the disk
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        raise error(
            f"{before}{source} could not be fetched from the Hub ({reason}). Check the name and the network, or give the path "
            "of a folder."
        ) from None
    return Path(place)
