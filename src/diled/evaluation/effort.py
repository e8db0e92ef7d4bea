"""How much work an audit does: what fits two cores, and what does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from diled.errors import ConfigError

__all__ = ["BRIEF", "THOROUGH", "Effort"]

LEAST = {"annealed": 0, "bounded": 2, "examples": 2, "network": 0, "steps": 4}
"""Setting of an `Effort` -> its least value; of the others 1."""


@dataclass(frozen=True)
class Effort:
    """How much work the audit does.

    Attributes:
        bounded: examples of the training and of the test split whose bound is measured.
        examples: the first of these, for all that costs more.
        samples: of a posterior for the bound, and in each step of the per-example optimisation, in antithetic pairs: 1 or an
            even number.
        steps: of that optimisation, at least 4, since its last quarter tells a plateau.
        weights: of the importance-weighted bound.
        ode_weights, ode_examples: the same with a diffusion prior, where each weight takes a whole ODE with its trace.
        annealed: test examples for AIS, and samples of the model for BDMC; 0: neither.
        annealing: intermediate distributions of AIS.
        references, restarts, iterations: of the strong attack.
        radii: of the strong attack, on the scale [0, 1].
        published_references, published_radius, published_iterations: of the attack as published; None: those of the paper,
            which differ between grey and colour images, see `PUBLISHED`.
        pairs: of test images, for the smoothness of codes.
        network: also train a network to tell a synthetic set from test images, and training images from them.
    """

    bounded: int = 10_000
    examples: int = 1000
    samples: int = 16
    steps: int = 300
    weights: int = 5000
    ode_weights: int = 10
    ode_examples: int = 50
    annealed: int = 0
    annealing: int = 500
    references: int = 500
    restarts: int = 20
    iterations: int = 50
    radii: tuple[float, ...] = (0.05, 0.1, 0.2)
    published_references: int | None = None
    published_radius: float | None = None
    published_iterations: int | None = None
    pairs: int = 200
    network: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = LEAST.get(name, 1)
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} = {value}: at least {least} is needed.")
        if self.samples > 1 and self.samples % 2:
            raise ConfigError(f"samples = {self.samples}: take 1 or an even number, for antithetic pairs.")
        for radius in (*self.radii, self.published_radius):
            if radius is not None and not 0 <= radius <= 1:
                raise ConfigError(
                    f"radius = {radius}: an attack's radius lies between 0 and 1, on the scale of pixels."
                )


BRIEF = Effort()
"""Fits two cores: minutes for a small model."""
THOROUGH = Effort(
    examples=5000,
    samples=64,
    steps=1000,
    ode_weights=200,
    ode_examples=300,
    annealed=100,
    annealing=10_000,
    references=1000,
    restarts=50,
    iterations=100,
    radii=(0.02, 0.05, 0.1, 0.2),
    pairs=1000,
    network=True,
)
"""Hours on two cores, minutes on a GPU."""
