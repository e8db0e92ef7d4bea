"""What makes one model of the family differ from another: nested levels, LSGM's two objectives, a critic, paces."""

from __future__ import annotations

import math

import torch
from closed_forms import assert_mean, normal_kl, squares_by_hand
from torch import nn

from diled.api import total
from diled.config import DataSpec
from diled.diffusion import Diffusion, LinearLogSNR, Mixed, V
from diled.diffusion.diffusion import stratified_times
from diled.diffusion.schedule import ddpm_beta
from diled.family import FAMILY
from diled.models.autoencoder import Autoencoder, GaussianEncoder, GaussianLikelihood, LikelihoodDecoder
from diled.models.critic import Corrupted, Critic
from diled.models.priors import StandardNormal
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.training.stages import parameter_groups

B, D = 32, 3
VECTORS = DataSpec(kind="vector", shape=(2,))
SMALL = {"latent_dim": D, "network": {"kind": "mlp", "width": 8, "depth": 1}}


def flat(grads) -> torch.Tensor:
    return torch.cat([g.flatten() for g in grads])


def model_of() -> Autoencoder:
    decoder = LikelihoodDecoder(mlp([D, 8, 2]), GaussianLikelihood(0.5))
    return Autoencoder(GaussianEncoder(mlp([2, 8, 2 * D])), decoder, StandardNormal((D,)))


# --------------------------------------------------------------------------------------------------- nested levels


def test_three_levels_are_three_distortions_and_two_entropies():
    """Written out: -log p(x|z_1) - H(q_1) - log p(z_1|z_2) - H(q_2) - log p(z_2|z_3) + KL(q_3 || N(0, I))."""
    config = FAMILY["hierarchical_vae"](**SMALL, levels=3, level_width=6)
    model = build("hierarchical_vae", config, VECTORS).model
    x = torch.randn(B, 2)
    torch.manual_seed(4)
    got = model.terms(x, exact=True)
    torch.manual_seed(4)
    want, level, value, name = {}, model, x, ""
    while not isinstance(level, StandardNormal):
        q = level.encoder(value)
        std = (0.5 * q.log_var).exp()
        p = level.decoder(q.mean + std * torch.randn_like(std))
        nll = 0.5 * (math.log(2 * math.pi) + p.log_var + (value - p.mean) ** 2 / p.log_var.exp())
        want[f"{name}distortion"] = nll.sum(1)
        level, name = level.prior, f"{name}rate/"
        if isinstance(level, StandardNormal):
            want[f"{name}kl"] = normal_kl(q.mean, q.log_var.exp(), 0.0, torch.ones(D))
        else:
            want[f"{name}negative_entropy"] = -(0.5 * (1 + math.log(2 * math.pi) + q.log_var)).sum(1)
            value = q.mean + std * torch.randn_like(std)  # a draw of its own for the level below
    assert list(got) == list(want)
    assert list(got)[:3] == ["distortion", "rate/negative_entropy", "rate/distortion"]
    assert list(got)[3:] == ["rate/rate/negative_entropy", "rate/rate/distortion", "rate/rate/rate/kl"]
    for n, term in want.items():
        torch.testing.assert_close(got[n], term, rtol=1e-4, atol=1e-4)


def test_levels_around_a_silent_diffusion_are_a_hierarchical_vae():
    model = build("hierarchical_vae", FAMILY["hierarchical_vae"](**SMALL, level_width=6), VECTORS).model
    x = torch.tensor([[0.3, -0.8]]).expand(20_000, 2)
    with torch.no_grad():
        kl = total(model.terms(x, exact=True))
        inner = model.prior.prior
        silent = V(lambda z, log_snr, condition: torch.zeros_like(z))
        model.prior.prior = Diffusion(silent, LinearLogSNR(-8.0, 8.0), inner.shape)
        path = total(model.terms(x, exact=True))
    assert_mean(path, float(kl.mean()), slack=float(kl.std()) / math.sqrt(20_000))


def test_the_dials_of_levels():
    """diled_levels and the hierarchical VAE warm up the outermost edge; the inner levels train at full weight."""
    for name in ("hierarchical_vae", "diled_levels"):
        more = {"prior": {"width": 8, "blocks": 1}} if name == "diled_levels" else {}
        model = build(name, FAMILY[name](**SMALL, **more, levels=3, level_width=6, rate_warmup=0.5), VECTORS).model
        assert [model.rate_weight(p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
        assert [level.rate_weight(0.0) for level in (model.prior, model.prior.prior)] == [1.0, 1.0]
        assert isinstance(model.prior.prior.prior, StandardNormal if name == "hierarchical_vae" else Diffusion)


# --------------------------------------------------------------------------------------------- LSGM: two objectives


def test_lsgm_of_the_family_trains_prior_and_encoder_apart():
    """Mixed score, DDPM's unweighted noise error for the prior, the bound for the encoder: two passes by hand."""
    config = FAMILY["lsgm"](
        latent_dim=D,
        network={"kind": "mlp", "width": 8, "depth": 1},
        prior={"width": 8, "blocks": 1, "times_per_code": 2},
    )
    model = build("lsgm", config, DataSpec(kind="vector", shape=(2,))).model
    prior = model.prior
    assert isinstance(prior.denoiser, Mixed)
    torch.nn.init.normal_(prior.denoiser.denoiser.network.out.weight, std=0.3)  # it starts silent otherwise
    x = torch.randn(B, 2)
    torch.manual_seed(9)
    rate = {n: v for n, v in model.terms(x).items() if n.startswith("rate/")}
    prior_parameters, encoder_parameters = list(prior.parameters()), list(model.encoder.parameters())
    got = torch.autograd.grad(total(rate).sum(), [*prior_parameters, *encoder_parameters])
    values = {n: v.detach() for n, v in rate.items()}

    torch.manual_seed(9)
    q = model.encoder(x)
    q.sample()
    t = stratified_times(B, 2, q.mean)
    e = torch.randn(2 * B, D)
    mean, log_var = q.mean.repeat(2, 1), q.log_var.repeat(2, 1)
    gamma, slope, squares = squares_by_hand(prior.schedule, prior.denoiser, mean.detach(), log_var.detach(), t, e)
    levels = ddpm_beta()
    density = 1 / levels.slope(levels.time(gamma))
    assert density.max() > 3 * density.min()  # not the bound's weights, nor a constant times them
    want = list(torch.autograd.grad((slope * density * squares).sum() / 2, prior_parameters))
    _, slope, squares = squares_by_hand(prior.schedule, prior.denoiser, mean, log_var, t, e)
    bound = (0.5 * slope * squares).reshape(2, B).mean(0)
    terminal = prior.terms(q, exact=True)["terminal"]
    want += torch.autograd.grad((bound + terminal).sum(), encoder_parameters)
    torch.testing.assert_close(values["rate/diffusion"], bound)
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------- a critic in place of a rate


class Ratio(nn.Module):
    """The logit of the optimal critic between N(0, 1) and codes of N(shift, 1), with a slope that could be trained."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift, self.gain = shift, nn.Parameter(torch.tensor(1.0).double())

    def forward(self, z):
        return self.gain * (0.5 * self.shift**2 - self.shift * z)


def critic_of(network: nn.Module, dim: int = 1, **options) -> Critic:
    critic = Critic(dim, 4, **options)
    critic.network = network
    return critic


def test_the_optimal_critic_measures_the_jensen_shannon_divergence():
    """min_D E -log D(e) - log(1 - D(z)) = 2 log 2 - 2 JSD (Goodfellow et al. 2014, Theorem 1)."""
    shift, n = 1.5, 100_000
    u = torch.linspace(-9, 11, 4001).double()
    p, q = (torch.exp(-0.5 * (u - m) ** 2) / math.sqrt(2 * math.pi) for m in (0.0, shift))
    middle = 0.5 * (p + q)
    js = 0.5 * float(torch.trapezoid(p * (p / middle).log() + q * (q / middle).log(), u))
    z = shift + torch.randn(n, 1).double()
    terms = critic_of(Ratio(shift))(None, None, None, z)
    assert_mean(terms["critic"], 2 * math.log(2) - 2 * js)
    fooling = float(torch.trapezoid(-q * (p / (p + q)).log(), u))  # -E_q log D
    assert_mean(terms["fooling"], fooling)


def test_each_part_of_the_critic_trains_one_side():
    network, z = Ratio(1.5), (1.5 + torch.randn(6, 1).double()).requires_grad_()
    critic = critic_of(network, weight=0.3, pace=4.0)
    torch.manual_seed(3)
    terms = critic(None, None, None, z)
    torch.manual_seed(3)
    e = torch.randn_like(z)
    d_e, d_z = (torch.sigmoid(network(v)) for v in (e, z.detach()))
    torch.testing.assert_close(terms["critic"], (-d_e.log() - (1 - d_z).log())[:, 0], check_dtype=False)
    torch.testing.assert_close(terms["fooling"], -0.3 * d_z.log()[:, 0], check_dtype=False)
    (to_codes,) = torch.autograd.grad(terms["fooling"].sum(), z, retain_graph=True)
    want = 0.3 * (1 - d_z) * 1.5  # -log D falls towards the prior, at zero
    torch.testing.assert_close(to_codes, want.detach())
    assert bool((to_codes > 0).all())
    wanted = torch.autograd.grad((-d_e.log() - (1 - d_z).log()).sum(), network.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(terms["critic"].sum(), network.parameters(), retain_graph=True), wanted
    )
    assert torch.autograd.grad(terms["critic"].sum(), z, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(terms["fooling"].sum(), network.parameters(), allow_unused=True) == (None,)
    assert critic.learning_rate_factor == 4.0


def test_a_critic_in_an_autoencoder_is_an_extra():
    x = torch.randn(B, 2)
    model = model_of()
    plain = Autoencoder(model.encoder, model.decoder, model.prior, extras=(critic := Critic(D, 4),))
    assert critic in set(plain.modules())
    terms = plain.terms(x)
    assert {n for n in terms if n.startswith("extra/")} == {"extra/critic", "extra/fooling"}
    assert not any(n.startswith("extra/") for n in plain.terms(x, exact=True))
    encoder, critics = list(plain.encoder.parameters()), list(critic.parameters())
    for name, fed, starved in (("critic", critics, encoder), ("fooling", encoder, critics)):
        loss = terms[f"extra/{name}"].sum()
        got = torch.autograd.grad(loss, [*fed, *starved], allow_unused=True, retain_graph=True)
        assert all(bool(g.abs().sum() > 0) for g in got[: len(fed) - 1])
        assert all(g is None for g in got[len(fed) :])


def test_corruption_hides_a_share_while_training_only():
    shown = Corrupted(nn.Identity(), 0.3)
    x = torch.full((200, 300), -0.5)
    seen = shown(x)
    assert sorted(seen.unique().tolist()) == [-0.5, 0.0]
    assert_mean((seen == 0).double().flatten(), 0.3)
    torch.testing.assert_close(shown.eval()(x), x)
    torch.testing.assert_close(Corrupted(nn.Identity(), 0.0)(x), x)


def test_parts_with_a_pace_of_their_own_are_groups_apart():
    model = model_of()
    assert [(f, len(ps)) for f, ps in parameter_groups(model)] == [(1.0, len(list(model.parameters())))]
    critic = Critic(D, 4, pace=3.0)
    whole = Autoencoder(model.encoder, model.decoder, model.prior, extras=(critic,))
    next(iter(model.encoder.parameters())).requires_grad_(False)  # frozen: in no group
    (one, rest), (pace, apart) = parameter_groups(whole)
    assert (one, pace) == (1.0, 3.0)
    assert {id(p) for p in apart} == {id(p) for p in critic.parameters()}
    assert {id(p) for p in rest} == {id(p) for p in model.parameters() if p.requires_grad}
    for p in critic.parameters():
        p.requires_grad_(False)
    assert [f for f, _ in parameter_groups(whole)] == [1.0]
