"""A trained model in a user's hands: examples in, NumPy arrays out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diled.api import Density, choose_device
from diled.config import DataSpec
from diled.data import from_model, read_examples, to_strings
from diled.draws import BlockNoise, seed_from, seeded
from diled.errors import ConfigError, ModelError
from diled.family import ModelConfig
from diled.hub import PREFIX, SOURCE, fetched, library, on_hub
from diled.latent.interpolate import between
from diled.models.autoregressive import written_with
from diled.models.io import load_model, save_model
from diled.models.sampling import BATCH, sample_batches
from diled.progress import Report, progress_bar
from diled.space import log_unit, raw_tensor, to_space

__all__ = ["Model", "choose_device", "load"]

PRIVATE = ("command", "data", "preprocess")
"""What of the provenance stays at home when a model is published: it may name local folders."""
FOLDERS, UNPUBLISHED = ("folder", "decoder_folder"), "unpublished"
"""What of `network` names folders of pretrained parts, and what is published in place of one that is not on the Hub; the model
needs it no more."""


class Model:
    """Encode, decode, sample, reconstruct, interpolate and bound.

    Args:
        density: an `Autoencoder`, or any `Density` (then only `sample` and `bound` work).
        spec: what its data are.
        name, config: of the zoo; None for a hand-composed model.
        device: where to compute.
        provenance: how it was made.

    Examples of `inputs` below: a path, a folder, a Pillow image, a protein sequence or a text, an array of one or many
    examples in raw values, or a list of these. What comes back in data space are raw values (uint8 grey values for 8-bit
    images; rows of numbers for sequences, which `strings` writes out).

    Example:
        >>> model = diled.load("runs/digits-diled")
        >>> codes = model.encode(["a.png", "b.png"])
        >>> images = model.sample(16, seed=0)
    """

    def __init__(
        self,
        density: Density,
        spec: DataSpec,
        *,
        name: str | None = None,
        config: ModelConfig | None = None,
        device: str = "cpu",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.density: Any = density.to(self.device).eval()
        self.spec, self.name, self.config = spec, name, config
        self.provenance = provenance or {}
        self._report: Report | None = None

    def __repr__(self) -> str:
        kind = f"{self.spec.kind} of shape {self.spec.shape}"
        return (
            f"Model({self.name or type(self.density).__name__}, {kind}, {self.parameters:,} parameters, {self.device})"
        )

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.density.parameters())

    # Operations -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, inputs: Any, *, sample: bool = False, convert: bool = False, seed: int = 0) -> np.ndarray:
        """Codes, (n, d) float32: the posterior's means, or draws from it with `sample`."""
        density, codes = self.with_codes(), []
        with seeded(seed):
            for noise, x in self._examples("encode", inputs, convert, seed):
                codes.append(density.encode(x, noise=noise, sample=sample).flatten(1).cpu())
        return torch.cat(codes).numpy()

    @torch.no_grad()
    def decode(self, codes: np.ndarray | Tensor, *, sample: bool = False, seed: int = 0) -> np.ndarray:
        """Raw values (n, *shape) from codes (n, d): the decoder's mean, or draws with `sample`.

        A diffusion decoder has no mean worth looking at: all codes are decoded from one x_T instead.
        """
        density, out = self.with_codes(), []
        values = codes.detach().float().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        z = torch.as_tensor(values, dtype=torch.float32, device=self.device)
        dim = (self.config.code_size(self.spec) if self.config is not None else None) or "d"
        if z.ndim != 2 or len(z) == 0 or z.shape[1] != (z.shape[1] if dim == "d" else dim):
            raise ConfigError(f"decode wants codes of shape (n, {dim}), n at least 1, not {tuple(z.shape)}.")
        if not bool(z.isfinite().all()):
            wrong = int((~z.isfinite().all(1)).sum())
            raise ConfigError(f"{wrong:,} of {len(z):,} codes hold NaN or infinity: leave them out.")
        for start in range(0, len(z), BATCH):
            noise = BlockNoise(seed, start, device=self.device) if sample else None
            out.append(density.decode(z[start : start + BATCH], noise=noise, draw=sample).cpu())
            self._tell("decode", min(start + BATCH, len(z)), len(z))
        return from_model(torch.cat(out).numpy(), self.spec)

    def sample(
        self, n: int, *, steps: int | None = None, sampler: str | None = None, seed: int = 0, draw: bool = False
    ) -> np.ndarray:
        """n new examples as raw values (n, *shape). Example i depends on (seed, i) alone.

        Args:
            n: how many.
            steps: of every diffusion inside; None: the model's own, 25 for most.
            sampler: `ancestral`, `ddim`, `heun` or `dpm_solver`; None: the model's own, `ddim` for most.
            seed: of the noise.
            draw: draw from p(x | z) instead of taking its mean.
        """
        drawn: list[Tensor] = []
        for batch in sample_batches(self.density, n, steps=steps, sampler=sampler, seed=seed, mean=not draw):
            drawn.append(batch)
            self._tell("sample", sum(map(len, drawn)), n)
        return from_model(torch.cat(drawn).numpy(), self.spec)

    @torch.no_grad()
    def reconstruct(
        self, inputs: Any, *, sample: bool = False, invert: bool = False, convert: bool = False, seed: int = 0
    ) -> np.ndarray:
        """Decoded codes of the inputs as raw values (n, *shape); from a draw of the posterior with `sample`.

        A diffusion decoder starts from fresh noise, or with `invert` from the x_T that belongs to the input.
        """
        self.with_codes()
        out = []
        with seeded(seed):
            for noise, x in self._examples("reconstruct", inputs, convert, seed):
                out.append(self.density.reconstruct(x, noise=noise, sample_code=sample, invert=invert).cpu())
        return from_model(torch.cat(out).numpy(), self.spec)

    def interpolate(
        self,
        a: Any,
        b: Any,
        steps: int = 8,
        *,
        mode: Literal["auto", "linear", "spherical"] = "auto",
        convert: bool = False,
    ) -> np.ndarray:
        """Decoded codes on the way from a to b: (steps, *shape) of one pair, (n, steps, *shape) of n pairs.

        `auto` walks straight, or on a sphere where the codes are noise (DDPM, EDM).
        """
        if mode not in ("auto", "linear", "spherical"):
            raise ConfigError(f"mode '{mode}' is unknown. Known: auto, linear, spherical.")
        z_a, z_b = self.encode(a, convert=convert), self.encode(b, convert=convert)
        if len(z_a) != len(z_b):
            raise ConfigError(f"interpolate wants as many ends as starts, got {len(z_a)} and {len(z_b)}.")
        path = between(z_a, z_b, steps, self.density.path if mode == "auto" else mode)
        decoded = self.decode(path.reshape(-1, path.shape[-1])).reshape(*path.shape[:2], *self.spec.shape)
        return decoded[0] if len(z_a) == 1 else decoded

    @torch.no_grad()
    def bound(
        self, inputs: Any, *, repeats: int = 8, convert: bool = False, seed: int = 0, paired: bool = False
    ) -> np.ndarray:
        """An upper bound on -log p(x) in nats, (n,): the mean of `repeats` Monte-Carlo estimates. Lower is better.

        On grids of grey values it refers to counting measure; on continuous data to a density per unit of the raw data.

        Args:
            inputs: examples.
            repeats: how many estimates; to compare single examples, 64 paired ones.
            convert: bring inputs of another size or kind to what the model wants.
            seed: of the noise.
            paired: all examples meet the same noise, so most of it cancels where they are compared or ranked, and what is said
                of one does not depend on the others; the mean over many is noisier.

        Raises:
            NoBound: the model has none.
        """
        if repeats < 1:
            raise ConfigError(f"repeats = {repeats}: a bound needs at least one estimate.")
        out = []
        with seeded(seed):
            for _, x in self._examples("bound", inputs, convert, seed):
                if paired:
                    out.append(self.density.paired_bound(x, passes=repeats, seed=(seed, 4)).cpu())
                    continue
                out.append(torch.stack([self.density.bound(x) for _ in range(repeats)]).mean(0).cpu())
        return torch.cat(out).numpy() + log_unit(self.spec)

    def score_samples(
        self, inputs: Any, *, repeats: int = 8, convert: bool = False, seed: int = 0, paired: bool = False
    ) -> np.ndarray:
        """A lower bound on log p(x) in nats, (n,): minus `bound`, in scikit-learn's convention (higher is better)."""
        return -self.bound(inputs, repeats=repeats, convert=convert, seed=seed, paired=paired)

    def strings(self, values: np.ndarray) -> list[str]:
        """Raw values (..., L) of a model of sequences as text, one for each row: whole sequences, also around sites."""
        return to_strings(values, self.spec)

    @contextmanager
    def writing(
        self, *, beams: int | None = None, temperature: float | None = None, top_p: float | None = None
    ) -> Iterator[None]:
        """Within the block text, or whatever is written symbol by symbol, is written so.

        Args:
            beams: what is not drawn is looked for by a beam search of so many beginnings; 1 takes the likeliest symbols.
            temperature: of draws; below 1 they are safer.
            top_p: draws are among the likeliest symbols that together have this probability.

        Raises:
            ConfigError: the model does not write so.

        Example:
            >>> with model.writing(beams=4):
            ...     model.strings(model.reconstruct(["the food was good ."]))
        """
        with written_with(self.density, beams=beams, temperature=temperature, top_p=top_p):
            yield

    @contextmanager
    def showing_progress(self, shown: bool = True) -> Iterator[None]:
        """Within the block, a bar on standard error for whatever takes more than one batch.

        Args:
            shown: whether there is one.

        Example:
            >>> with model.showing_progress():
            ...     codes = model.encode("many_images/")
        """
        with progress_bar(shown, "rate") as self._report:
            try:
                yield
            finally:
                self._report = None

    # Saving and loading -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and provenance.json."""
        folder = Path(folder)
        save_model(folder, self.density, self.spec, name=self.name, config=self.config, provenance=self.provenance)
        return folder

    def save_pretrained(self, folder: str | Path) -> Path:
        """`save`, under the name that Hugging Face uses."""
        return self.save(folder)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "auto", model: Density | None = None, **options: Any
    ) -> Model:
        """A model from a folder, or from the Hugging Face Hub as `user/name` (needs the `hub` extra).

        Args:
            source: the folder or the repository (also `hub:user/name@revision`); a folder of that name goes first.
            device, model: as for `load`.
            options: to `huggingface_hub.snapshot_download` (revision, token, cache_dir).

        Raises:
            ModelError: neither a model's folder nor a repository that can be fetched.
        """
        if on_hub(source):
            if options:
                raise ConfigError(
                    f"'{next(iter(options))}' has no effect beside {PREFIX}: write {source}@REVISION, or leave it out."
                )
            return load(source, device=device, model=model)
        remote = isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~"))
        if remote and not Path(source).exists():
            hub = library(f"{source} is no folder here, and to fetch it from the Hub", ModelError)
            try:
                source = hub.snapshot_download(source, **options)
            except Exception as error:
                raise ModelError(
                    f"{source} is no folder here, and could not be fetched from the Hub: {error}"
                ) from None
        elif options:
            raise ConfigError(
                f"'{next(iter(options))}' has no effect on a folder: {source} is not fetched from the Hub."
            )
        return load(source, device=device, model=model)

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model with a model card to the Hugging Face Hub; returns the commit's address.

        Raises:
            ModelError: the Hub refuses, or cannot be reached.
        """
        api = library("To upload a model", ModelError).HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            made = {key: value for key, value in self.provenance.items() if key not in PRIVATE}
            config = _published(self.config)
            save_model(Path(folder), self.density, self.spec, name=self.name, config=config, provenance=made)
            (Path(folder) / "README.md").write_text(self.card(repository), encoding="utf-8")
            try:
                api.create_repo(repository, private=private, exist_ok=True)
                done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add diled model")
            except Exception as error:
                raise ModelError(f"{repository} could not be uploaded to the Hub: {error}") from None
        return str(done)

    def card(self, repository: str) -> str:
        """A model card in Markdown."""
        what = self.config.row.title if self.config is not None else "A hand-composed model"
        more = "" if self.config is not None else ", model=m"
        return (
            f"---\nlibrary_name: diled\ntags: [diled, diffusion, autoencoder]\n---\n\n# {repository}\n\n"
            f"{what} of {self.spec.kind}s of shape {self.spec.shape}, {self.parameters:,} parameters.\n\n"
            f'```python\nimport diled\n\nmodel = diled.Model.from_pretrained("{repository}"{more})\nmodel.sample(16)\n```\n\n'
            f"```json\n{json.dumps({k: v for k, v in self.provenance.items() if k not in PRIVATE}, indent=2)}\n```\n"
        )

    # Helpers ----------------------------------------------------------------------------------------------------------

    def with_codes(self) -> Any:
        """The density, which has codes.

        Raises:
            ConfigError: it has none.
        """
        if not self.density.has_codes:
            raise ConfigError(
                f"The model {self.name or type(self.density).__name__} has no encoder, so examples have no codes: it can only "
                "sample and be evaluated."
            )
        return self.density

    def _tell(self, what: str, done: int, total: int) -> None:
        """Say how far an operation is, where somebody looks and it takes more than one batch."""
        if self._report is not None and total > BATCH:
            self._report(what, done, total)

    def _examples(self, what: str, inputs: Any, convert: bool, seed: int) -> Iterator[tuple[BlockNoise, Tensor]]:
        """Batches in model space on the model's device, each with noise for draws of its codes; `what` they are for."""
        raw = raw_tensor(read_examples(inputs, self.spec, convert=convert))
        for start in range(0, len(raw), BATCH):
            noise = BlockNoise(seed_from(seed, 1), start, device=self.device)  # not the noise that `decode` uses
            yield noise, to_space(raw[start : start + BATCH].to(self.device), self.spec)
            self._tell(what, min(start + BATCH, len(raw)), len(raw))


def load(path: str | Path, *, device: str = "auto", model: Density | None = None) -> Model:
    """A trained model from its folder.

    Args:
        path: a run's or a saved model's folder, or `hub:owner/name`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        model: for a hand-composed model, the module with the same parts; its weights are read from the folder.

    Raises:
        ModelError: the folder holds no model, another format, or damaged weights. Pickles are never opened.
    """
    folder = fetched(path, SOURCE, ModelError)
    density, spec, name, config = load_model(folder, model)
    provenance = _read_record(folder / "provenance.json")
    run = _read_record(folder / "run.json")  # of a run whose provenance does not say how its data were prepared
    for key in ("data", "preprocess"):
        if key in run:
            provenance.setdefault(key, run[key])
    return Model(density, spec, name=name, config=config, device=device, provenance=provenance)


def _published(config: ModelConfig | None) -> ModelConfig | None:
    """The configuration without the names of local folders."""
    network = getattr(config, "network", None)
    named = {key: getattr(network, key, None) for key in FOLDERS}
    local = {key: UNPUBLISHED for key, folder in named.items() if folder is not None and not on_hub(folder)}
    if config is None or network is None or not local:
        return config
    return config.model_copy(update={"network": network.model_copy(update=local)})


def _read_record(path: Path) -> dict[str, Any]:
    """The keys and values in a JSON file; none where it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
