"""Decoders that write symbol by symbol: against enumeration, by hand, and against an independent search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from closed_forms import assert_mean
from test_sequences import apart, awake, every_sequence
from torch import Tensor, nn

from diled.api import NoBound
from diled.config import DataSpec
from diled.draws import BlockNoise
from diled.errors import ConfigError
from diled.family import model_config
from diled.models.autoregressive import AutoregressiveDecoder, written_with
from diled.models.recipe import Recipe
from diled.models.zoo import build
from diled.nn import causal, sequence
from diled.nn.causal import CausalTransformer, Decoding
from diled.nn.sequence import TransformerEncoder, attention
from diled.sequences import scored
from diled.training import monitors
from diled.training.data import Shuffled, bucketed

L, V, D = 3, 3, 2
TEXT = DataSpec(kind="text", shape=(6,), levels=9, low=0, high=8, symbols=("", *"abcdefgh"))


def writer(inject: str = "both", **more) -> AutoregressiveDecoder:
    torch.manual_seed(1)
    network = CausalTransformer(L, V, width=8, depth=2, heads=2, condition_dim=D, inject=inject, **more)
    return AutoregressiveDecoder(awake(network))


def table(decoder: AutoregressiveDecoder, z: Tensor, rows: Tensor) -> Tensor:
    """p(x | z) of every row for each code, (B, N)."""
    with torch.no_grad():
        return torch.stack([(-decoder(one.expand(len(rows), -1)).nll(rows)).exp() for one in z])


@pytest.mark.parametrize("inject", ["both", "embedding", "memory"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_written_sequence_is_a_distribution_for_each_code(inject: str, tied: bool):
    decoder, rows, z = writer(inject, tied=tied), every_sequence(), torch.randn(3, D)
    p = table(decoder, z, rows)
    torch.testing.assert_close(p.sum(1), torch.ones(3))
    assert apart(p[0], p[1]) > 1e-3, "the code matters"


def test_where_the_code_enters():
    both, offset, memory = (writer(i).network for i in ("both", "embedding", "memory"))
    assert both.offset is not None
    assert both.memory is not None
    assert offset.memory is None
    assert memory.offset is None


def test_draws_have_their_probabilities_given_the_code():
    decoder, rows, n = writer(), every_sequence(), 6000
    z = torch.randn(2, D)
    for one, p in zip(z, table(decoder, z, rows), strict=True):
        x = decoder(one.expand(n, -1)).sample(BlockNoise(3))
        for row, want in zip(rows, p, strict=True):
            assert_mean((x == row).all(1).double(), float(want), slack=1e-3)


def test_logits_are_those_of_states_of_earlier_symbols():
    """Only what counts is computed, and it equals the sum over the logits of every position."""
    network, z = writer().network, torch.randn(4, D)
    x = torch.tensor([[1, 2, 0], [2, 0, 0], [0, 0, 0], [2, 2, 1]])
    logits = network(x, z)
    each = F.cross_entropy(logits.transpose(1, 2), x, reduction="none")
    torch.testing.assert_close(network.nll(x, z), torch.where(scored(x), each, torch.zeros(())))
    short = torch.tensor([[1, 0, 0], [0, 0, 0]])
    assert tuple(network.nll(short, z[:2]).shape) == (2, 3), "columns that nobody needs are filled with 0"


def test_tied_logits_are_products_with_the_table():
    network = writer(tied=True).network
    h = torch.randn(5, 8)
    norm = F.layer_norm(h, (8,), network.out[0].weight, network.out[0].bias)
    torch.testing.assert_close(network.logits(h), norm @ network.embed.symbol[:V].T / 8**0.5 + network.bias)


def test_the_memory_is_a_key_and_a_value_that_every_position_looks_at():
    """By hand: one more position before the first, without a query of its own."""
    network = writer("memory").network
    z, x = torch.randn(2, D), torch.tensor([[1, 2, 1], [2, 1, 0]])
    h = network.embed(F.pad(x, (1, 0), value=V)[:, :-1])
    for block, own in zip(network.blocks, network.memories(z), strict=True):
        q, k, v = block.qkv(block.norm(h)).chunk(3, 2)
        k, v = torch.cat([own[..., :8], k], 1), torch.cat([own[..., 8:], v], 1)
        mixed = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            score = q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5
            later = torch.arange(4)[None, :] > torch.arange(3)[:, None] + 1
            mixed.append(score.masked_fill(later, float("-inf")).softmax(2) @ v[..., part])
        h = h + block.out(torch.cat(mixed, 2))
        h = h + block.net(h)
    torch.testing.assert_close(network.states(x, z), h)


def test_kept_keys_with_a_memory_are_teacher_forcing():
    network, z = writer().network, torch.randn(3, D)
    x, met = torch.tensor([[1, 2, 1], [2, 2, 0], [1, 1, 2]]), torch.zeros(3, L, V)

    def choose(logits: Tensor, i: int, rows: Tensor) -> Tensor:
        met[rows, i] = logits
        return x[rows, i]

    with torch.no_grad():
        network.draw(3, choose, z)
        torch.testing.assert_close(met, network(x, z), rtol=1e-4, atol=1e-5)


def test_queries_and_kept_keys_are_of_one_type_in_half_precision(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def spy(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Tensor:
        seen.append({q.dtype, k.dtype, v.dtype})
        return attention(q, k, v, *rest, **more)

    monkeypatch.setattr(sequence, "attention", spy)  # accelerators refuse others
    network = writer().network
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network.write(torch.randn(2, D), Decoding())
        network.write(torch.randn(2, D), Decoding(beams=2))
    assert len(seen) > 2
    assert all(len(types) == 1 for types in seen)


def test_draws_do_not_depend_on_which_others_have_ended():
    decoder, z = writer(), torch.randn(40, D)
    noise = torch.randn(40, L)
    together = decoder(z).sample(lambda shape: noise)
    for i in range(0, 40, 9):
        assert torch.equal(decoder(z[i : i + 1]).sample(lambda shape, i=i: noise[i : i + 1])[0], together[i])


def test_a_wide_search_finds_the_likeliest_sequence_and_a_narrow_one_follows_the_likeliest_symbols():
    decoder, rows, z = writer(), every_sequence(), 3 * torch.randn(30, D)
    p = table(decoder, z, rows)
    with torch.no_grad():
        wide = decoder.network.search(z, V**L)
        assert torch.equal(wide, rows[p.argmax(1)])
        greedy = decoder(z).mode
        assert torch.equal(decoder.network.search(z, 1), greedy)
        for x, one in zip(greedy, z, strict=True):
            logits = decoder.network(x[None], one[None])[0]
            size = int(scored(x[None]).sum())
            assert logits.argmax(1)[:size].tolist() == x[:size].tolist()
        assert (p.gather(1, p.argmax(1, keepdim=True))[:, 0] - table(decoder, z, greedy).diagonal()).max() > 1e-3


def beam_search(network: CausalTransformer, z: Tensor, k: int) -> list[int]:
    """The same search on lists, with every probability computed from the start."""
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for i in range(network.length):
        grown = []
        for score, row in kept:
            if row and row[-1] == 0:
                grown.append((score, row))
                continue
            x = torch.tensor([row + [0] * (network.length - i)])
            log_p = network(x, z[None])[0, i].log_softmax(0)
            grown += [(score + float(log_p[a]), [*row, a]) for a in range(network.symbols)]
        kept = sorted(grown, reverse=True)[:k]
    row = kept[0][1]
    return row + [0] * (network.length - len(row))


def test_a_search_keeps_the_likeliest_beginnings():
    torch.manual_seed(2)
    network = awake(CausalTransformer(6, 5, width=8, depth=2, heads=2, condition_dim=D))
    z = 3 * torch.randn(24, D)
    with torch.no_grad():
        network.embed.symbol.mul_(4)  # so that it matters what was written before, and is written to the end
        network.out[1].weight.mul_(3)
        network.out[1].bias[0] -= 5
        for k in (2, 3):
            assert network.search(z, k).tolist() == [beam_search(network, one, k) for one in z]


def test_a_search_goes_on_with_what_may_still_be_the_likeliest(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(5)
    network = awake(CausalTransformer(12, 5, width=8, depth=2, heads=2, condition_dim=D))
    z, k, sizes, step = 3 * torch.randn(60, D), 3, [], causal._Writing.step

    def counted(self: causal._Writing, now: Tensor, i: int) -> Tensor:
        sizes.append(len(now))
        return step(self, now, i)

    monkeypatch.setattr(causal._Writing, "step", counted)
    with torch.no_grad():
        network.embed.symbol.mul_(4)
        network.out[1].weight.mul_(3)
        network.out[1].bias[0] += 2
        together = network.search(z, k)
        assert max(sizes) == sizes[0] == len(z) * k
        assert 0 < sizes[-1] < 0.2 * len(z) * k
        alone = [network.search(one[None], k)[0] for one in z]
        assert torch.equal(together, torch.stack(alone))
        network.out[1].bias[0] += 100  # nothing is likelier than to write nothing
        sizes.clear()
        assert not network.search(z, k).any()
        assert sizes == [len(z) * k]


def test_beams_temperature_and_top_p_are_set_for_a_while():
    decoder, z = writer(), 3 * torch.randn(30, D)
    plain = decoder(z).mode
    with written_with(decoder, beams=V**L):
        assert torch.equal(decoder(z).mode, decoder.network.search(z, V**L))
        assert not torch.equal(decoder(z).mode, plain)
    assert torch.equal(decoder(z).mode, plain)
    with written_with(decoder, temperature=1e-4):
        assert torch.equal(decoder(z).sample(), plain)
    with written_with(decoder, top_p=1e-9):
        assert torch.equal(decoder(z).sample(), plain)
    with (
        pytest.raises(ConfigError, match="beams have no meaning for a model that does not write"),
        written_with(nn.Linear(1, 1), beams=2),
    ):
        pass


def test_draws_at_a_temperature_and_among_the_likeliest_by_hand():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    n = 20_000
    noise = torch.randn(n)
    cold = Decoding(temperature=0.5).draw(logits.expand(n, -1), noise)
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    for symbol, want in enumerate(squares / squares.sum()):
        assert_mean((cold == symbol).double(), float(want), slack=1e-3)
    few = Decoding(top_p=0.7).draw(logits.expand(n, -1), noise)
    for symbol, want in enumerate([0.625, 0.375, 0.0, 0.0]):
        assert_mean((few == symbol).double(), want, slack=1e-3)


@pytest.mark.parametrize(("key", "value"), [("beams", 0), ("temperature", 0.0), ("top_p", 0.0), ("top_p", 1.5)])
def test_decodings_that_mean_nothing_are_refused(key: str, value: float):
    with pytest.raises(ConfigError, match=f"{key} = "):
        Decoding(**{key: value})


def test_hidden_symbols_are_hidden_in_training_alone():
    network = writer(word_dropout=0.5).network
    x, z, seen = torch.ones(400, L, dtype=torch.long), torch.zeros(400, D), {}
    network.embed.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    network.states(x, z)
    assert not bool((seen["x"] == network.hidden).any())
    network.train()
    network.states(x, z)
    assert bool((seen["x"][:, 0] == network.start).all()), "the start is no symbol of the sequence"
    assert_mean((seen["x"][:, 1:] == network.hidden).double().flatten(), 0.5)


def test_no_entropy_and_no_broken_rows():
    p = writer()(torch.zeros(1, D))
    with pytest.raises(NoBound, match="sum over all sequences"):
        p.entropy()
    with pytest.raises(NoBound, match="goes on after its end"):
        p.check(torch.tensor([[0, 1, 0]]))


# In models ------------------------------------------------------------------------------------------------------------


def test_text_is_written_symbol_by_symbol_and_proteins_all_at_once_unless_told_otherwise():
    text = model_config("diled", {}).resolved(TEXT)
    assert (text.network.kind, text.network.autoregressive, text.latent_dim) == ("transformer", True, 128)
    protein = TEXT.model_copy(update={"kind": "protein"})
    once = model_config("diled", {"network": {"kind": "transformer"}}).resolved(protein)
    assert once.network.autoregressive is False
    written = model_config("diled", {"network": {"kind": "transformer", "autoregressive": True}})
    assert isinstance(build("diled", written, protein).model.decoder, AutoregressiveDecoder)
    with pytest.raises(ConfigError, match="'mlp' reads all symbols"):
        model_config("vae", {"network": {"kind": "mlp"}}).resolved(TEXT)
    with pytest.raises(ConfigError, match=r"word_dropout.*no effect"):
        model_config("vae", {"network": {"kind": "mlp", "word_dropout": 0.5}})
    with pytest.raises(ConfigError, match=r"inject.*autoregressive is false"):
        model_config("vae", {"network": {"autoregressive": False, "inject": "memory"}})


@pytest.mark.parametrize(
    "name", ["diled", "vae", "ldm", "lsgm", "diled_paper", "beta_vae", "daae", "lm", "token_diffusion"]
)
def test_models_of_text_train_bound_and_write(name: str):
    small = {"width": 16, "depth": 1, "heads": 2}
    values = (
        small if name in ("lm", "token_diffusion") else {"latent_dim": 4, "network": {"kind": "transformer", **small}}
    )
    model = build(name, model_config(name, values), TEXT).model
    x = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 1], [0, 0, 0, 0, 0, 0]])
    sum(term.sum() for term in model.train().terms(x).values()).backward()
    model.eval()
    if name != "daae":
        assert tuple(model.bound(x).shape) == (3,)
    if model.has_codes:
        assert tuple(model.reconstruct(x).shape) == (3, 6)


def test_an_encoder_reads_rows_of_one_batch_as_it_reads_them_alone():
    encoder = awake(TransformerEncoder(6, 9, 4, width=8, heads=2))
    x = torch.tensor([[1, 2, 0, 0, 0, 0], [4, 5, 6, 7, 8, 1]])
    torch.testing.assert_close(encoder(x)[0], encoder(x[:1])[0])


def tiny(name: str) -> Recipe:
    torch.manual_seed(0)
    network = {"kind": "transformer", "width": 16, "depth": 1, "heads": 2}
    return build(name, model_config(name, {"latent_dim": 4, "network": network}), TEXT)


def sizes_in(module: nn.Module) -> list[int]:
    """How many examples a module is given at once; filled as it is called."""
    sizes: list[int] = []
    module.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    return sizes


@pytest.mark.parametrize("name", ["ldm", "ae", "daae"])
def test_second_stages_read_codes_in_batches_and_begin_as_from_all_at_once(name: str):
    recipe, x = tiny(name), written(1100)
    model: Any = recipe.model.eval()
    (stage,) = (stage for stage in recipe.stages if stage.prepare)
    with torch.no_grad():
        torch.manual_seed(1)
        model.prior.fit(model.encoder(x).sample())
        want = {key: value.clone() for key, value in model.prior.state_dict().items()}
        sizes = sizes_in(model.encoder)
        torch.manual_seed(1)
        stage.prepare(x)
    assert sizes == [2, 3, 512, 512, 76]  # the first two tell how much memory a text takes
    for key, value in model.prior.state_dict().items():
        assert torch.equal(value, want[key]), key


@pytest.mark.parametrize("name", ["vae", "ae"])
def test_monitors_read_texts_in_batches_and_see_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    model: Any = awake(tiny(name).model.eval())
    x, seen = written(300), []
    for at_once in (300, 128):
        monkeypatch.setattr(monitors, "SEQUENCES", at_once)
        read, wrote = sizes_in(model.encoder), sizes_in(model.decoder)
        seen.append(monitors.health(model, x).values)
        assert set(read) == set(wrote) == {2, 3, *([300] if at_once == 300 else [128, 44])}  # 2 and 3 tell the memory
    a, b = seen
    assert a.keys() == b.keys() >= {"distortion", "shuffled_distortion", "symbol_accuracy", "code_rms"}
    for key, value in a.items():  # a posterior's draws differ
        assert b[key] == pytest.approx(value, rel=1e-5 if name == "ae" else 0.1), key


def written(n: int) -> Tensor:
    """Rows of text of all lengths."""
    generator = torch.Generator().manual_seed(0)
    rows, sizes = (torch.randint(1, k, (n, m), generator=generator) for k, m in ((9, 6), (7, 1)))
    return torch.where(torch.arange(6) < sizes, rows, 0)


# Batches of one length ------------------------------------------------------------------------------------------------


def test_batches_have_nearly_equal_lengths_and_every_example_once_an_epoch():
    sizes = torch.randint(1, 40, (5000,), generator=torch.Generator().manual_seed(0))
    values = (torch.arange(40) < sizes[:, None]).long()
    plain, source = Shuffled(values), Shuffled(values, batch=32)
    widest = []
    for step in range(2 * 5000 // 32):
        rows = source.rows(step * 32, 32, seed=1)
        widest.append(int(sizes[rows].max() - sizes[rows].min()))
    for epoch in (0, 1):
        assert torch.equal(source.order(epoch, 1).sort().values, torch.arange(5000))
    assert sorted(widest)[len(widest) // 2] <= 2, "half of the batches are of nearly one length"
    assert sum(widest) < 0.2 * sum(
        int(sizes[r].max() - sizes[r].min()) for r in plain.order(0, 1).split(32) for _ in range(2)
    )
    again = Shuffled(values, batch=32)
    assert torch.equal(again.rows(7 * 32, 32, 1), source.rows(7 * 32, 32, 1)), "a function of seed and step alone"
    firsts = source.order(0, 1)[: 50 * 32].split(32)
    means = torch.stack([sizes[rows].double().mean() for rows in firsts])
    assert not torch.equal(means, means.sort().values), "batches come in a random order"


def test_buckets_begin_where_a_batch_begins():
    order, sizes = torch.arange(20), torch.arange(20).flip(0)
    found = bucketed(order, sizes, 4, 3, torch.Generator().manual_seed(0))
    assert torch.equal(found[:3], order[:3])
    for batch in found[3:].split(4):
        assert int(batch.max() - batch.min()) == len(batch) - 1, "neighbours in size are in one batch"
    assert found[-1] == 3, "what fills no batch comes last"
