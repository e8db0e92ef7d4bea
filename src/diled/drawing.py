"""What synthetic samples are drawn from: one of our models, or an unconditional pixel pipeline of diffusers.

    draw(start, rows, seed) -> rows samples, from number `start` on

Sample i is drawn from noise that depends on (seed, i) alone. The samples of a batch are computed together, in multiples of
64 from a multiple of 64 on: another batch size changes the rounding of sums, nothing else.

Reference of the pipelines: Ho et al. 2020, Algorithm 2; Song et al. 2021, Eq. 12.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from diled.api import computed_in
from diled.arguments import model_of
from diled.config import DataSpec
from diled.data import from_model
from diled.draws import BLOCK, seed_from
from diled.errors import ConfigError, ModelError, did_you_mean
from diled.hub import SOURCE, fetched, on_hub
from diled.model import Model, choose_device
from diled.models.sampling import BATCH, described, sample_batches, takes_mean

__all__ = ["Dtype", "Source", "is_pipeline", "source_of"]

PIPELINES = ("DDIMPipeline", "DDPMPipeline")
"""Pipelines of diffusers that can be drawn from."""

SCHEDULERS = {
    "ancestral": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm_solver": "DPMSolverMultistepScheduler",
}
"""Our names of samplers -> those of diffusers."""

Dtype = Literal["fp32", "bf16"]
"""In which networks compute; `bf16` runs them under autocast where the device has instructions for it, else in fp32."""


@dataclass(frozen=True, eq=False)
class Source:
    """What samples are drawn from.

    Args:
        kind: `run` or `diffusers`.
        name: of the folder or the model.
        spec: of the samples.
        network: whose layout in memory may be changed while it draws.
        device: where it computes.
        settings: what the samples depend on beside seed and number.
        draw: (start, rows, seed) -> rows samples in model space (rows, *shape), from number `start` on, both multiples of
            64.
    """

    kind: str
    name: str
    spec: DataSpec
    network: nn.Module
    device: torch.device
    settings: dict[str, Any]
    draw: Callable[[int, int, int], Tensor]

    @property
    def named(self) -> dict[str, str]:
        """Kind and name, for the manifest."""
        return {"kind": self.kind, "name": self.name}

    @property
    def convolves(self) -> bool:
        """Whether there are convolutions of pictures in it."""
        return any(isinstance(part, nn.Conv2d) for part in self.network.modules())

    @property
    def batch(self) -> int:
        """Samples that are best computed at once.

        On a processor, pictures are convolved few at a time: those of larger batches leave its caches, which takes about a
        tenth more time, and much more memory.
        """
        if self.device.type == "cuda":
            return 4 * BATCH
        return BLOCK if self.convolves else BATCH

    def values(self, start: int, stop: int, seed: int, batch: int | None = None) -> Iterator[np.ndarray]:
        """The raw values of the samples `start` to `stop` - 1, batch after batch."""
        batch = self.batch if batch is None else batch
        end = -(-stop // BLOCK) * BLOCK
        for at in range(start // BLOCK * BLOCK, end, batch):
            rows = min(batch, end - at)
            enabled = self.settings["dtype"] == "bf16"
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
                x = self.draw(at, rows, seed).float().cpu().numpy()
            yield from_model(x[max(start - at, 0) : stop - at], self.spec)


def is_pipeline(folder: Path) -> bool:
    """Whether this is the folder of a diffusers pipeline."""
    return (folder / "model_index.json").exists()


def source_of(
    source: str | Path | Model,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    draw: bool = False,
    dtype: Dtype = "fp32",
    device: str = "auto",
) -> Source:
    """What is drawn from, and how. Arguments and errors as for `synthesize`."""
    if dtype not in ("fp32", "bf16"):
        raise ConfigError(f"dtype '{dtype}' is unknown. Known: fp32, bf16.")
    if sampler is not None and sampler not in SCHEDULERS:
        known = f" Known: {', '.join(SCHEDULERS)}."
        near = did_you_mean(sampler, SCHEDULERS)
        raise ConfigError(
            f"sampler '{sampler}' is unknown.{near if near.startswith(' Did') else ''}{known} The number of steps is given "
            "apart, with --steps. Leave --sampler out for the model's own."
        )
    if on_hub(source):
        settings: dict[str, Any] = {"steps": steps, "sampler": sampler, "draw": draw, "dtype": dtype, "device": device}
        return replace(source_of(fetched(str(source), SOURCE, ModelError), **settings), name=str(source))
    if not isinstance(source, Model) and is_pipeline(Path(source)):
        if draw:
            raise ConfigError("draw has no meaning for a diffusers pipeline: its samples are what its last step says.")
        return _pipeline(Path(source), steps, sampler, dtype, choose_device(device))
    return _run(source, steps, sampler, draw, dtype, device)


def _run(
    source: str | Path | Model, steps: int | None, sampler: str | None, draw: bool, dtype: Dtype, device: str
) -> Source:
    """One of our runs, or a model in memory, where it is."""
    model = model_of(source, device)
    density = model.density
    values = None if model.config is None else model.config.model_dump(mode="json")
    settings = {
        "weights": _sha256(_safetensors(density)),
        "config": _sha256({"model": model.name, "config": values, "data": model.spec.model_dump(mode="json")}),
        "sampler": described(density, steps=steps, sampler=sampler) or "none",
        "values": "draws" if draw or not takes_mean(density) else "means",
        "dtype": computed_in(dtype, model.device.type),
    }

    def drawn(start: int, rows: int, seed: int) -> Tensor:
        options: dict[str, Any] = {"steps": steps, "sampler": sampler, "seed": seed, "mean": not draw}
        return next(sample_batches(density, rows, start=start, batch=rows, **options))

    name = (model.name or type(density).__name__) if isinstance(source, Model) else Path(source).resolve().name
    return Source("run", name, model.spec, density, model.device, settings, drawn)


def _pipeline(folder: Path, steps: int | None, sampler: str | None, dtype: Dtype, device: torch.device) -> Source:
    """An unconditional pixel pipeline of diffusers: a UNet2DModel and a scheduler, in folders of their own or, as older ones
    are, beside the index. Nothing is unpickled.

    Sample i draws all its noise from a generator of its own, so the images are those of the pipeline called with
    `generator=[torch.Generator().manual_seed(seed_from(seed, i)), ...]`.
    """
    diffusers = _diffusers()
    index = _json(folder / "model_index.json")
    kind = index.get("_class_name")
    unet = (folder / "unet" if (folder / "unet").is_dir() else folder) / "diffusion_pytorch_model.safetensors"
    if kind not in PIPELINES or index.get("unet") != ["diffusers", "UNet2DModel"]:
        raise ModelError(
            f"{folder} is a {kind} of diffusers: read are {' and '.join(PIPELINES)} with a UNet2DModel, which draw images "
            "without a condition."
        )
    if not unet.exists():
        raise ModelError(f"{folder} has no {unet.relative_to(folder)}; pickles are not opened. Save it as safetensors.")
    beside = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    config = _json(beside / "scheduler_config.json")
    own = "DDIMScheduler" if kind == "DDIMPipeline" else str(index.get("scheduler", ["", ""])[-1])
    name, scheduler, taken = _scheduler(folder, own, config, steps, sampler)
    try:
        options = {"local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": False}  # needs accelerate
        network = diffusers.UNet2DModel.from_pretrained(unet.parent, **options)
    except Exception as error:  # of safetensors, of torch and of diffusers
        raise ModelError(f"The network in {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    network = network.to(device).eval()
    settings = {
        "weights": _sha256(unet.read_bytes()),
        "config": _sha256({"unet": _json(unet.parent / "config.json"), "scheduler": config}),
        "sampler": f"{name}, {taken} steps",
        "values": "draws",
        "dtype": computed_in(dtype, device.type),
    }
    spec = _pipeline_spec(folder, network.config)
    draw = _denoising(network, scheduler, taken, spec.shape, device)
    return Source("diffusers", folder.resolve().name, spec, network, device, settings, draw)


def _scheduler(
    folder: Path, own: str, config: dict[str, Any], steps: int | None, sampler: str | None
) -> tuple[str, Any, int]:
    """Name, scheduler and number of steps: the pipeline's own, or the sampler that was asked for, on the same noise levels."""
    diffusers = _diffusers()
    if steps is not None and steps < 1:
        raise ConfigError(f"steps = {steps}: a sampler takes at least one.")
    name = own if sampler is None else SCHEDULERS[sampler]
    if not name.endswith("Scheduler") or not hasattr(diffusers, name):
        raise ModelError(f"{folder} has the scheduler '{name}', which this version of diffusers does not know.")
    try:
        scheduler = getattr(diffusers, name).from_config(config)
        most = scheduler.config.num_train_timesteps
        taken = steps or (most if name == "DDPMScheduler" else min(50, most))
        scheduler.set_timesteps(taken)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"The scheduler {name} of {folder} cannot be used: {str(error).splitlines()[0]} Choose other --steps, or another "
            "--sampler."
        ) from None
    return name, scheduler, taken


def _denoising(
    network: Any, scheduler: Any, steps: int, shape: tuple[int, ...], device: torch.device
) -> Callable[[int, int, int], Tensor]:
    """(start, rows, seed) -> images in [-1, 1]: the loop that the pipelines of diffusers share."""
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters

    def drawn(start: int, rows: int, seed: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed_from(seed, i)) for i in range(start, start + rows)]
        noise: dict[str, Any] = {"generator": generators} if takes_noise else {}
        scheduler.set_timesteps(steps, device=device)
        x = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t).sample.float()
            x = scheduler.step(output, t, x, **noise).prev_sample
        return x.clamp(-1, 1)

    return drawn


def _pipeline_spec(folder: Path, config: Any) -> DataSpec:
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else (size or (0, 0))
    mode = {1: "L", 3: "RGB"}.get(config.out_channels)
    if mode is None or not height or config.in_channels != config.out_channels:
        raise ModelError(
            f"The network in {folder} draws {config.out_channels} channels of size {size}: 1 (grey) or 3 (RGB) are read."
        )
    return DataSpec(kind="image", shape=(config.out_channels, height, width), levels=256, mode=mode)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError:
        raise ModelError("To draw from a diffusers pipeline: pip install 'diled[image]'.") from None
    return diffusers


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): copy the pipeline's folder again.") from None


def _safetensors(network: nn.Module) -> bytes:
    """The weights as `model.safetensors` holds them, so that both have one hash."""
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in network.state_dict().items()}
    content: bytes = save(tensors, metadata={"format": "pt"})
    return content


def _sha256(content: bytes | dict[str, Any]) -> str:
    plain = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(plain).hexdigest()
