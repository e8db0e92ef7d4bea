"""Sequences of symbols: their distribution against enumeration, and what their networks see."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from closed_forms import assert_mean
from torch import Tensor

from diled import sequences
from diled.api import NoBound
from diled.nn.causal import CausalTransformer
from diled.nn.image import MLPDecoder
from diled.nn.sequence import (
    MaskedTransformer,
    SequenceMLPEncoder,
    TransformerDecoder,
    TransformerEncoder,
    attention,
    one_hot,
    present,
)
from diled.sequences import TokenSequence, cut, kept_nll, lengths, pick, scored, token_nll

L, V = 3, 3


def every_sequence(length: int = L, symbols: int = V) -> Tensor:
    """All sequences of length 0 to `length`, (N, length): those rows whose symbols come before their ends."""
    rows = itertools.product(range(symbols), repeat=length)
    return torch.tensor([row for row in rows if all(a or not b for a, b in itertools.pairwise(row))])


def by_hand(log_p: Tensor, row: list[int]) -> float:
    """log p(x) of one sequence, symbol by symbol up to the first end."""
    total = 0.0
    for i, symbol in enumerate(row):
        total += float(log_p[i, symbol])
        if symbol == 0:
            break
    return total


def some(n: int = 1, *, scale: float = 1.5, seed: int = 0) -> TokenSequence:
    return TokenSequence(scale * torch.randn(n, L, V, generator=torch.Generator().manual_seed(seed)))


def probabilities(p: TokenSequence) -> Tensor:
    """Of every sequence, by hand, (N,)."""
    log_p = p.logits[0].double().log_softmax(1)
    return torch.tensor([by_hand(log_p, row) for row in every_sequence().tolist()], dtype=torch.float64).exp()


# The distribution -----------------------------------------------------------------------------------------------------


def test_lengths_and_what_is_scored():
    x = torch.tensor([[0, 0, 0], [2, 0, 0], [2, 1, 2], [0, 2, 1], [1, 0, 2]])
    assert lengths(x).tolist() == [0, 1, 3, 0, 1]
    assert scored(x).long().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert cut(x).tolist() == [[0, 0, 0], [2, 0, 0], [2, 1, 2], [0, 0, 0], [1, 0, 0]]


def test_probabilities_of_all_sequences_add_up_to_one():
    assert len(every_sequence()) == 1 + 2 + 4 + 8
    for seed in range(3):
        p, rows = some(seed=seed), every_sequence()
        nll = TokenSequence(p.logits.expand(len(rows), -1, -1)).nll(rows)
        torch.testing.assert_close(nll.exp().reciprocal().double(), probabilities(p), rtol=1e-5, atol=1e-7)
        assert float((-nll).exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_what_follows_the_end_costs_nothing():
    p = some(2)
    clean, dirty = torch.tensor([[1, 0, 0], [0, 0, 0]]), torch.tensor([[1, 0, 2], [0, 2, 1]])
    torch.testing.assert_close(p.nll(dirty), p.nll(clean))
    each = token_nll(p.logits, dirty)
    torch.testing.assert_close(
        each, -p.log_p.gather(2, clean[..., None])[..., 0] * torch.tensor([[1, 1, 0], [1, 0, 0]])
    )


def test_entropy_is_that_of_the_enumeration():
    for seed in range(4):
        exact = probabilities(some(seed=seed))
        assert float(some(seed=seed).entropy()) == pytest.approx(-float((exact * exact.log()).sum()), abs=1e-5)
    never = torch.zeros(1, L, V)
    never[..., 0] = -200.0
    assert float(TokenSequence(never).entropy()) == pytest.approx(L * torch.tensor(2.0).log().item(), abs=1e-5)
    at_once = torch.zeros(1, L, V)
    at_once[..., 0] = 200.0
    assert float(TokenSequence(at_once).entropy()) == pytest.approx(0.0, abs=1e-5)


def test_the_mode_is_the_most_likely_sequence_of_the_most_likely_length():
    rows = every_sequence()
    for seed in range(12):
        p = some(seed=seed)
        exact = probabilities(p)
        by_length = torch.stack([exact[lengths(rows) == size].sum() for size in range(L + 1)])
        torch.testing.assert_close(p.log_lengths[0].exp().to(exact), by_length, atol=1e-6, rtol=0)
        wanted = torch.where(lengths(rows) == by_length.argmax(), exact, -torch.ones_like(exact)).argmax()
        assert p.mode[0].tolist() == rows[wanted].tolist()
    assert torch.equal(some(5).mean, some(5).mode)


def test_the_mode_is_not_the_likeliest_symbol_at_each_position():
    """The end is the likeliest symbol at the first position, but most sequences are whole; and the other way round."""
    p = TokenSequence(torch.tensor([[[0.4, 0.35, 0.25], [0.0, 0.4, 0.6], [0.0, 0.6, 0.4]]]).clamp(min=1e-9).log())
    assert p.log_p.argmax(2)[0, 0] == 0
    assert p.mode.tolist() == [[1, 2, 1]], "a length of 3 has the probability 0.6"
    p = TokenSequence(torch.tensor([[[0.4, 0.6, 0.0], [0.45, 0.55, 0.0], [0.45, 0.55, 0.0]]]).clamp(min=1e-9).log())
    assert p.log_p.argmax(2).tolist() == [[1, 1, 1]]
    assert p.mode.tolist() == [[0, 0, 0]]
    assert cut(p.mode).tolist() == p.mode.tolist()


def test_draws_have_their_probabilities():
    p, n = some(seed=3), 20_000
    x = TokenSequence(p.logits.expand(n, -1, -1)).sample()
    assert torch.equal(cut(x), x)
    for row, want in zip(every_sequence(), probabilities(p), strict=True):
        assert_mean((x == row).all(1).double(), float(want), slack=1e-4)


def test_a_symbol_is_picked_by_the_distribution_function():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(4, -1)
    u = torch.tensor([0.19, 0.21, 0.69, 0.71])
    assert pick(logits, torch.special.ndtri(u)).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.tensor([[1.0, 0.0, 0.0]]), "no rows of whole numbers from 0 to 2"),
        (torch.tensor([[1, 3, 1]]), "no rows of whole numbers from 0 to 2"),
        (torch.tensor([[1, -1, 1]]), "no rows of whole numbers from 0 to 2"),
        (torch.tensor([[1, 0, 1]]), "goes on after its end"),
    ],
)
def test_what_is_no_sequence_is_refused(x, said):
    with pytest.raises(NoBound, match=said):
        some().check(x)
    some().check(torch.tensor([[1, 2, 0]]))


# The networks ---------------------------------------------------------------------------------------------------------


def awake(network):
    """Layers that start at zero would hide what lies behind them."""
    for p in network.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return network.eval()


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    return float((a - b).detach().abs().max())


ENCODERS = {
    "mlp": lambda: SequenceMLPEncoder(5, 4, 6, width=12),
    "transformer": lambda: TransformerEncoder(5, 4, 6, width=8, depth=2, heads=2),
}
ROWS = torch.tensor([[1, 2, 3, 1, 2], [3, 1, 0, 0, 0], [0, 0, 0, 0, 0], [2, 2, 2, 2, 0]])


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_take_probabilities_in_place_of_symbols(kind):
    network = awake(ENCODERS[kind]())
    whole = one_hot(ROWS, 4).requires_grad_(True)
    torch.testing.assert_close(network(ROWS), network(whole), rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(network(whole).sum(), whole)
    assert bool((slope[0].abs().sum(1) > 0).all()), "every symbol has a gradient"


def test_what_a_transformer_may_see():
    assert present(ROWS).long().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert torch.equal(present(one_hot(ROWS, 4)), present(ROWS))


def test_a_transformer_ignores_what_follows_the_end():
    network = awake(ENCODERS["transformer"]())
    dirty = torch.tensor([[1, 2, 3, 1, 2], [3, 1, 0, 2, 2], [0, 3, 1, 2, 3], [2, 2, 2, 2, 0]])
    torch.testing.assert_close(network(dirty), network(ROWS))
    torch.testing.assert_close(network(one_hot(dirty, 4)), network(ROWS), rtol=1e-5, atol=1e-6)
    shorter = torch.tensor([[1, 2, 3, 1, 0], [3, 0, 0, 0, 0], [1, 0, 0, 0, 0], [2, 2, 2, 0, 0]])
    assert bool((network(shorter) - network(ROWS)).abs().sum(1).gt(1e-3).all()), "and sees what comes before it"


def test_a_transformer_knows_places():
    """A mean over positions does not, unless their vectors enter it."""
    network = awake(ENCODERS["transformer"]())
    assert apart(network(ROWS[:1]), network(ROWS[:1].flip(1))) > 1e-3


@pytest.mark.parametrize(
    "network",
    [
        lambda: MLPDecoder(6, (5, 4), width=12),
        lambda: TransformerDecoder(6, 5, 4, width=8, depth=2, heads=2),
    ],
)
def test_decoders_give_logits_that_all_depend_on_the_code(network):
    z = torch.randn(3, 6, requires_grad=True)
    logits = awake(network())(z)
    assert tuple(logits.shape) == (3, 5, 4)
    for i in range(5):
        (slope,) = torch.autograd.grad(logits[0, i, 1], z, retain_graph=True)
        assert float(slope[0].abs().sum()) > 0
        assert float(slope[1:].abs().sum()) == 0


def test_a_causal_transformer_sees_only_what_comes_before():
    network, kept = awake(CausalTransformer(5, 4, width=8, depth=2, heads=2)), {}
    network.embed.register_forward_hook(lambda module, args, out: kept.update(h=out))
    logits = network(ROWS)
    for i in range(5):
        (slope,) = torch.autograd.grad(logits[:, i].square().sum(), kept["h"], retain_graph=True)
        seen = slope[0].abs().sum(1) > 0
        assert seen.tolist() == [k <= i for k in range(5)], "place k holds symbol k - 1"
    later = ROWS.clone()
    later[:, 3:] = torch.tensor([3, 3])
    torch.testing.assert_close(network(later)[:, :4], logits[:, :4])
    first = ROWS.clone()
    first[0, 0] = 3
    assert apart(network(first)[0, 1], logits[0, 1]) > 1e-3


def test_attention_on_a_processor_is_in_single_precision():
    """Of values in half precision, to which its result is rounded; it can be told from attention in half precision."""
    q, k, v = torch.randn(3, 2, 2, 9, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    single = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(q, k, v, causal=True)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, single)
    assert not torch.equal(F.scaled_dot_product_attention(q, k, v, is_causal=True), single)


@pytest.mark.parametrize("at_once", [1, 12, 2**20])
def test_nats_do_not_depend_on_how_many_logits_are_taken_at_a_time(at_once, monkeypatch):
    monkeypatch.setattr(sequences, "IN_CACHE", at_once)
    logits, x = torch.randn(6, 5, requires_grad=True), torch.tensor([[1, 2, 0], [4, 3, 3]])
    kept = torch.tensor([[True, True, True], [True, True, False]])
    (found,) = torch.autograd.grad(kept_nll(logits[:5], x, kept).sum(), logits)
    want = logits.softmax(1).detach() - F.one_hot(torch.tensor([1, 2, 0, 4, 3, 0]), 5)
    torch.testing.assert_close(found[:5], want[:5])
    nats = -logits.log_softmax(1)[torch.arange(5), [1, 2, 0, 4, 3]]
    torch.testing.assert_close(kept_nll(logits[:5], x, kept), torch.stack([nats[:3], F.pad(nats[3:], (0, 1))]))
    nothing = kept_nll(logits[:0], x, torch.zeros_like(kept))
    assert torch.equal(nothing, torch.zeros(2, 3))


def test_drawing_with_kept_keys_is_teacher_forcing_step_by_step():
    network = awake(CausalTransformer(5, 4, width=8, depth=2, heads=2))
    met = torch.zeros(len(ROWS), 5, 4)

    def choose(logits: Tensor, i: int, rows: Tensor) -> Tensor:
        met[rows, i] = logits
        return ROWS[rows, i]

    with torch.no_grad():
        assert torch.equal(network.draw(len(ROWS), choose), ROWS)
        kept = scored(ROWS)
        torch.testing.assert_close(met[kept], network(ROWS)[kept], rtol=1e-4, atol=1e-5)


def test_a_draw_stops_at_its_end():
    network, met = CausalTransformer(5, 4, width=8, depth=1, heads=2), []

    def choose(logits: Tensor, i: int, rows: Tensor) -> Tensor:
        met.append((i, rows.tolist()))
        return torch.tensor([[1, 0, 2, 2, 2], [3, 1, 0, 2, 2]])[rows, i]

    assert network.draw(2, choose).tolist() == [[1, 0, 0, 0, 0], [3, 1, 0, 0, 0]]
    assert met == [(0, [0, 1]), (1, [0, 1]), (2, [1])], "nothing is computed after an end"


def test_a_masked_transformer_looks_both_ways_and_at_no_hidden_symbol():
    network = awake(MaskedTransformer(5, 4, width=8, depth=1, heads=2))
    x = torch.tensor([[1, 4, 2, 3, 1]])
    for j in (0, 4):
        other = x.clone()
        other[0, j] = 2
        assert apart(network(other)[0, 1], network(x)[0, 1]) > 1e-3
    assert tuple(network(x).shape) == (1, 5, 4)
    torch.testing.assert_close(network.out(network.hidden(x)), network(x))
