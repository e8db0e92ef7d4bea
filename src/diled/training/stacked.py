"""Many trainings of one architecture at once, with stacked weights: seeds and arms that fill a GPU together.

Of M members with weights theta_m, batches x_m and losses L_m(theta_m) = mean_b sum_terms terms(x_mb; theta_m),

    d/dtheta_m  sum_j L_j(theta_j) = dL_m/dtheta_m,

and clipping by a member's own norm, AdamW and averages act on each member by itself. So one step on tensors (M, ...) is M
separate steps, up to rounding, in as many kernels as one takes; and those are what a small network on a GPU waits for.
Buffers that training changes in place, such as BatchNorm's running moments, are stacked and each member's own.

Batches are those of the engine. Noise, times and binarisation are drawn for all members together: reproducible, but a member's
draws depend on who trains beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from diled.api import Density, Stage, evaluating, total
from diled.config import DataSpec, TrainingConfig
from diled.draws import reseed, seed_from, seeded
from diled.errors import ConfigError, DataError, ModelError
from diled.space import to_space
from diled.training.best import Best, held_out_bound
from diled.training.compiling import fused
from diled.training.data import Batches, Source, source_of
from diled.training.half_asleep import arrange
from diled.training.inputs import Inputs, noisy_input
from diled.training.stages import learning_rate, parameter_groups, prepare
from diled.training.throughput import accelerator_of, precision_of

__all__ = ["Stacked", "fit_stacked"]

Say = Callable[[str], None]
OWN = ("augment", "augment_values", "mollify")
"""What members may have of their own beside the seed: what happens to examples before the model sees them."""


@dataclass
class Stacked:
    """M trained members.

    Args:
        densities: with their (averaged) weights, in evaluation mode, on the CPU.
        stopped: member -> why and when it stopped early; it has the weights from before that step.
        kept: member -> `step` and `bound` (nats) of the look that was chosen, where the best one is kept.
        log: every `log_every` steps `step`, `loss` (nats of each member) and `terms` (name -> nats of each member), means
            over the steps since the last entry.
    """

    densities: list[Density]
    stopped: dict[int, str] = field(default_factory=dict)
    kept: dict[int, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)


def fit_stacked(
    stages: Sequence[Sequence[Stage]], values: Sequence[Tensor | Source], spec: DataSpec,
    config: TrainingConfig | Sequence[TrainingConfig], seeds: Sequence[int], *,
    validation: Tensor | None = None,
    progress: Callable[[dict[str, Any]], None] = lambda entry: None, say: Say = print,
) -> Stacked:  # fmt: skip
    """Train M members of one architecture at once, each as `engine.fit` would; nothing is written to disk.

    A member whose loss or gradient is no number stops alone, is named by `say`, and keeps its last good weights.

    Args:
        stages: of each member, the one stage that trains it (`[recipe.stages for recipe in recipes]`).
        values: of each member, raw training examples (N, *spec.shape), or where they come from.
        spec: how raw values become model space.
        config: the recipe; or one for each member, which differ in `augment`, `augment_values` and `mollify` only.
        seeds: of each member, in place of the recipe's seed.
        validation: raw held-out examples, for a recipe that keeps the best weights: a look every `monitor_every` steps.
        progress: called with each entry of the log.
        say: prints which member stopped, and why.

    Raises:
        ConfigError: the recipe, or the members, cannot be trained this way.
        DataError: examples have another shape than `spec` says.
        ModelError: the density cannot be vectorised.
    """
    configs = _configs(config, seeds, len(stages), len(values), validation)
    members, sources = [_only(list(each), m) for m, each in enumerate(stages)], [source_of(v) for v in values]
    _check_alike([stage.density for stage in members])
    with seeded(*seeds), ExitStack() as block:
        for m, (stage, source, own) in enumerate(zip(members, sources, configs, strict=True)):
            some = source.some(2)
            if getattr(stage.density, "columns", ()):
                raise ConfigError("Many trainings at once learn no label columns: leave out properties.columns.")
            if some.shape[1:] != spec.shape:
                raise DataError(f"Values of member {m} have the shape {tuple(some.shape[1:])}, not {spec.shape}.")
            arrange(stage.density, [stage], to_space(some, spec, draw=False), own)  # refuses what has no effect
            prepare(stage, source, spec, own, 0)
            block.enter_context(stage.training())
        block.enter_context(noisy_input(members[0].density, configs[0], spec))
        training = _Training([stage.density for stage in members], sources, spec, configs)
        return training.run(validation, progress, say)


class _Terms(nn.Module):
    """A density whose call is its loss in nats, with the mean of each term."""

    def __init__(self, density: Density, autocast: Callable[[], Any]) -> None:
        super().__init__()
        self.density, self.autocast = density, autocast

    def forward(self, x: Tensor, progress: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with self.autocast():
            terms = self.density.terms(x, progress=progress)
        return total(terms).mean(), {name: term.detach().mean() for name, term in terms.items()}


class _Training:
    """Stacked weights by name, (M, ...) each, their averages and their optimiser."""

    def __init__(
        self, densities: list[Density], sources: list[Source], spec: DataSpec, configs: list[TrainingConfig]
    ) -> None:
        self.densities, self.spec, self.configs, self.config = densities, spec, configs, configs[0]
        self.device = torch.device(accelerator_of(self.config))
        autocast = partial(torch.autocast, self.device.type, torch.bfloat16, precision_of(self.config) == "bf16")
        wrapped = [_Terms(density.to(self.device), autocast) for density in densities]
        self.first, (parameters, buffers) = wrapped[0], stack_module_state(wrapped)
        self.trained = {name: p.detach() for name, p in parameters.items() if p.requires_grad}
        self.fixed = buffers | {name: p for name, p in parameters.items() if not p.requires_grad}
        self.ends = [p.clone() if self.config.ema else p for p in self.trained.values()]  # averages, where wanted
        self._optimise(self.config)
        seen = [Inputs(spec, one) for one in configs]
        own = [[getattr(one, key) for key in OWN] for one in configs]
        alike = [own.index(each) for each in own]
        self.inputs = {j: (seen[j], [m for m, k in enumerate(alike) if k == j]) for j in alike}  # one call for each
        pairs = zip(sources, configs, strict=True)
        self.batches = [Batches(source, own.batch_size, seed=seed_from(own.seed, 0)) for source, own in pairs]
        self.result, self.frozen = Stacked(densities), dict[int, list[Tensor]]()
        self.gradients: Any = vmap(grad_and_value(self._loss, has_aux=True), (0, 0, 0, None), randomness="different")
        self.moving = self._probe()
        self.before: dict[str, Tensor] = {}
        if self.config.compile:
            self.gradients = fused(self.gradients)

    def _optimise(self, config: TrainingConfig) -> None:
        """The engine's optimiser, groups and schedule, over stacked weights."""
        names = {id(p): name for name, p in self.first.named_parameters()}
        groups = [(factor, [names[id(p)] for p in group]) for factor, group in parameter_groups(self.first)]
        self.groups = [group for _, group in groups]
        lists = [{"params": [self.trained[k] for k in g], "lr": factor * config.learning_rate} for factor, g in groups]
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(lists, betas=config.betas, weight_decay=config.weight_decay, fused=fused)
        warmup = min(config.warmup_steps, config.steps // 10)
        rate = partial(learning_rate, steps=config.steps, warmup=warmup, schedule=config.schedule)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def _loss(self, trained: dict[str, Tensor], fixed: dict[str, Tensor], x: Tensor, progress: Tensor) -> Any:
        """Of one member: its weights by name, and x (B, *shape)."""
        return functional_call(self.first, (trained, fixed), (x, progress))

    def _probe(self) -> list[str]:
        """One call, of which nothing is kept, to refuse in words what cannot be stacked. The buffers that training changes."""
        fixed = {name: tensor.clone() for name, tensor in self.fixed.items()}
        try:
            self.gradients(self.trained, fixed, self._batch(0, 0.0), torch.zeros((), device=self.device))
        except (RuntimeError, NotImplementedError) as error:
            raise ModelError(f"This density cannot train with stacked weights: train it alone ({error}).") from None
        return [name for name, tensor in fixed.items() if not torch.equal(tensor, self.fixed[name])]

    def _batch(self, micro: int, progress: float) -> Tensor:
        """x of all members, (M, B, *shape)."""
        rows: dict[int, Tensor] = {}
        for inputs, members in self.inputs.values():
            raw = torch.cat([self.batches[m].batch(micro) for m in members]).to(self.device)
            rows |= zip(members, inputs(raw, progress).chunk(len(members)), strict=True)
        return torch.stack([rows[m] for m in range(len(rows))])

    def run(self, validation: Tensor | None, progress: Callable[[dict[str, Any]], None], say: Say) -> Stacked:
        """All steps, or as many as a member is left for."""
        best, recent = [Best() for _ in self.densities], list[dict[str, Tensor]]()
        for step in range(1, self.config.steps + 1):
            recent.append(self._step(step - 1, say))
            over = step == self.config.steps or len(self.frozen) == len(self.densities)
            if over or step % self.config.log_every == 0:
                terms = _mean(recent)
                means = {name: t.tolist() for name, t in terms.items()}
                self.result.log.append({"step": step, "loss": total(terms).tolist(), "terms": means})
                progress(self.result.log[-1])
                recent.clear()
            if validation is not None and (over or step % self.config.monitor_every == 0):
                self._look(step, validation, best)
            if over:
                break
        self._write()
        for m, density in enumerate(self.densities):
            density.to("cpu")
            if validation is not None:
                best[m].restore(density)
                self.result.kept[m] = best[m].record()
        return self.result

    def _step(self, step: int, say: Say) -> dict[str, Tensor]:
        """One optimiser step of every member that is left; the mean terms, (M,) each."""
        config, here, every = self.config, step / self.config.steps, self.config.accumulate
        found: list[tuple[dict[str, Tensor], tuple[Tensor, dict[str, Tensor]]]] = []
        self.before = {name: self.fixed[name].clone() for name in self.moving}
        for micro in range(step * every, (step + 1) * every):
            reseed(seed_from(*[own.seed for own in self.configs], micro))
            now = torch.full((), here, device=self.device)
            found.append(self.gradients(self.trained, self.fixed, self._batch(micro, here), now))
        gradients, means = _mean([g for g, _ in found]), _mean([terms for _, (_, terms) in found])
        norms = [_norm([gradients[name] for name in group]) for group in self.groups]
        self._stop(step + 1, means, norms, say)
        for group, norm in zip(self.groups, norms, strict=True):
            factor = (config.clip / (norm + 1e-6)).clamp(max=1.0) if config.clip else torch.ones_like(norm)
            for name in group:
                g = self.trained[name].grad = gradients[name] * factor.reshape(-1, *[1] * (gradients[name].ndim - 1))
                for m in self.frozen:  # its place in the stack stays finite, and no longer counts
                    g[m] = 0.0
        self.optimizer.step()
        self.schedule.step()
        if config.ema:
            torch._foreach_lerp_(self.ends, list(self.trained.values()), 1 - min(config.ema, (1 + step) / (10 + step)))
        return means

    def _stop(self, step: int, means: dict[str, Tensor], norms: list[Tensor], say: Say) -> None:
        """Put aside the weights, and buffers from before this step, of members that met what is no number."""
        finite = torch.stack([*means.values(), *norms]).isfinite().all(0)
        if bool(finite.all()):  # one answer from the device in each step, as in the engine
            return
        for m in (~finite).nonzero()[:, 0].tolist():
            if m not in self.frozen:
                bad = [f"the term '{name}' is {float(t[m])}" for name, t in means.items() if not t[m].isfinite()]
                self.frozen[m] = [p[m].clone() for p in (*self.ends, *self.before.values())]
                self.result.stopped[m] = (
                    f"Member {m} (seed {self.configs[m].seed}) stopped at step {step}: "
                    f"{', '.join(bad) or 'a gradient is NaN or infinite'}. Its weights from before are kept."
                )
                say(self.result.stopped[m])

    @torch.no_grad()
    def _write(self) -> None:
        """Give each density its weights and buffers."""
        ends = [*self.ends, *(self.fixed[name] for name in self.moving)]
        for m, density in enumerate(self.densities):
            rows = self.frozen.get(m) or [p[m] for p in ends]
            own: dict[str, Tensor] = {**dict(density.named_parameters()), **dict(density.named_buffers())}
            for name, row in zip([*self.trained, *self.moving], rows, strict=True):
                own[name.removeprefix("density.")].copy_(row)

    def _look(self, step: int, validation: Tensor, best: list[Best]) -> None:
        """The bound of held-out examples by each member that is left, with the noise that the engine takes."""
        self._write()
        for m, density in enumerate(self.densities):
            if m not in self.frozen:
                seed = seed_from(self.configs[m].seed, 0, 2**42)
                with evaluating(density):
                    best[m].look(step, held_out_bound(density, validation, self.spec, seed), density)


def _mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each entry."""
    first, *others = parts
    return {k: sum((part[k] for part in others), v) / len(parts) for k, v in first.items()} if others else first


def _norm(gradients: list[Tensor]) -> Tensor:
    """The gradient norm of each member, (M,)."""
    return torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients]).norm(dim=0)


def _configs(
    config: TrainingConfig | Sequence[TrainingConfig], seeds: Sequence[int], members: int, data: int,
    validation: Tensor | None,
) -> list[TrainingConfig]:  # fmt: skip
    """A recipe for each member, with its seed; raises `ConfigError`."""
    each = [config] * members if isinstance(config, TrainingConfig) else list(config)
    if not members or {len(each), len(seeds), data} != {members}:
        raise ConfigError(
            f"There are {members} members, {data} sets of values, {len(seeds)} seeds and {len(each)} recipes: give one of "
            "each for every member."
        )
    first = each[0]
    unlike = [k for own in each for k in type(own).model_fields if getattr(own, k) != getattr(first, k)]
    for key in (k for k in unlike if k not in (*OWN, "seed")):
        raise ConfigError(f"training.{key} must be the same for all members: train apart those that differ.")
    for key in ("epochs", "half_asleep", "devices", "nodes", "tensorboard"):
        if getattr(first, key) != type(first).model_fields[key].default:
            raise ConfigError(f"Stacked training knows no training.{key}: leave it out, or train members alone.")
    if (first.keep == "best") != (validation is not None):
        raise ConfigError("Stacked training needs validation examples with training.keep 'best', and only then.")
    return [own.model_copy(update={"seed": seed}) for own, seed in zip(each, seeds, strict=True)]


def _only(stages: list[Stage], m: int) -> Stage:
    """The one stage of member m; raises `ConfigError` where there are several, or it trains nothing."""
    if len(stages) != 1 or not stages[0].share:
        names = [stage.name for stage in stages]
        raise ConfigError(f"Member {m} has the stages {names}. Stacked training takes one that trains: train it alone.")
    return stages[0]


def _check_alike(densities: list[Density]) -> None:
    """Refuse members that differ in more than their weights' numbers, since it is the first one that is called."""
    if len({id(p) for d in densities for p in d.parameters()}) != sum(len([*d.parameters()]) for d in densities):
        raise ConfigError("Two members share weights: build a model for each.")
    first, *others = ({name: _settings(part) for name, part in d.named_modules()} for d in densities)
    for m, other in enumerate(others, 1):
        for name in (name for name in {**first, **other} if not _alike(first.get(name), other.get(name))):
            raise ConfigError(
                f"Member {m} differs from member 0 in its part '{name or 'model'}': stacked members have one architecture "
                "with the same settings, and differ in weights, data and seeds."
            )


def _settings(module: nn.Module) -> list[Any]:
    """What a module is beside the numbers in its tensors and its mode."""
    tensors = (module._parameters | module._buffers).items()
    shapes = {name: t if t is None else (t.shape, t.dtype, t.requires_grad) for name, t in tensors}
    apart = ("_parameters", "_buffers", "_modules", "training")
    return [type(module), shapes, {key: value for key, value in vars(module).items() if key not in apart}]


def _alike(a: Any, b: Any) -> bool:
    """Whether two settings mean the same: functions by their code and what it holds, objects by their attributes."""
    if type(a) is not type(b):
        return False
    match a:
        case nn.Module() | Tensor():  # modules are compared by themselves
            return isinstance(a, nn.Module) or torch.equal(a, b)
        case dict():
            return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
        case list() | tuple():
            return len(a) == len(b) and all(map(_alike, a, b))
        case FunctionType():
            parts = [[f.__code__, f.__defaults__, *(c.cell_contents for c in f.__closure__ or ())] for f in (a, b)]
        case MethodType():
            parts = [[f.__func__, f.__self__] for f in (a, b)]
        case partial():
            parts = [[f.func, f.args, f.keywords] for f in (a, b)]
        case _ if hasattr(a, "__dict__") and not isinstance(a, type):
            parts = [[vars(a)], [vars(b)]]
        case _:
            return bool(a == b)
    return _alike(*parts)
