"""Other people's autoencoders behind the contract of ours: an encoder, a decoder and a prior.

    -log p(x) <= E_{z ~ q(z|x)} [ -log p(x|z) ] + KL(q(z|x) || p(z)),      codes flattened to (B, D)

A decoder that returns means only, mu(z), says nothing of p(x | z). It is taken for a Gaussian of one standard deviation,
rounded to the grey values of the data, whose best value on training images has a closed form (Rybkin et al. 2021, Eq. 6):

    std^2 = 1/(N D) sum_n E_{z ~ q(z|x_n)} || x_n - mu(z) ||^2

The model is used as it is: in evaluation mode, with fixed weights. What had to be assumed is said in its notes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Density, total
from diled.config import DataSpec
from diled.distributions import Dirac, Normal
from diled.draws import seeded
from diled.errors import DataError, ModelError, NoBound, did_you_mean
from diled.hub import AUTOENCODER, PREFIX, fetched, on_hub
from diled.models.adapter import Adapter, AdapterDecoder, AdapterEncoder, Means, described, modules_of
from diled.models.autoencoder import Autoencoder
from diled.models.priors import StandardNormal

__all__ = ["Foreign", "check_source", "from_diffusers", "from_function", "load_foreign"]

NOTES_OF_DIFFUSERS = (
    "codes: those that the model's own pipelines hand to their diffusion, (latent - shift) * scale",
    "prior: N(0, I); such a model is meant for a diffusion over its codes and pays hardly for its rate, which is high here",
)
"""What holds for every `AutoencoderKL`."""


@dataclass(frozen=True)
class Foreign:
    """Somebody's autoencoder.

    Args:
        density: it behind our contract: codes (B, D), images in [-1, 1], terms in nats.
        name: for tables.
        notes: what was assumed, one sentence each.
        identity: SHA-256 of its weights, configuration and source file, in hexadecimal digits; of what a function returns
            also of the function's name and of what it makes of a few fixed examples.
        std: of the Gaussian around decoded pictures, in units of the range [-1, 1]; None: not fitted, or not needed.
    """

    density: Autoencoder
    name: str
    notes: tuple[str, ...]
    identity: str
    std: float | None = None

    def fit(self, x: Tensor, *, batch_size: int = 64, seed: int = 0) -> Foreign:
        """The same with what it leaves open settled on training images: the range of its grey values, and `std`.

            std^2 = 1/(N D) sum_n E_{z ~ q(z|x_n)} || x_n - mu(z) ||^2

        The range is the one that reconstructs x better. What the model says itself stays as it is.

        Args:
            x: training images in model space, (N, *shape).
            batch_size: images at a time, at most 64; the result does not depend on it.
            seed: of the codes, one draw for each image.

        Raises:
            DataError: there are no images, or they have another shape.

        Reference: Rybkin, Daniilidis & Levine 2021, Eq. 6.
        """
        adapter: Adapter = self.density.encoder.adapter
        if tuple(x.shape[1:]) != adapter.spec.shape or not len(x):
            raise DataError(f"fit needs images of shape {adapter.spec.shape}, got {tuple(x.shape)}.")
        adapter, notes = adapter.with_range(x[:256], "training images", batch_size, seed)
        std = None
        if adapter.returns_means(x[:1]):
            std = max(math.sqrt(adapter.squared_error(x, batch_size, seed)), adapter.smallest_std)
            notes.append(adapter.std_note(std, len(x)))
        density = _autoencoder(adapter.changed(std=std), self.density.prior)
        return replace(self, density=density, notes=self._kept(notes), std=std)

    def _kept(self, notes: list[str]) -> tuple[str, ...]:
        """The notes, less those that the new ones replace."""
        openings = {note.split(":")[0] for note in notes}
        return (*(note for note in self.notes if note.split(":")[0] not in openings), *notes)


def load_foreign(source: str, spec: DataSpec, device: str = "cpu", *, search_path: str | Path | None = None) -> Foreign:
    """Somebody's autoencoder from where it lies: a diffusers folder, here or on the Hub, or `module:function`.

    Args:
        source: a folder of an `AutoencoderKL` (or of a pipeline that has one in `vae`), `hub:owner/name`, or
            `module:function`.
        spec: of the data that it is to be used on.
        device: where it computes.
        search_path: where modules are looked for first; None: the current folder.

    Raises:
        ModelError: neither; or what `from_diffusers` and `from_function` raise.
    """
    check_source(source)
    if Path(source).is_dir() or on_hub(source):
        return from_diffusers(source, spec, device)
    return from_function(source, spec, device, search_path=search_path)


def check_source(source: str) -> None:
    """Whether this may be a model: a folder that there is, or, where there is no such path, anything with a colon.

    Args:
        source: a folder, or `module:function`.

    Raises:
        ModelError: it is a file, or there is no such folder.
    """
    path = Path(source)
    if path.is_dir() or (":" in source and not path.exists()):
        return
    if path.exists():
        raise ModelError(f"{source} is a file, and a model is a folder: of a run, or of a diffusers AutoencoderKL.")
    folder = path.parent
    beside = [p.name for p in folder.iterdir() if (p / "config.json").exists()] if folder.is_dir() else []
    near, on = did_you_mean(path.name, beside), source.count("/") == 1 and "." not in source.split("/")[0]
    hub = f" One on the Hugging Face Hub is named {PREFIX}{source}." if on and not near and not folder.is_dir() else ""
    raise ModelError(f"There is no run folder {source}.{near}{hub}")


def from_diffusers(folder: str | Path, spec: DataSpec, device: str = "cpu") -> Foreign:
    """The `AutoencoderKL` of a diffusers folder; only safetensors are read.

    Its code is what the model's own pipelines hand to their diffusion, (latent - shift) * scale, channel by channel and
    flattened to (B, C h w). Its decoder returns pictures only: call `fit`.

    Args:
        folder: with `config.json` and `diffusion_pytorch_model.safetensors`, or one that has these in `vae`; or
            `hub:owner/name`, of which this much is fetched.
        spec: of the data; as many channels as the model's.
        device: where it computes.

    Raises:
        ModelError: diffusers is missing, the folder is no such model, its weights are incomplete or pickles, or it does not fit
            the data.

    Reference: Rombach et al. 2022.
    """
    name, folder = str(folder), fetched(folder, AUTOENCODER, ModelError)
    place = folder / "vae" if (folder / "model_index.json").is_file() else folder
    if not place.is_dir():
        raise ModelError(
            f"{folder} is a pipeline without an autoencoder (it has no folder 'vae'), so there is nothing to audit. Give an "
            "AutoencoderKL, or a pipeline that has one."
        )
    model = _Diffusers(_read_diffusers(place))
    if model.channels != spec.shape[0]:
        raise ModelError(
            f"{place} reads images of {model.channels} channels, and the data are {spec.shape}: "
            "see --preprocess.channels."
        )
    digest = _hash(_weights(model), (place / "config.json").read_bytes())
    return _foreign(model, name, spec, device, digest, list(NOTES_OF_DIFFUSERS))


def from_function(
    source: str, spec: DataSpec, device: str = "cpu", *, search_path: str | Path | None = None
) -> Foreign:
    """What `module:function` returns: anything with the methods `encode` and `decode`.

    `encode(x)` returns a Gaussian over codes: a `torch.distributions.Normal` (also inside `Independent`), our `Normal`, an
    object with `mean` and one of `logvar`, `log_var`, `std` and `stddev` (also as `.latent_dist`), or a tuple (mean,
    log-variance). `decode(z)` returns a `torch.distributions.Normal` or `Bernoulli`, one of our distributions (in [-1, 1]), or
    a tensor of the data's shape (also as `.sample`): logits for binary data, means for others. Optional attributes:

        range          (low, high) of the grey values that it reads and writes; without it (-1, 1) or (0, 1) is found out
        logits         whether a tensor from `decode` holds logits; without it, for binary data only
        deterministic  True where `encode` returns a tensor, the code itself: there is no bound then
        latent_shape   of the codes that `decode` reads; without it, that of what `encode` returns
        prior          a `diled.Density` over flattened codes (B, D); without it N(0, I)
        name           for tables

    `eval()` and `to(device)` are called where there are any. The module is imported, so its code runs.

    Args:
        source: `package.module:function`; the function is called without arguments.
        spec: of the data.
        device: where it computes.
        search_path: where the module is looked for first; None: the current folder.

    Raises:
        ModelError: it cannot be imported or called, or returns something else.
    """
    made, code = _call(source, Path.cwd() if search_path is None else Path(search_path))
    for method in ("encode", "decode"):
        if not callable(getattr(made, method, None)):
            raise ModelError(f"{source} returned {described(made)}, which has no method '{method}'.")
    weights = _weights(made)
    notes = []
    if not weights:
        notes.append(
            "identity: no weights were found on what was returned, so it is that of the source file and of what the model "
            "makes of a few examples"
        )
    foreign = _foreign(made, source, spec, device, "", notes)
    weights |= _outputs(foreign.density, spec, device)
    return replace(foreign, identity=_hash(weights, f"{source}\n".encode() + code))


def _autoencoder(adapter: Adapter, prior: Density) -> Autoencoder:
    return Autoencoder(AdapterEncoder(adapter), AdapterDecoder(adapter), prior).eval()


def _foreign(model: Any, source: str, spec: DataSpec, device: str, identity: str, notes: list[str]) -> Foreign:
    """A model behind our contract, after a look at what it returns for three black images."""
    if callable(getattr(model, "to", None)):
        moved = model.to(device)
        model = model if moved is None else moved
    if callable(getattr(model, "eval", None)):
        model.eval()
    for part in modules_of(model).values():
        part.eval().requires_grad_(False)
    adapter = Adapter(model, source, spec, device)
    black = torch.full((3, *spec.shape), -1.0, device=device)
    with torch.no_grad(), seeded(0):
        code = adapter.posterior(black).mean
        if code.ndim < 2 or len(code) != len(black) or not bool(torch.isfinite(code).all()):
            raise ModelError(f"{source}: encode returned no finite codes, one for each image, but {tuple(code.shape)}.")
        adapter.latent_shape = tuple(getattr(model, "latent_shape", None) or code.shape[1:])
        if math.prod(adapter.latent_shape) != code[0].numel():
            raise ModelError(
                f"{source}: latent_shape {adapter.latent_shape} does not hold the codes {tuple(code.shape[1:])} of encode."
            )
        adapter, found = adapter.with_range(black, "black images")
        raw = adapter.raw(code.flatten(1))
        _refuse_probabilities(adapter, raw)
        likelihood = adapter.likelihood(code.flatten(1))
        if not bool(torch.isfinite(likelihood.mean).all()):
            raise ModelError(f"{source}: decode returned NaN or infinite values for the codes of black images.")
        prior = _prior(model, adapter.flat(black), source).to(device)
    if not any(note.startswith("prior:") for note in notes) and getattr(model, "prior", None) is None:
        found.append("prior: N(0, I), since the model declares none")
    if isinstance(raw, torch.distributions.Normal) and spec.levels is not None:
        found.append(f"likelihood: its Gaussian is rounded to the {spec.levels} grey values of the data")
    if isinstance(likelihood, Means):
        found.append("likelihood: decode returns pictures only, so there is no bound before `fit`")
    name = str(getattr(model, "name", None) or source)
    return Foreign(_autoencoder(adapter, prior), name, (*notes, *found), identity)


def _refuse_probabilities(adapter: Adapter, values: Any) -> None:
    """Probabilities that would be taken for logits."""
    if not isinstance(values, Tensor) or not adapter.logits or getattr(adapter.model, "logits", None) is not None:
        return
    low, high = (float(v) for v in torch.aminmax(values))
    if low >= 0 and 0 < high <= 1:
        raise ModelError(
            f"{adapter.source}: decode returned values from {low:.3g} to {high:.3g} for binary data, taken for logits. "
            "Set the attribute `logits` to False where they are probabilities, to True where they are logits."
        )


def _prior(model: Any, q: Normal | Dirac, source: str) -> Density:
    """The model's own prior, or N(0, I)."""
    prior = getattr(model, "prior", None)
    if prior is None:
        return StandardNormal(tuple(q.mean.shape[1:]))
    if not isinstance(prior, Density):
        raise ModelError(
            f"{source}: the attribute `prior` must be a diled.Density over flattened codes, not {described(prior)}."
        )
    try:
        total(prior.terms(q))
    except Exception as error:
        raise ModelError(
            f"{source}: the prior does not take codes (B, {q.mean.shape[1]}): {type(error).__name__}: {error}"
        ) from error
    return prior


# Where it lies --------------------------------------------------------------------------------------------------------


class _Diffusers(nn.Module):
    """An `AutoencoderKL` with the codes of its pipelines: (latent - shift) * scale for each channel."""

    shift: Tensor
    factor: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, config = vae, vae.config
        self.channels, self.range, self.logits = config.in_channels, (-1.0, 1.0), False
        mean, std = config.get("latents_mean"), config.get("latents_std")
        own = mean is not None and std is not None
        shift = mean if own else [config.get("shift_factor") or 0.0]
        self.register_buffer("shift", torch.tensor(shift).reshape(1, -1, 1, 1))
        self.register_buffer("factor", config.scaling_factor / torch.tensor(std if own else [1.0]).reshape(1, -1, 1, 1))

    def encode(self, x: Tensor) -> Normal:
        """x (B, C, H, W) in [-1, 1] -> q over codes (B, c, h, w)."""
        q = self.vae.encode(x).latent_dist
        return Normal(q.mean, q.logvar).affine(self.factor, -self.factor * self.shift)

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, c, h, w) -> pictures (B, C, H, W) in about [-1, 1]."""
        return self.vae.decode(z / self.factor + self.shift).sample


def _read_diffusers(folder: Path) -> Any:
    """The `AutoencoderKL` of a folder, complete and on the CPU."""
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise ModelError(f"{folder}: reading a diffusers model needs diffusers: pip install 'diled[image]'.") from None
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} is no diffusers model: its config.json cannot be read ({error}).") from None
    if kind != "AutoencoderKL":
        raise ModelError(f"{folder} holds a diffusers model of the class {kind}, and only AutoencoderKL is read.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has no safetensors file; pickles are not opened. Save it with safe_serialization=True."
        )
    try:
        vae, loading = AutoencoderKL.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, torch_dtype=torch.float32, low_cpu_mem_usage=False,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # whatever diffusers makes of a damaged file
        raise ModelError(f"{folder} cannot be read: {type(error).__name__}: {error}") from None
    if loading["missing_keys"]:
        raise ModelError(f"The weights in {folder} are incomplete: '{loading['missing_keys'][0]}' is missing.")
    return vae


def _call(source: str, search_path: Path) -> tuple[Any, bytes]:
    """What `module:function` returns, and the module's source."""
    module_name, _, name = source.partition(":")
    if not module_name or not name:
        raise ModelError(f"'{source}' must have the form module:function.")
    _refuse_another_of_that_name(module_name.partition(".")[0], search_path)
    with _looked_for_in(search_path), seeded(0):
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise ModelError(
                f"{source}: importing {module_name} (from {search_path}, or as installed) raised "
                f"{type(error).__name__}: {error}"
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise ModelError(f"{source}: {module_name} has no function '{name}'.{did_you_mean(name, known)}")
        try:
            made = function()
        except Exception as error:
            raise ModelError(f"{source} raised {type(error).__name__} when called: {error}") from error
    path = getattr(module, "__file__", None)
    return made, Path(path).read_bytes() if path else b""


@contextmanager
def _looked_for_in(folder: Path) -> Iterator[None]:
    """Within the block modules are looked for in this folder first."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _refuse_another_of_that_name(name: str, folder: Path) -> None:
    """Python would silently take a module that it has imported before."""
    importlib.invalidate_caches()
    here = PathFinder.find_spec(name, [str(folder.resolve())])
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if here is not None and here.origin is not None and loaded is not None and not Path(loaded).samefile(here.origin):
        raise ModelError(f"{here.origin} cannot be imported: a module '{name}' already is, from {loaded}. Rename it.")


def _weights(model: Any) -> dict[str, Tensor]:
    """All parameters and buffers of a model's torch modules, and tensors among its attributes."""
    found = {name: value for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, Tensor)}
    for prefix, module in modules_of(model).items():
        found |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    return found


@torch.no_grad()
def _outputs(density: Autoencoder, spec: DataSpec, device: str) -> dict[str, Tensor]:
    """What a model makes of a few fixed examples: this tells apart what neither weights nor source file do."""
    u, levels = torch.rand((4, *spec.shape), generator=torch.Generator().manual_seed(0)), spec.levels
    x = (2 * u - 1 if levels is None else 2 * (u * (levels - 1)).round() / (levels - 1) - 1).to(device)
    with seeded(0):
        q = density.encoder(x)
        p = density.decoder(q.mean)
        found = {"mean": q.mean, "decoded": p.mean} | density.prior.terms(q)
        if isinstance(q, Normal):
            found["log_var"] = q.log_var
        with suppress(NoBound):
            found["nll"] = p.nll(x)
    return {f"output {name}": value for name, value in found.items()}


def _hash(weights: dict[str, Tensor], more: bytes) -> str:
    """SHA-256 of names, types, shapes and values of the weights, and of what else makes the model."""
    digest = hashlib.sha256(more)
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
