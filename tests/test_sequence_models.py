"""Densities of sequences against enumeration: profile, Potts model, language model, and diffusion over symbols."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from closed_forms import assert_mean
from potts_data import PottsData
from test_sequences import awake, by_hand, every_sequence
from tiny import small
from torch import Tensor, nn

from diled.api import NoBound, total
from diled.config import DataSpec
from diled.draws import BlockNoise
from diled.errors import ConfigError
from diled.family import FAMILY, model_config
from diled.model import Model
from diled.models import exact_sequences
from diled.models.critic import Corrupted
from diled.models.exact_sequences import LanguageModel, Potts, Profile, ReadingLanguageModel
from diled.models.io import load_model
from diled.models.properties import PropertyHead
from diled.models.sampling import described, sample_batches, sampled_with
from diled.models.token_diffusion import Guidance, TokenDiffusion
from diled.models.zoo import build
from diled.nn.causal import CausalTransformer
from diled.nn.sequence import MaskedTransformer
from diled.sequences import cut, pick

TRUTH = PottsData()
WITH_ENDS = PottsData(length=3, symbols=3, seed=2, strength=1.0, ends=True)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * float(np.abs(p - q).sum())


def assert_frequencies(x: Tensor, data: PottsData, p: np.ndarray, *, sigmas: float = 5.0) -> None:
    """Draws x follow p over the rows of the data, each within its own error."""
    found, n = data.frequencies(x), len(x)
    gap = np.abs(found - p) / np.sqrt(p * (1 - p) / n + 1e-9 + 1 / n**2)
    assert gap.max() < sigmas, (
        f"row {data.rows[gap.argmax()]}: {found[gap.argmax()]:.4f}, expected {p[gap.argmax()]:.4f}"
    )


# Profile and language model -------------------------------------------------------------------------------------------


def test_a_profile_has_the_frequencies_among_the_positions_that_are_reached():
    x = torch.tensor([[1, 2, 0], [1, 0, 0], [2, 2, 1], [0, 0, 0]])
    model = Profile(3, 3)
    model.fit(x)
    reached = [[1, 1, 2, 0], [2, 0, 2], [0, 1]]
    for i, found in enumerate(reached):
        want = [(found.count(symbol) + 0.5) / (len(found) + 1.5) for symbol in range(3)]
        torch.testing.assert_close(model.logits[i].exp(), torch.tensor(want))
    rows = every_sequence()
    nll = model.terms(rows, exact=True)["nll"]
    want = torch.tensor([-by_hand(model.logits, row) for row in rows.tolist()])
    torch.testing.assert_close(nll, want)
    assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-6)
    assert_mean((model.sample(4000)[:, 0] == 1).double(), 2.5 / 5.5)


def test_a_language_model_is_a_distribution_over_all_sequences_and_draws_from_it():
    model, rows, n = LanguageModel(awake(CausalTransformer(3, 3, width=8, depth=2, heads=2))), every_sequence(), 6000
    with torch.no_grad():
        p = (-model.terms(rows, exact=True)["nll"]).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    x = model.sample(n, noise=BlockNoise(1))
    for row, want in zip(rows, p, strict=True):
        assert_mean((x == row).all(1).double(), float(want), slack=1e-3)


def test_a_language_model_counts_no_symbol_twice():
    """Its nats are those of its logits, symbol by symbol."""
    network = awake(CausalTransformer(3, 3, width=8, depth=1, heads=2))
    x = torch.tensor([[1, 2, 0], [2, 2, 2]])
    want = [-by_hand(logits.log_softmax(1), row) for logits, row in zip(network(x).detach(), x.tolist(), strict=True)]
    torch.testing.assert_close(LanguageModel(network).terms(x)["nll"].detach(), torch.tensor(want))


# Potts ----------------------------------------------------------------------------------------------------------------


def test_energies_are_those_of_fields_and_pairs():
    rows, model = torch.from_numpy(WITH_ENDS.rows), WITH_ENDS.model()
    want = torch.from_numpy(WITH_ENDS.energy(WITH_ENDS.rows)).float()
    torch.testing.assert_close(model.energy(rows), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.energies(), want, rtol=1e-4, atol=1e-5)


def test_log_z_entropy_and_the_best_rows_are_counted():
    for truth in (TRUTH, WITH_ENDS):
        model, energy = truth.model(), truth.energy(truth.rows)
        assert model.log_partition().item() == pytest.approx(math.log(np.exp(-energy).sum()), abs=1e-4)
        assert float(model.entropy()) == pytest.approx(truth.entropy, abs=1e-4)
        assert model.best()[0].tolist() == truth.best.tolist()
        assert model.best(3).tolist() == truth.rows[np.argsort(energy)[:3]].tolist()
        nll = model.terms(torch.from_numpy(truth.rows), exact=True)["nll"].detach().double()
        np.testing.assert_allclose((-nll).exp().numpy(), truth.p, rtol=1e-3, atol=1e-9)


def test_logits_are_the_exact_conditionals():
    model, symbols = WITH_ENDS.model(), range(WITH_ENDS.symbols)
    for row in WITH_ENDS.rows[::5]:
        found = model.logits(torch.from_numpy(row)[None]).detach().softmax(2)[0]
        for i in range(len(row)):
            others = np.array([[*row[:i], a, *row[i + 1 :]] for a in symbols])
            weights = np.exp(-WITH_ENDS.energy(others))
            np.testing.assert_allclose(found[i].numpy(), weights / weights.sum(), rtol=1e-4)


def test_pseudo_likelihood_and_decay_by_hand():
    model = WITH_ENDS.model()
    model.decay = 0.1
    x = WITH_ENDS.draw(5)
    terms = model.terms(x)
    log_p = model.logits(x).log_softmax(2)
    want = [-sum(log_p[n, i, x[n, i]].item() for i in range(3)) for n in range(5)]
    torch.testing.assert_close(terms["pseudo_likelihood"].detach(), torch.tensor(want))
    h, j = WITH_ENDS.parameters
    size = 0.5 * (h**2).sum() + sum((j[i, k] ** 2).sum() for i in range(3) for k in range(i + 1, 3))
    torch.testing.assert_close(terms["extra/decay"].detach(), torch.full((5,), 0.1 * size).float())
    assert set(model.terms(x, exact=True)) == {"nll"}


def test_exact_draws_have_their_probabilities():
    assert_frequencies(TRUTH.model().sample(8000, noise=BlockNoise(0)), TRUTH, TRUTH.p)
    cut_rows = WITH_ENDS.frequencies(cut(torch.from_numpy(WITH_ENDS.rows)))  # where each row goes
    assert (cut_rows > 0).sum() == len(every_sequence())
    where = WITH_ENDS.rows * np.cumprod(WITH_ENDS.rows != 0, axis=1)
    p = np.bincount(where @ [9, 3, 1], weights=WITH_ENDS.p, minlength=27)
    assert_frequencies(WITH_ENDS.model().sample(8000, noise=BlockNoise(0)), WITH_ENDS, p)


def test_gibbs_draws_have_the_marginals_of_singles_and_pairs(monkeypatch):
    monkeypatch.setattr(exact_sequences, "COUNTABLE", 10)
    model = TRUTH.model()
    model.sweeps = 40
    with pytest.raises(NoBound, match="4 positions with 4 symbols has too many sequences"):
        model.terms(TRUTH.draw(4), exact=True)
    n = 6000
    x = model.sample(n, noise=BlockNoise(0))
    assert_frequencies(x, TRUTH, TRUTH.p, sigmas=6)
    for found, want in zip(TRUTH.marginals(TRUTH.frequencies(x)), TRUTH.marginals(), strict=True):
        assert np.abs(found - want).max() < 5 * math.sqrt(0.25 / n)


def test_what_can_be_counted():
    assert Potts(20, 2).countable
    assert Potts(4, 21).countable
    assert not Potts(5, 21).countable


def test_a_potts_model_of_too_many_couplings_is_refused():
    spec = DataSpec(kind="text", shape=(40,), levels=1151, low=0, high=1150, symbols=("", *map(str, range(1150))))
    with pytest.raises(ConfigError, match=r"40 positions with 1,151 symbols has 1,033,344,780 couplings, more than"):
        build("potts", model_config("potts"), spec)


def test_pseudo_likelihood_recovers_a_known_potts_model():
    """With n draws the nats exceed the entropy by about (free parameters) / (2 n) = 35 / 8,000."""
    model, x = Potts(4, 4, decay=1e-4), TRUTH.draw(4000, seed=1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = sum(model.terms(x).values()).mean()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        nll = model.terms(torch.from_numpy(TRUTH.rows), exact=True)["nll"].double().numpy()
    assert 0 < (TRUTH.p * nll).sum() - TRUTH.entropy < 0.02
    alone = TRUTH.marginals()[0]
    assert -(alone * np.log(alone + 1e-12)).sum() - TRUTH.entropy > 0.2, "independent positions are far from it"


def test_a_potts_model_begins_as_a_profile_and_decays_towards_it():
    """The filling is a symbol here, and one that never occurs is as rare as half a row in a hundred makes it."""
    model, x = Potts(2, 4), torch.tensor([[1, 2]] * 60 + [[2, 0]] * 38)
    model.fit(x)
    alone = torch.tensor([[0.5, 60.5, 38.5, 0.5], [38.5, 0.5, 60.5, 0.5]]).double() / 100
    rows = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    nats = model.terms(rows, exact=True)["nll"].double()
    torch.testing.assert_close(nats, -(alone[0, rows[:, 0]] * alone[1, rows[:, 1]]).log(), rtol=1e-5, atol=1e-5)
    assert model.terms(x)["extra/decay"].sum() == 0
    with torch.no_grad():
        model.fields += torch.tensor([3.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(model.terms(x)["extra/decay"][0], torch.tensor(1e-3 * 0.5 * 2 * 9))


def test_a_head_reads_what_a_language_model_knows_of_the_whole_sequence():
    """The mean of its hidden states before each symbol and after the last one, whatever fills the row after the end."""
    head = PropertyHead(8, {"y": 0}, width=4, weight=3.0)
    model = ReadingLanguageModel(
        awake(CausalTransformer(3, 4, width=8, depth=1, heads=2, reads_last=True)), head
    ).eval()
    x, y = torch.tensor([[1, 2, 3], [2, 0, 0], [0, 0, 0]]), {"y": torch.tensor([0.5, -1.0, float("nan")])}
    terms = model.terms(x, labels=y)
    torch.testing.assert_close(terms["nll"], model.terms(x, exact=True)["nll"])
    states = model.network.read(x)
    assert states.shape == (3, 4, 8)
    known = torch.stack([states[0].mean(0), states[1, :2].mean(0), states[2, 0]])
    torch.testing.assert_close(model.features(x), known)
    torch.testing.assert_close(terms["extra/property/y"], 3 * head.errors(known, y)["y"])
    assert set(model.terms(x, exact=True)) == {"nll"}
    last = torch.tensor([[1, 2, 1], [2, 0, 0], [0, 0, 0]])
    assert (model.features(last)[0] - known[0]).norm() > 0.01, "the last symbol of a full row counts"
    total(terms).sum().backward()
    assert bool(model.network.embed.position.grad[3].any()), "and is learned from"


# Diffusion over symbols -----------------------------------------------------------------------------------------------


class Oracle(nn.Module):
    """Hidden states that are the logarithms of the exact conditionals of a joint over all rows."""

    def __init__(self, data: PottsData, p: np.ndarray | None = None) -> None:
        super().__init__()
        self.rows, self.p = torch.from_numpy(data.rows), torch.from_numpy(data.p if p is None else p)
        self.mask = data.symbols
        self.embed = nn.Module()
        self.embed.position = nn.Parameter(torch.zeros(data.length, 1))
        self.one_hot = nn.functional.one_hot(self.rows, data.symbols).double()

    def hidden(self, x: Tensor) -> Tensor:
        fits = ((x[:, None] == self.rows) | (x[:, None] == self.mask)).all(2) * self.p
        return torch.einsum("br,rlv->blv", fits / fits.sum(1, keepdim=True), self.one_hot).clamp(min=1e-30).log()

    def out(self, states: Tensor) -> Tensor:
        return states


def oracle(data: PottsData = TRUTH, **more) -> TokenDiffusion:
    return TokenDiffusion(Oracle(data), data.length, **more)


def nll(x: Tensor) -> np.ndarray:
    """-log p of rows of the truth."""
    return -np.log(TRUTH.p[x.numpy() @ [64, 16, 4, 1]])


def test_the_bound_of_exact_conditionals_is_minus_log_p(monkeypatch):
    """The mean over all numbers of hidden symbols, and over all that may be hidden, is the chain rule in every order."""
    x, length = TRUTH.draw(6, seed=3), TRUTH.length
    model, total = oracle(), torch.zeros(6, dtype=torch.float64)
    for k in range(1, length + 1):
        sets = list(itertools.combinations(range(length), k))
        for chosen in sets:
            hidden = torch.zeros(6, length, dtype=torch.bool)
            hidden[:, list(chosen)] = True
            monkeypatch.setattr(model, "hide", lambda n, device, hidden=hidden, k=k: (hidden, torch.full((n,), k)))
            total += model.terms(x, exact=True)["diffusion"].double() / len(sets) / length
    np.testing.assert_allclose(total.numpy(), nll(x), rtol=1e-5)


def test_every_number_of_symbols_and_every_place_is_hidden_equally_often():
    n = 4000
    hidden, count = oracle().hide(n, torch.device("cpu"))
    assert torch.equal(hidden.sum(1), count)
    assert torch.bincount(count).tolist() == [0, 1000, 1000, 1000, 1000], "stratified over the batch"
    assert count[:50].unique().tolist() == [1, 2, 3, 4], "in no order"
    one = hidden[count == 1].double().mean(0)
    for share in one:
        assert abs(float(share) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1000)
    assert_mean(oracle().terms(TRUTH.draw(1).expand(3000, -1), exact=True)["diffusion"], nll(TRUTH.draw(1)).item())


def test_one_position_at_a_time_draws_from_the_joint_and_all_at_once_do_not():
    exact = oracle().sample(6000, noise=BlockNoise(0))
    assert_frequencies(exact, TRUTH, TRUTH.p)
    at_once = oracle(steps=1).sample(6000, noise=BlockNoise(0))
    alone = TRUTH.marginals()[0]
    product = np.prod([alone[i, TRUTH.rows[:, i]] for i in range(TRUTH.length)], axis=0)
    assert_frequencies(at_once, TRUTH, product / product.sum())
    assert total_variation(product, TRUTH.p) > 0.2
    halfway = total_variation(TRUTH.frequencies(oracle(steps=2).sample(6000, noise=BlockNoise(0))), TRUTH.p)
    assert total_variation(TRUTH.frequencies(exact), TRUTH.p) < halfway < total_variation(product, TRUTH.p)


def test_steps_are_set_from_outside_and_a_sampler_is_refused():
    model = oracle()
    assert described(model) == "in random order, 4 steps"
    assert described(model, steps=2) == "in random order, 2 steps"
    assert described(model, steps=9) == "in random order, 4 steps", "there is nothing left to draw"
    with sampled_with(model, steps=1):
        once = model.sample(64, noise=BlockNoise(5))
    assert model.steps is None
    assert torch.equal(torch.cat(list(sample_batches(model, 64, steps=1, seed=5))), once)
    with (
        pytest.raises(ConfigError, match="random order: choose the number of steps only"),
        sampled_with(model, sampler="ddim"),
    ):
        pass


def test_logits_are_made_only_where_symbols_are_drawn(monkeypatch):
    """One set for each position, and the same symbols as if they were made everywhere in every step."""
    model, n, sizes = guided_model(steps=3), 40, []
    noise, out = BlockNoise(2), model.network.out.forward
    place, draws = noise((n, 5)).argsort(1).argsort(1), noise((n, 5))
    want = torch.full((n, 5), model.network.mask)
    with torch.no_grad():
        for low, high in ((0, 1), (1, 3), (3, 5)):
            now = (place >= low) & (place < high)
            want = torch.where(now, pick(model.network(want), draws), want)
    monkeypatch.setattr(
        model.network.out, "forward", lambda states: sizes.append(states.shape[:-1].numel()) or out(states)
    )
    assert torch.equal(model.sample(n, noise=BlockNoise(2)), cut(want))
    assert sizes == [n, 2 * n, 2 * n]


def test_what_is_given_is_kept_and_the_rest_is_drawn_given_it():
    n = 4000
    given = torch.tensor([2, 1, 3, 1]).expand(n, -1)
    free = torch.tensor([True, False, True, False]).expand(n, -1)
    x = oracle().sample(n, noise=BlockNoise(0), given=given, free=free)
    assert torch.equal(x[:, 1], given[:, 1])
    assert torch.equal(x[:, 3], given[:, 3])
    fits = (TRUTH.rows[:, 1] == 1) & (TRUTH.rows[:, 3] == 1)
    assert_frequencies(x, TRUTH, TRUTH.p * fits / TRUTH.p[fits].sum())


def test_no_end_is_drawn_before_a_symbol_that_is_kept():
    n = 500
    given, free = torch.tensor([1, 2, 1]).expand(n, -1), torch.tensor([True, False, True]).expand(n, -1)
    x = oracle(WITH_ENDS).sample(n, noise=BlockNoise(0), given=given, free=free)
    assert bool((x[:, 0] > 0).all())
    assert torch.equal(x[:, 1], given[:, 1])
    assert bool((x[:, 2] == 0).any()), "after it there may be one"
    for half in ({"given": given}, {"free": free}):
        with pytest.raises(ConfigError, match="given and free belong together"):
            oracle(WITH_ENDS).sample(n, **half)


def guided_model(steps: int | None = None) -> TokenDiffusion:
    return TokenDiffusion(awake(MaskedTransformer(5, 4, width=8, depth=1, heads=2)), 5, steps=steps)


DIRECTION = torch.linspace(-1, 1, 8)


def value(mean: Tensor) -> Tensor:
    return mean @ DIRECTION


def test_steps_of_guidance_by_hand():
    """The divergence has the slope (p' - p) W in the states, none at first, and the value that of a mean over L."""
    model = guided_model()
    states, weight = torch.randn(2, 5, 8), model.network.out.weight.detach()
    for steps, temperature in ((1, 0.0), (2, 0.0), (1, 0.3)):
        rate, scale, noise = 0.2, 1.5, torch.randn(2, 40)
        guidance = Guidance(value, scale=scale, steps=steps, rate=rate, temperature=temperature)
        with torch.no_grad():
            before, moved = model.network.out(states).softmax(2), states.clone()
            for _ in range(steps):
                slope = (model.network.out(moved).softmax(2) - before) @ weight - scale * DIRECTION / 5
                moved = moved - rate * slope
            moved = moved + math.sqrt(2 * rate * temperature) * noise.reshape(2, 5, 8)
            found = model.guided(states, guidance, lambda shape, noise=noise: noise.reshape(shape))
            free = torch.tensor([[True, False, True, True, False]]).expand(2, -1)
            held = model.guided(states, guidance, lambda shape, noise=noise: noise.reshape(shape), free)
        torch.testing.assert_close(found, moved, rtol=1e-4, atol=1e-5)
        assert torch.equal(held[~free], states[~free]), "positions that are kept are not moved"
        torch.testing.assert_close(held[free], moved[free], rtol=1e-4, atol=1e-5)


def test_guidance_leads_to_larger_values_and_without_weight_changes_nothing():
    model = guided_model()
    free = model.sample(200, noise=BlockNoise(0))
    assert torch.equal(model.sample(200, noise=BlockNoise(0), guidance=Guidance(value, scale=0.0)), free)
    hidden = lambda x: value(model.network.hidden(x).mean(1)).mean()  # noqa: E731
    with torch.no_grad():
        found = [
            float(hidden(model.sample(200, noise=BlockNoise(0), guidance=Guidance(value, scale=s)))) for s in (0, 5, 20)
        ]
    assert found[0] + 0.02 < found[1] < found[2]


# Saving ---------------------------------------------------------------------------------------------------------------


WITH_HEADS = ("diled", "relso", "lm", "token_diffusion", "nos")


@pytest.mark.parametrize(
    ("name", "head"),
    [(name, False) for name in ("profile", "potts", "lm", "token_diffusion")] + [(name, True) for name in WITH_HEADS],
)
def test_a_saved_model_is_the_same_to_the_last_bit(name, head, tmp_path):
    spec = DataSpec(kind="protein", shape=(4,), levels=4, symbols=("", "A", "C", "D"), labels={"y": []})
    values = small(name) | ({"properties": {"columns": ("y",)}} if head else {})
    config = model_config(name, values | ({"width": 8} if "heads" in FAMILY[name].model_fields else {})).resolved(spec)
    model = build(name, config, spec).model
    for tensor in model.state_dict().values():
        tensor += 0.1 * torch.rand(tensor.shape)
    loaded = load_model(Model(model, spec, name=name, config=config, device="cpu").save(tmp_path / "model"))[0]
    assert model.state_dict().keys() == loaded.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    with torch.no_grad():
        assert torch.equal(model.sample(5, noise=BlockNoise(0)), loaded.sample(5, noise=BlockNoise(0)))


# Corruption of symbols ------------------------------------------------------------------------------------------------


def test_corruption_of_symbols_spares_the_ends():
    shown: list[Tensor] = []
    encoder = nn.Module()
    encoder.forward = lambda x: shown.append(x)  # type: ignore[method-assign]
    model, x = Corrupted(encoder, 0.4, symbols=5), torch.full((4000, 3), 2)
    x[:, 2] = 0
    model.train()(x)
    model.eval()(x)
    assert torch.equal(shown[1], x)
    assert torch.equal(shown[0][:, 2], x[:, 2])
    changed = shown[0][:, :2].flatten()
    for symbol, want in ((0, 0.0), (1, 0.1), (2, 0.7), (3, 0.1), (4, 0.1)):
        assert_mean((changed == symbol).double(), want)
