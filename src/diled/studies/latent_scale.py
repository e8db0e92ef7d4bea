"""What a diffusion prior does to the scale of the codes, with the best possible denoiser: no training, a minute.

    python -m diled.studies.latent_scale [--draws 400]

64 codes in R^8 of unit variance times a scale; the encoder's noise is the first step of a constant beta of 0.008 in 1,000
steps (Liu et al. 2024). Records, for each scale:

    unweighted_error/scale=S   mean over t and dimensions of (e - e_hat)^2: the noise error of the paper's objective
    path_nats/scale=S          the same at the bound's weights
    terminal_nats/scale=S      KL(q(z_1 | x) || N(0, I))
"""

from __future__ import annotations

import argparse
import math
import sys

import torch
from torch import Tensor, nn

from diled.diffusion import Diffusion, Objective, constant_beta, simple
from diled.diffusion.schedule import alpha, like, sigma
from diled.distributions import Normal
from diled.draws import seeded
from diled.evaluation.measure import Measured
from diled.studies.commands import as_records, exit_code, made_here, record_options, refuse_uncommitted, training_of
from diled.studies.records import add

__all__ = ["SCALES", "main"]

BETA, CODES, DIMS = 0.008, 64, 8
SCALES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class _Nearest(nn.Module):
    """E[x | z_t] for x drawn from a list of codes."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """The mean of the codes, each by its probability given z_t."""
        a, s = like(alpha(-log_snr), z_t), like(sigma(-log_snr), z_t)
        squares = torch.cdist(z_t / a, self.codes) ** 2
        return torch.softmax(-squares * (a / s) ** 2 / 2, 1) @ self.codes


def figures(scale: float, draws: int) -> dict[str, Tensor]:
    """Metric -> one number for each draw of each code."""
    x = torch.randn(CODES, DIMS, generator=torch.Generator().manual_seed(0)).double()
    codes = scale * (x - x.mean()) / x.std()
    mean = math.sqrt(1 - BETA) * codes.repeat(draws, 1)
    q = Normal(mean, torch.full_like(mean, math.log(BETA)))
    model = Diffusion(_Nearest(codes), constant_beta(1000, BETA), (DIMS,), timesteps=999,
                      objective=Objective(simple(mean=True), terminal=False)).double()  # fmt: skip
    path, terminal = (model.terms(q, exact=True)[name] for name in ("diffusion", "terminal"))
    gamma = model.schedule.gamma(torch.randint(1, 1000, (len(mean),)).double() / 999)
    at_t = model.process.marginal(q, model.schedule.ends[0], gamma)
    e = torch.randn_like(mean)
    z_t = at_t.mean + (0.5 * at_t.log_var).exp() * e
    a, s = like(alpha(gamma), z_t), like(sigma(gamma), z_t)
    e_hat = (z_t - a * model.denoiser(z_t, -gamma)) / s
    return {"unweighted_error": ((e - e_hat) ** 2).mean(1), "path_nats": path, "terminal_nats": terminal}


def main(argv: list[str] | None = None) -> int:
    """Compute and record from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.latent_scale", description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=400, help="of each code")
    record_options(parser)
    chosen = parser.parse_args(argv)
    return exit_code(lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    found: dict[str, Measured] = {}
    for scale in SCALES:
        with seeded(0), torch.no_grad():
            drawn = figures(scale, chosen.draws)
        for metric, values in drawn.items():
            error = float(values.std()) / math.sqrt(len(values))
            found[f"{metric}/scale={scale:g}"] = Measured(float(values.mean()), error, len(values))
        print(f"{scale:>6g}  " + "  ".join(f"{name} {float(v.mean()):.4f}" for name, v in drawn.items()), flush=True)
    if not chosen.trial:
        records = as_records(
            found,
            study="latent-scale",
            data="none",
            system="diled_paper",
            seed=0,
            **training_of({}),
            **made_here(),
            command="python -m diled.studies.latent_scale",
        )
        add(chosen.results / "latent-scale.json", records)


if __name__ == "__main__":
    sys.exit(main())
