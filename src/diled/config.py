"""Configuration: pydantic types that hold values. No torch here, so the command line starts at once.

Each type is the one home of its defaults. An unknown key fails and names the nearest known one. Python composes
(`models/zoo.py`), configuration only says with which numbers.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from diled.errors import ConfigError, did_you_mean

__all__ = [
    "AugmentConfig",
    "Config",
    "DataSpec",
    "PoolConfig",
    "PreprocessConfig",
    "SequenceConfig",
    "TextConfig",
    "TrainingConfig",
    "validated",
]


class Config(BaseModel):
    """The base of every configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_nested_defaults(cls, values: Any) -> Any:
        """Overriding one value of a group keeps the others as this type sets them, not as the group's own type does."""
        if not isinstance(values, dict):
            return values
        merged = dict(values)
        for key, value in values.items():
            default = cls.model_fields[key].default if key in cls.model_fields else None
            if isinstance(value, dict) and isinstance(default, Config):
                merged[key] = default.overridden_by(value)
        return merged

    def overridden_by(self, values: dict[str, Any]) -> dict[str, Any]:
        """What this default sets, with `values` on top."""
        return self.model_dump(exclude_unset=True) | values


class DataSpec(Config):
    """What a model must know about its data: the kind, the shape and the measure that its bounds refer to."""

    kind: Literal["image", "signal", "vector", "protein", "text"]
    """`image`: (C, H, W); `signal`: (C, L); `vector`: (D,); `protein`: (L,), at most L symbols; `text`: (L,), at most L
    tokens."""
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
    """For images, Pillow's mode of the stored values: `L`, `RGB`, `RGBA`, `I;16`, `F`; None where there is no such mode
    (other numbers of channels, or a grey scale of its own such as 0 to 16)."""
    size_policy: Literal["exact", "crop", "pad", "border", "stretch"] = "exact"
    """How images of another size are brought to `shape`; `exact` refuses them."""
    labels: dict[str, list[str]] = Field(default_factory=dict)
    """Label columns, the chosen one first, and the names of their classes (empty list: real numbers)."""
    symbols: tuple[str, ...] = ()
    """Of sequences: what each whole number stands for; 0 is the end, and `levels` is their number."""
    background: str | None = None
    """Of sequences of which only some sites are modelled: the whole sequence."""
    sites: tuple[int, ...] = ()
    """The sites of `background` that are modelled, counted from 0."""
    aligned: bool = True
    """Of proteins: whether gaps stay in a sequence of the full length; not where training data of several lengths had theirs
    removed. Written only where it is false."""
    reading: dict[str, str] = Field(default_factory=dict)
    """What the user said of the training data's files, so that others are read alike: `column`, `id_column` and `padding` of
    sequences, `image_column` and `max_pixels`. Written only where there is something."""
    tokenizer: str | None = Field(None, repr=False)
    """Of text: the tokenizer, as JSON of the library `tokenizers`. Its token k is the whole number k + 1 here, so that 0 is
    free to be the end."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What all other data are said to be is as it was before there were these fields, and so are hashes of it."""
        values: dict[str, Any] = handler(self)
        usual = {"aligned": True, "reading": {}}
        return {key: value for key, value in values.items() if key not in usual or value != usual[key]}

    @property
    def sequential(self) -> bool:
        """Whether an example is a sequence of symbols."""
        return bool(self.symbols)

    @property
    def numel(self) -> int:
        """Number of dimensions of one example."""
        n = 1
        for s in self.shape:
            n *= s
        return n


class SequenceConfig(Config):
    """How sequences are found in files, cleaned and divided. Every default is 'as found'."""

    kind: Literal["auto", "protein", "text"] = "auto"
    """`auto` looks whether a file holds protein sequences or text; `protein` or `text` says so."""
    column: str | None = None
    """Column that holds the sequences; None looks for `sequence`, `seq`, `protein`, `CDR3`, `variant`, of text for `text`,
    `sentence` and the like, or the only one."""
    id_column: str | None = None
    """Column that names the records; None takes `id`, `name` or `accession` where there is one, else row numbers."""
    padding: str = "J."
    """Characters that only fill sequences up at their ends, and are taken away there."""
    max_length: int | None = Field(None, ge=1)
    """Most symbols of a sequence, where longer ones are refused; None: as many as the longest has."""
    sites: tuple[int, ...] = ()
    """Positions that are modelled, counted from 1; at all others the sequences must agree."""
    background: str | None = None
    """The whole sequence around `sites`, as residues or a FASTA file; None takes it from the sequences."""
    split: Literal["auto", "random", "column", "clusters", "mutations"] = "auto"
    """How sequences are divided. `auto`: by files or a column that says so, else at random; `clusters`: alike ones into one
    split; `mutations`: training has those with at most `max_mutations`, test those with more."""
    split_column: str | None = None
    """Column with `train`, `validation` (or `valid`, `val`, `dev`) and `test`; records without one are left out."""
    identity: float = Field(0.8, gt=0, le=1)
    """Share of equal positions from which two sequences are of one cluster."""
    max_mutations: int | None = Field(None, ge=0)
    """Most mutations of a training sequence, where `split` is `mutations`."""
    parent: str | None = None
    """What mutations are counted from; None: `background`, else the most frequent symbol at each position."""
    overlap: Literal["keep", "drop"] = "keep"
    """Whether sequences that occur in training as well stay in validation and test."""

    @field_validator("sites", mode="before")
    @classmethod
    def _one_site(cls, sites: Any) -> Any:
        """On a command line, or in a file, several are text and one is a number."""
        if isinstance(sites, str):
            return [part.strip() for part in sites.split(",") if part.strip()]
        return (sites,) if isinstance(sites, int) else sites

    @model_validator(mode="after")
    def _fits_together(self) -> SequenceConfig:
        if any(site < 1 for site in self.sites) or list(self.sites) != sorted(set(self.sites)):
            raise ValueError(f"'sites' = {self.sites}: positions count from 1, each once, in increasing order")
        residues = set("ACDEFGHIKLMNPQRSTVWY") & set(self.padding.upper())
        if residues:
            raise ValueError(f"'padding' = {self.padding}: {min(residues)} is an amino acid, and cannot be filling")
        if self.split == "mutations" and self.max_mutations is None:
            raise ValueError("'split' = mutations needs 'max_mutations', the most that training sequences may have")
        if self.split == "column" and self.split_column is None:
            raise ValueError("'split' = column needs 'split_column'")
        return self._nothing_ignored()

    def _nothing_ignored(self) -> SequenceConfig:
        changed = {key for key in self.model_fields_set if getattr(self, key) != type(self).model_fields[key].default}
        for key, why, needed in (
            ("background", "'sites'", bool(self.sites)),
            ("split_column", "'split' = auto or column", self.split in ("auto", "column")),
            ("identity", "'split' = clusters", self.split == "clusters"),
            ("max_mutations", "'split' = mutations", self.split == "mutations"),
            ("parent", "'split' = mutations", self.split == "mutations"),
            ("max_length", "sequences without 'sites'", not self.sites),
        ):
            if key in changed and not needed:
                raise ValueError(f"'{key}' has no effect here: it is for {why}")
        return self


class TextConfig(Config):
    """How text becomes tokens."""

    tokenizer: str | None = None
    """A tokenizer.json of the library `tokenizers`, or a folder with one, as Hugging Face models have, also `hub:owner/name`;
    None: byte-level BPE, trained on the training texts."""
    vocabulary: int = Field(8000, ge=256)
    """Most tokens of a tokenizer that is trained; the 256 bytes are always among them, so every text can be written."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> TextConfig:
        if self.tokenizer is not None and self.vocabulary != type(self).model_fields["vocabulary"].default:
            raise ValueError("'vocabulary' has no effect, since 'tokenizer' names one that is trained already")
        return self


class PreprocessConfig(Config):
    """How raw examples become a model's input. Every default is 'as found'."""

    size: int | tuple[int, int] | None = None
    """Height and width of the images; None keeps the size found (and asks where a folder has several)."""
    size_policy: Literal["exact", "crop", "pad", "border", "stretch"] = "crop"
    """Where `size` is given: `crop` resizes the shorter side and cuts the centre, `pad` fits inside and fills with zeros,
    `border` puts zeros around without resizing, `stretch` resizes each side, `exact` refuses images of another size."""
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    """`auto` keeps what the files have, and refuses a mixture."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Turn grey values into {-1, 1}: `dynamic` draws anew at each reading, `threshold` cuts at one half."""
    image_column: str = "image"
    """Column of a Parquet file that holds the images."""
    label_column: str | None = None
    """The label column that comes first; None takes `label` (class folders, or an array named `labels` or `y`) where there
    is one. Other columns are kept as further labels."""
    limit: int | None = Field(default=None, ge=2)
    """Use only this many examples of the training split, drawn with a fixed seed."""
    max_pixels: int = Field(default=64_000_000, ge=1)
    """Images with more pixels are refused as image bombs."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an unreadable file or record does: `stop` with its name, or `skip` it and say how many of how many."""
    validation_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the examples held out from training for model selection, where the data come without such a split. None is
    one tenth, and the customary 5,000 for mnist, fashion-mnist and cifar10."""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the examples held out for the final figures, where the data come without such a split."""
    sequence: SequenceConfig = SequenceConfig()
    """Of sequences: where they are, and how they are cleaned and divided."""
    text: TextConfig = TextConfig()
    """Of text: its tokenizer."""

    @field_validator("size")
    @classmethod
    def _positive(cls, size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        """A picture has at least one row and one column."""
        if size is not None and min((size,) if isinstance(size, int) else size) < 1:
            raise ValueError("a height and a width of at least 1 are needed")
        return size

    @model_validator(mode="after")
    def _nothing_ignored(self) -> PreprocessConfig:
        if self.size is None and self.size_policy != type(self).model_fields["size_policy"].default:
            raise ValueError("'size_policy' has no effect without 'size', the height and width of the images")
        return self


class PoolConfig(Config):
    """What is trained on in place of, or beside, the real training examples; validation and test data stay the real ones.

    Reference: Xiao et al. 2024 (arXiv 2310.19653), Algorithm 2.
    """

    source: str | None = None
    """Folder of a synthetic training set, as `diled synthesize` writes it."""
    fresh: str | None = None
    """A run whose model draws new examples while this one trains, without end."""
    folds: int | None = Field(None, ge=1)
    """k: only the first k N examples of `source`, where N is the number of real training examples; None: all of them."""
    real: float = Field(0.0, ge=0, lt=1)
    """Share of each batch that is real."""
    keep: bool = False
    """Train on the union of the real and the synthetic examples."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> PoolConfig:
        if self.source is not None and self.fresh is not None:
            raise ValueError("'source' is a pool that exists and 'fresh' draws a new one: give one of them")
        if self.source is None:
            for key in ("folds", "keep"):
                if getattr(self, key):
                    raise ValueError(f"'{key}' has no effect without 'source', the folder of a synthetic set")
            if self.real and self.fresh is None:
                raise ValueError("'real' has no effect without 'source' or 'fresh': all examples are real")
        if self.keep and self.real:
            raise ValueError("'keep' takes each example equally often and 'real' sets the share: give one of them")
        return self


Flip = Literal["off", "on", "always"]


class AugmentConfig(Config):
    """Random changes of training images, each with a probability of its own; None: as `training.augment` has it.

    Reference: Xiao et al. 2024 (arXiv 2310.19653), appendix E; Karras et al. 2020 (arXiv 2006.06676), appendix B.
    """

    probability: float = Field(0.1, gt=0, le=1)
    """With which each change is made, independently of the others."""
    border: Literal["auto", "reflection", "zeros"] = "auto"
    """What comes in from outside. `auto`: zeros (black) for one channel, else the mirrored image."""
    horizontal_flip: Flip | None = None
    """`on`: with that probability a coin decides; `always`: it decides for every image."""
    vertical_flip: Flip | None = None
    """Upside down, likewise."""
    translation: int | None = Field(None, ge=0)
    """Largest shift along x and along y, in whole pixels."""
    scale: float | None = Field(None, ge=0)
    """s: sizes from 2^-s to 2^s."""
    rotation: float | None = Field(None, ge=0, le=360)
    """Largest angle, in degrees."""
    stretch: float | None = Field(None, ge=0)
    """s: width by up to 2^s and height by its inverse, or the other way round."""
    stretch_turned: float | None = Field(None, ge=0, le=1)
    """Share of the stretches that are along another axis than x and y."""
    brightness: float | None = Field(None, ge=0)
    """Largest shift of the values, in units of the range [-1, 1]."""
    contrast: float | None = Field(None, ge=0)
    """s: distances from middle grey times 2^-s to 2^s."""
    hue: float | None = Field(None, ge=0, le=360)
    """Largest turn of the colours about the grey axis, in degrees."""
    saturation: float | None = Field(None, ge=0)
    """s: distances from the grey axis times 2^-s to 2^s."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> AugmentConfig:
        if self.stretch == 0 and self.stretch_turned:
            raise ValueError("'stretch_turned' has no effect, since stretch is 0")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The changes that are named here."""
        return {k: v for k, v in self.model_dump(exclude={"probability", "border"}).items() if v is not None}


class TrainingConfig(Config):
    """How a density is trained. The same for every model, so that comparisons are on equal terms."""

    steps: int = Field(2500, ge=1)
    """Optimiser steps in all, over all stages."""
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    """In place of `steps`: so many times as many examples are seen as there are real training examples."""
    batch_size: int = Field(128, ge=1)
    """Examples per optimiser step and device."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimiser step; the effective batch is `batch_size` x `accumulate` x devices."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(200, ge=0)
    """Linear learning-rate warm-up (at most a tenth of a stage)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate after its warm-up: half a cosine to zero, or constant."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's averaging coefficients."""
    clip: float | None = Field(200.0, gt=0)
    """Largest gradient norm (of the batch mean, in nats); None leaves gradients alone."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights that sampling and evaluation use, with a ramp (1 + n) / (10 + n); 0 turns it off."""
    keep: Literal["last", "best"] = "last"
    """Which (averaged) weights each stage ends on: the `last`, or those of the look at validation data with the `best`
    bound (early stopping), every `monitor_every` steps."""
    augment: Literal["none", "naive", "tuned"] = "none"
    """Random changes of the training images: `naive` is every kind at once, `tuned` suits the data (shifts, small turns and
    scales for grey images; flips, scales and all turns for colour)."""
    augment_values: AugmentConfig = AugmentConfig()
    """Changes of that policy; with `none`, exactly those that are named here."""
    mollify: float = Field(0.0, ge=0, le=1)
    """Standard deviation of noise on the training data, in units of the range [-1, 1], at the start; it falls to 0 over the
    first half of the training. 1 is pure noise at first, as published."""
    input_noise: float = Field(0.0, ge=0)
    """Standard deviation of noise on what the encoder sees while it trains, in units of the range [-1, 1]; the decoder
    learns the clean x."""
    corruption: float = Field(0.0, ge=0, lt=1)
    """Share of the values that are hidden from the encoder while it trains, whereas the decoder learns the clean x: numbers are
    0 there, and in the place of a symbol of a sequence one is drawn uniformly. Alike inputs come to lie together."""
    half_asleep: float = Field(0.0, ge=0, lt=1)
    """Share of the steps, at the end, in which only the encoder trains, on samples of the model itself (RHA)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs networks under autocast; the bounds are always computed in fp32. A device without instructions for it, such
    as a processor without AVX-512, would take many times as long, so there networks run in fp32, and the training says so."""
    compile: bool = False
    """Let `torch.compile` fuse the computations of a step: the same draws and the same results up to rounding. It takes from
    half a minute to a few minutes first, and needs a C++ compiler (on a GPU Triton)."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Every order, noise and time draw is a function of (seed, step, rank)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto` takes CUDA, else the CPU: Apple's MPS has to be named."""
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

    @model_validator(mode="after")
    def _nothing_ignored(self) -> TrainingConfig:
        if self.epochs is not None and "steps" in self.model_fields_set:
            raise ValueError("'epochs' sets the number of steps: leave out 'steps' or 'epochs'")
        values = self.augment_values
        if self.augment == "none" and not values.changes and values.model_fields_set:
            key = sorted(values.model_fields_set)[0]
            if getattr(values, key) != AugmentConfig.model_fields[key].default:
                raise ValueError(f"'augment_values.{key}' has no effect: choose 'augment', or name a change")
        return self


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
    owner: Any = kind
    path: list[str] = []
    for part in map(str, first["loc"]):  # to the field; what follows says which member of a union, or which number
        fields = getattr(owner, "model_fields", {})
        if part not in fields and first["type"] != "extra_forbidden":
            break
        path.append(part)
        if part in fields:
            owner = fields[part].annotation
    key = ".".join([*([where] if where else []), *path])
    if first["type"] == "extra_forbidden":
        return f"Unknown key '{key}'.{did_you_mean(path[-1], getattr(owner, 'model_fields', {}))}"
    said = first["msg"].removeprefix("Value error, ").split(", unable to parse")[0].rstrip(".")
    value = first.get("input")
    if isinstance(value, dict):
        return f"{key}: {said}." if key else f"{said[:1].upper()}{said[1:]}."
    if not said.startswith("Input "):
        return f"'{key}' = {value}: {said[:1].lower()}{said[1:]}."
    near = did_you_mean(str(value), re.findall(r"'([^']*)'", said)) if first["type"] == "literal_error" else ""
    return f"'{key}' = {value} {said.removeprefix('Input ')}.{near if near.startswith(' Did') else ''}"
