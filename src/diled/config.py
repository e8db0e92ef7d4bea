"""Configuration: pydantic types that hold values. No torch here, so the command line starts at once.

Each type is the one home of its defaults. An unknown key fails and names the nearest known one. Python composes
(`models/zoo.py`), configuration only says with which numbers.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diled.errors import ConfigError, did_you_mean

__all__ = ["Config", "DataSpec", "PreprocessConfig", "TrainingConfig", "validated"]


class Config(BaseModel):
    """The base of every configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataSpec(Config):
    """What a model must know about its data: the kind, the shape and the measure that its bounds refer to."""

    kind: Literal["image", "signal", "vector"]
    """`image`: (C, H, W); `signal`: (C, L); `vector`: (D,)."""
    shape: tuple[int, ...]
    """The shape of one example."""
    levels: int | None = None
    """Number of equally spaced grey values (17 for digits, 256 for 8-bit images, 2 for binarised ones), so that bounds
    are in counting measure; None for continuous data, whose bounds are densities."""
    low: float = 0.0
    """The raw value that becomes -1 in model space."""
    high: float = 255.0
    """The raw value that becomes +1 in model space."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """`dynamic`: each pixel is drawn anew as Bernoulli(grey value) whenever it is read; `threshold`: above one half."""
    mode: str | None = None
    """For images, Pillow's mode of the stored values: `L`, `RGB`, `RGBA`, `I;16`; None where there is no such mode."""
    size_policy: Literal["exact", "crop", "pad", "stretch"] = "exact"
    """How images of another size are brought to `shape`."""
    labels: dict[str, list[str]] = Field(default_factory=dict)
    """Label columns and the names of their classes (empty list: real numbers)."""

    @property
    def numel(self) -> int:
        """Number of dimensions of one example."""
        n = 1
        for s in self.shape:
            n *= s
        return n


class PreprocessConfig(Config):
    """How raw examples become a model's input. Every default is 'as found'."""

    size: int | tuple[int, int] | None = None
    """Height and width of the images; None keeps the size found (and asks where a folder has several)."""
    size_policy: Literal["exact", "crop", "pad", "stretch"] = "crop"
    """Where `size` is given: `crop` resizes the shorter side and cuts the centre, `pad` fits inside, `stretch` resizes."""
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    """`auto` keeps what the files have, and refuses a mixture."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Turn grey values into {-1, 1}: `dynamic` draws anew at each reading, `threshold` cuts at one half."""
    image_column: str = "image"
    """Column of a Parquet file that holds the images."""
    label_column: str | None = None
    """Label column; None takes `label` (or the class folders, or an array named `labels` or `y`) where there is one."""
    limit: int | None = Field(None, ge=2)
    """Use only this many examples of the training split."""
    max_pixels: int = Field(64_000_000, ge=1)
    """Images with more pixels are refused as image bombs."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an unreadable file does: `stop` with its name, or `skip` it and say how many of how many were left out."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the examples held out from training for model selection, where the data come without such a split."""
    test_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the examples held out for the final figures, where the data come without such a split."""


class TrainingConfig(Config):
    """How a density is trained. The same for every model, so that comparisons are on equal terms."""

    steps: int = Field(2500, ge=1)
    """Optimiser steps in all, over all stages."""
    batch_size: int = Field(128, ge=1)
    """Examples per optimiser step and device."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimiser step; the effective batch is `batch_size` x `accumulate` x devices."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(200, ge=0)
    """Linear learning-rate warm-up (at most a tenth of a stage); a cosine to zero follows."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging coefficients."""
    clip: float | None = Field(200.0, gt=0)
    """Largest gradient norm (of the batch mean, in nats); None leaves gradients alone."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights that sampling and evaluation use, with a ramp (1 + n) / (10 + n); 0 turns it off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs networks under autocast; the bounds are always computed in fp32."""
    seed: int = Field(0, ge=0)
    """Every order, noise and time draw is a function of (seed, step, rank)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    devices: int = Field(1, ge=1)
    """Devices per node (processes, on CPU)."""
    nodes: int = Field(1, ge=1)
    """Nodes, as started by torchrun or SLURM."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """At most this much work is lost after kill -9."""
    log_every: int = Field(50, ge=1)
    """Steps between two log lines."""
    monitor_every: int = Field(500, ge=1)
    """Steps between two looks at validation data and at the signs of collapse and explosion."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the `track` extra)."""


def validated(kind: type[Config], values: dict[str, Any], where: str = "") -> Any:
    """`kind(**values)`, with pydantic's complaint turned into one sentence that names the key and the nearest known one.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, where)) from None


def explain(error: ValidationError, kind: type[BaseModel], where: str = "") -> str:
    """The first complaint of a pydantic error in one sentence."""
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    key = ".".join(([where] if where else []) + path)
    if first["type"] == "extra_forbidden":
        owner: Any = kind
        for p in path[:-1]:
            owner = owner.model_fields[p].annotation if p in getattr(owner, "model_fields", {}) else owner
        return f"Unknown key '{key}'.{did_you_mean(path[-1], getattr(owner, 'model_fields', {}))}"
    return f"'{key}' = {first.get('input')!r}: {first['msg'][0].lower() + first['msg'][1:]}."
