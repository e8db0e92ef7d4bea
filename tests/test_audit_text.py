"""The audit and synthetic sets of text: the attack by a table is the attack by the whole Jacobian, log p is that of the
enumeration, sets are read in the tokens of the data, and what is a test text is left out."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_synthesis import files, quiet
from test_texts import quick_judge  # noqa: F401 (a fixture)
from torch import Tensor, nn

from diled.api import Density, Noise
from diled.auditing import Subject, audit_models, examples_of, report_audit
from diled.config import PoolConfig, PreprocessConfig, TextConfig
from diled.data import Data, from_strings, open_data, to_strings
from diled.data.synthesis import open_pool, read_manifest
from diled.data.synthetic_texts import rows_of, usable
from diled.diffusion.schedule import LinearLogSNR
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation import audit, sequence_attack
from diled.evaluation.amortization import optimal_bounds
from diled.evaluation.audit import Effort, audit_section
from diled.evaluation.audit_sequences import word_similarity
from diled.evaluation.likelihood import elbo, iwae
from diled.evaluation.sequence_attack import (
    code_jacobian,
    substitution_attack,
    substitution_gaps,
    table_jacobian,
    table_of,
)
from diled.family import model_config
from diled.model import Model
from diled.models.autoencoder import Autoencoder, DiracEncoder, FixedNoiseEncoder, GaussianEncoder
from diled.models.autoregressive import AutoregressiveDecoder
from diled.models.priors import StandardNormal
from diled.models.zoo import build
from diled.nn.causal import CausalTransformer
from diled.nn.pretrained import PretrainedEncoder, PretrainedStates
from diled.nn.sequence import TransformerEncoder
from diled.pools import sequences_of, source_for
from diled.runs import resolve
from diled.synthesizing import fresh, synthesize

SMALL = {"kind": "transformer", "width": 16, "depth": 1, "heads": 2}
LENGTH, SYMBOLS, DIM = 5, 9, 3
EFFORT = Effort(
    bounded=60, examples=12, samples=2, steps=4, weights=10, ode_weights=1, ode_examples=2, references=8, pairs=4
)


def shaken(network: nn.Module, seed: int = 0, size: float = 0.3) -> nn.Module:
    """With other numbers than those it starts from, of which many are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("sentences", PreprocessConfig(limit=600, text=TextConfig(vocabulary=300)))


def model_of(data: Data, name: str = "beta_vae", **values: object) -> Model:
    """An untrained model of a data set."""
    config = model_config(name, values).resolved(data.spec)
    made = build(name, config, data.spec, 0).model
    return Model(shaken(made, size=0.05), data.spec, name=name, config=config)


class Teller(Density):
    """Whose samples are held-out rows, and now and then random tokens."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        junk = np.random.default_rng(0).integers(1, len(data.spec.symbols), (40, data.spec.numel))
        self.register_buffer("rows", torch.from_numpy(np.concatenate([data.validation.values[:400].astype(int), junk])))

    def terms(self, x: Tensor, **options: object) -> dict[str, Tensor]:
        raise NotImplementedError

    def sample(self, n: int, *, noise: Noise | None = None, **options: object) -> Tensor:
        assert noise is not None
        return self.rows[(torch.special.ndtr(noise((n, 1))[:, 0]) * len(self.rows)).long()]


def small_lm(data: Data) -> Model:
    return model_of(data, "lm", width=16, depth=1, heads=2)


# The attack -----------------------------------------------------------------------------------------------------------

ROWS = torch.tensor([[1, 2, 3, 8, 4], [3, 5, 0, 0, 0], [2, 0, 0, 0, 0], [7, 1, 6, 0, 0]])


def encoder_of(kind: str) -> nn.Module:
    out = 2 * DIM if kind == "gaussian" else DIM
    network = shaken(TransformerEncoder(LENGTH, SYMBOLS, out, width=8, depth=1, heads=2)).eval()
    if kind == "gaussian":
        return GaussianEncoder(network)
    return DiracEncoder(network) if kind == "dirac" else FixedNoiseEncoder(network, LinearLogSNR(-5.0, 5.0))


def pretrained() -> nn.Module:
    """Whose tokens are in another order than the data's."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=14, max_position_embeddings=20, **sizes)
    torch.manual_seed(0)
    model = transformers.BertModel(config, add_pooling_layer=False)
    states = PretrainedStates(model, 16, tokens=[3, 9, 8, 7, 6, 11, 10, 13, 12], start=2, pad=0)
    return GaussianEncoder(shaken(PretrainedEncoder(states, 2 * DIM, 2))).eval()


@pytest.mark.parametrize("kind", ["gaussian", "dirac", "fixed", "pretrained"])
def test_the_table_proposes_what_the_whole_jacobian_does(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Candidates and the best of them, step by step, also in pieces."""
    encoder = pretrained() if kind == "pretrained" else encoder_of(kind)
    options = {"substitutions": 3, "residues": [1, 2, 4, 5, 7, 8], "symbols": SYMBOLS, "candidates": 3}
    found = substitution_attack(encoder, ROWS, **options)
    monkeypatch.setattr(sequence_attack, "NUMBERS", 1)
    monkeypatch.setattr(sequence_attack, "ROWS", 5)
    pieces = substitution_attack(encoder, ROWS, **options)
    monkeypatch.setattr(sequence_attack, "table_of", lambda encoder: None)
    whole = substitution_attack(encoder, ROWS, **options)
    for one, other, third in zip(found, pieces, whole, strict=True):
        assert one.tolist() == other.tolist() == third.tolist()
    assert [(found[3][i] != ROWS[i]).sum() for i in range(4)] == [3, 2, 1, 3]
    assert not np.isin(found[3].numpy(), [3, 6])[(found[3] != ROWS).numpy()].any(), "only what may come in does"


@pytest.mark.parametrize("kind", ["gaussian", "pretrained"])
def test_scores_by_the_table_are_those_of_the_whole_jacobian(kind: str):
    encoder = pretrained() if kind == "pretrained" else encoder_of(kind)
    now = ROWS.clone()
    now[0, 1] = 6  # substituted already, so that the code has moved and the position is closed
    start = encoder(ROWS)
    origin, variance = start.mean.detach(), start.var.detach() * torch.tensor([1.0, 4.0, 9.0])
    known = [1, 2, 4, 5, 6, 7]
    whole = torch.stack(list(sequence_attack._scores(encoder, now, origin, variance, symbols=SYMBOLS)))
    table = table_of(encoder)
    by_table = sequence_attack._table_scores(encoder, now, origin, variance, table=table, known=known, reference=ROWS)
    open_ = (now == ROWS) & (ROWS != 0)
    for score, want, here in zip(by_table, whole, open_, strict=True):
        torch.testing.assert_close(score[here][:, known], want[here][:, known], rtol=1e-3, atol=1e-4)
        assert (score[~here] == 0).all()


def test_the_jacobian_of_vectors_times_the_table_is_that_of_symbols():
    encoder = encoder_of("gaussian")
    table = table_of(encoder)
    short = ROWS[1:]
    mean, slopes = table_jacobian(encoder, short, table)
    want, jacobian = code_jacobian(encoder, short, SYMBOLS)
    torch.testing.assert_close(mean, want)
    assert slopes.shape == (3, 4, 8, DIM), "as far as the first end of the longest"
    ours = torch.einsum("va,biad->bivd", table.vectors, slopes)
    torch.testing.assert_close(ours[0, :2], jacobian[0, :2], rtol=1e-3, atol=1e-4)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_whatever_the_order_of_the_references_the_gap_is_that_of_each():
    decoder = shaken(CausalTransformer(LENGTH, SYMBOLS, width=8, depth=1, heads=2, condition_dim=DIM)).eval()
    model = Autoencoder(encoder_of("gaussian"), AutoregressiveDecoder(decoder), StandardNormal((DIM,))).eval()
    options = {"residues": range(1, SYMBOLS), "symbols": SYMBOLS, "candidates": 4}
    (one,) = substitution_gaps(model, ROWS, substitutions=(2,), **options)
    (pieces,) = substitution_gaps(model, ROWS, substitutions=(2,), batch=2, **options)
    assert torch.equal(one.attacked, pieces.attacked)
    for i in range(len(ROWS)):
        alone = substitution_attack(model.encoder, ROWS[i : i + 1], 2, **options)[2]
        assert one.attacked[i].tolist() == alone[0].tolist()
    after = sequence_attack.agreement(*one.decoded)
    torch.testing.assert_close(one.gaps, sequence_attack.agreement(ROWS, one.attacked) - after)


def test_similarity_of_words_by_hand():
    texts = ["the food was good", "a b c", "", "same", "x"]
    others = ["the food was very good", "b d", "", "same", ""]
    assert word_similarity(texts, others).tolist() == pytest.approx([1 - 1 / 5, 1 - 2 / 3, 1.0, 1.0, 0.0])


# Exactly ---------------------------------------------------------------------------------------------------------------


def enumerated() -> tuple[Autoencoder, Tensor, Tensor]:
    """A model of at most 3 of 3 symbols with codes of one dimension, all 40 sequences, and log p of each by quadrature."""
    encoder = GaussianEncoder(shaken(TransformerEncoder(3, 4, 2, width=8, depth=1, heads=2), 1, 0.05))
    network = CausalTransformer(3, 4, width=8, depth=1, heads=2, condition_dim=1, word_dropout=0.5)
    model = Autoencoder(encoder, AutoregressiveDecoder(shaken(network, 2, 0.5)), StandardNormal((1,))).eval()
    every = [r + (0,) * (3 - n) for n in range(4) for r in itertools.product((1, 2, 3), repeat=n)]
    x = torch.tensor(every)
    z, weight = np.polynomial.hermite_e.hermegauss(60)
    with torch.no_grad():
        nll = torch.stack([model.decoder(torch.full((len(x), 1), float(node))).nll(x) for node in z])
    log_weight = torch.from_numpy(np.log(weight / math.sqrt(2 * math.pi)))
    return model, x, (log_weight[:, None] - nll.double()).logsumexp(0)


def test_log_p_of_a_model_that_writes_is_that_of_the_enumeration():
    model, x, log_p = enumerated()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)
    found = iwae(model, x, (1, 3000))
    torch.testing.assert_close(found.best, log_p, atol=0.1, rtol=0)
    assert (found.best - log_p).mean().abs() < 0.01
    assert found.log_p[0].mean() < found.best.mean()
    bound = -elbo(model, x, 200).value
    assert (bound + log_p > -0.05).all()
    best = optimal_bounds(model.train(), x, steps=60, samples=4)
    assert model.training
    again = optimal_bounds(model.eval(), x, steps=60, samples=4)
    torch.testing.assert_close(best.bound, again.bound, msg="no symbol is hidden from the decoder")
    assert (best.best_bound + log_p > -0.05).all(), "no q is better than the truth"
    assert (best.best_bound + log_p).mean() < 0.5 * (bound + log_p).mean(), "and the best ones are near"


def test_texts_go_through_a_decoder_in_parts_that_fit(data: Data, monkeypatch: pytest.MonkeyPatch):
    """Of weights the parts change nothing; the rows follow from the logits that they have."""
    examples = examples_of(Subject("m", None, "", data), 0)
    logits = data.spec.numel * len(data.spec.symbols)
    assert examples.chunk == min(4096, 2**26 // logits)
    monkeypatch.setattr(audit, "LOGITS", 100 * logits)
    assert examples.chunk == 100
    monkeypatch.setattr(audit, "LOGITS", 1)
    assert examples.chunk == 64


# Sections ---------------------------------------------------------------------------------------------------------------


def test_all_sections_of_text(data: Data, quick_judge: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setattr("diled.evaluation.likelihood.ODE_STEPS", 2)
    data = Data(
        data.name, data.spec, *(split.subset(np.arange(100)) for split in (data.train, data.validation, data.test)), []
    )
    quiet(Model(Teller(data), data.spec), 100, tmp_path / "pool", shard_size=64)
    pool = PoolConfig(source=str(tmp_path / "pool"))
    models = {"vae": model_of(data, latent_dim=4, network=SMALL)}
    models["diled"] = model_of(data, "diled", latent_dim=4, network=SMALL, prior={"width": 8, "blocks": 1})
    subjects = [Subject(name, m.density, name, data, pool if name == "vae" else None) for name, m in models.items()]
    found = audit_models(subjects, tmp_path / "audit", effort=EFFORT, say=lambda line: None)
    for name, one in found.items():
        assert not one.refused, name
        assert {"bleu", "exact_match", "bleu_shuffled", "active_units", "mutual_information_nats"} <= set(one.figures)
        assert {"probe_accuracy/logistic", "collapsed", "generalization_gap", "log_p_nats/test"} <= set(one.figures)
        for r in (1, 2, 4):
            before, after = (
                one.figures[f"{k}_similarity/words/substitutions={r}"] for k in ("input", "reconstruction")
            )
            gap = one.figures[f"robustness_gap/words/substitutions={r}"]
            assert gap.value == pytest.approx(before.value - after.value)
            assert gap.value == pytest.approx(one.arrays[f"robustness/gaps/words/substitutions={r}"].mean())
            assert before.value < 1
    assert found["vae"].figures["pool/unique"].n == len(sequences_of(pool, data).values)
    report_audit(found, subjects, tmp_path / "audit")
    page = (tmp_path / "audit" / "audit.html").read_text()
    for said in ("Attacks on vae", "BLEU, codes of others", "MAUVE, real data", "the same, of words"):
        assert said in page
    reference = str(found["vae"].arrays["robustness/shown_reference"][0])
    assert reference in page
    assert reference in to_strings(data.test.values, data.spec)


def test_tokens_that_come_in_occur_in_training(data: Data):
    few = SimpleNamespace(**{**vars(data), "train": data.train.subset(np.arange(3))})
    model = model_of(data, latent_dim=4, network=SMALL).density
    examples = examples_of(Subject("m", model, "", data), 0)
    kept: list[np.ndarray] = []
    real = sequence_attack.substitution_attack

    def spy(*given: object, **options: object) -> list[Tensor]:
        kept.append(np.array(given[3]))
        return real(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_attack, "substitution_attack", spy)
        patch.setattr(examples.__class__, "text", property(lambda self: True))
        other = type(examples)(**{**vars(examples), "data": few})
        audit_section("robustness", model, other, EFFORT)
    assert kept[0].tolist() == sorted(set(few.train.values.ravel().tolist()) - {0})


def test_unseen_texts_have_figures_of_their_own(data: Data):
    """Where some test texts occur in training: those of the others, from the same numbers."""
    both = data.test.subset(np.arange(30))
    values = both.values.copy()
    values[::3] = data.train.values[:10]
    mixed = Data("mixed", data.spec, data.train, data.validation, type(both)(values, both.labels, both.ids), [])
    model = model_of(data, latent_dim=4, network=SMALL).density
    examples = examples_of(Subject("m", model, "", mixed), 0)
    known = {row.tobytes() for row in data.train.values.astype(np.int64)}
    for name, array in (("bounds", "test_bound"), ("amortization", "test_before")):
        found = audit_section(name, model, examples, EFFORT)
        n = len(found.arrays[array])
        fresh = np.array([row.tobytes() not in known for row in examples.test[:n].numpy()])
        assert 0 < fresh.sum() < n
        if name == "bounds":
            mean = found.arrays["test_bound"][fresh].mean()
            assert found.figures["bound_nats/test/unseen"].value == pytest.approx(mean)
            rows = examples.train[: len(found.arrays["train_bound"])].numpy().astype(np.int64)
            every = [row.tobytes() for row in data.train.values.astype(np.int64)]
            once = np.array([every.count(row.tobytes()) == 1 for row in rows])
            assert 0 < once.sum() < len(once)
            gap = mean - found.arrays["train_bound"][once].mean()
            assert found.figures["generalization_gap/unseen"].value == pytest.approx(gap, abs=1e-5)
        else:
            gap = (found.arrays["test_before"] - found.arrays["test_best"])[fresh].mean()
            assert found.figures["amortization_gap_test/unseen"].value == pytest.approx(gap, abs=1e-5)


def test_what_cannot_be_attacked_or_compared_is_refused_in_words(data: Data):
    model = model_of(data, latent_dim=4, network=SMALL)
    model.density.encoder.network = nn.Sequential(model.density.encoder.network)
    examples = examples_of(Subject("m", model.density, "", data), 0)
    with pytest.raises(ModelError, match=r"does not begin with a table of the data's tokens"):
        audit_section("robustness", model.density, examples, EFFORT)
    reading = pretrained()
    reading.network.reread = lambda x: x
    assert table_of(reading) is None
    other = open_data("sentences", PreprocessConfig(limit=600, text=TextConfig(vocabulary=280)))
    two = [Subject(name, None, "", one) for name, one in (("a", data), ("b", other))]
    with pytest.raises(ConfigError, match=r"a and b are models of texts in other tokens") as refusal:
        audit_models(two, Path("unused"), say=lambda line: None)
    assert len(str(refusal.value)) < 200


# Synthetic sets ---------------------------------------------------------------------------------------------------------


def test_shards_of_text_are_read_alike_by_datasets_and_by_us(data: Data, tmp_path: Path):
    lm = Model(Teller(data), data.spec)
    quiet(lm, 200, tmp_path / "pool", shard_size=64, seed=3)
    drawn = lm.sample(200, seed=3)
    texts = to_strings(drawn, data.spec)
    datasets = pytest.importorskip("datasets")
    shards = sorted(str(path) for path in (tmp_path / "pool" / "data").iterdir())
    theirs = datasets.Dataset.from_parquet(shards, cache_dir=str(tmp_path / "cache"))
    assert theirs["text"][:] == texts
    assert theirs["index"][:] == list(range(200))
    found = open_pool(tmp_path / "pool", data.spec)
    rows, numbers = rows_of(texts, data.spec)
    np.testing.assert_array_equal(found.values, rows)
    np.testing.assert_array_equal(found.numbers, numbers)
    assert found.values.dtype == data.train.values.dtype
    assert to_strings(found.values, data.spec) == [texts[i].strip() for i in numbers]
    ours = open_data(tmp_path / "pool" / "data", PreprocessConfig(on_error="skip"))
    assert ours.spec.kind == "text"
    read = {text for split in (ours.train, ours.test) for text in to_strings(split.values, ours.spec)}
    assert read <= {text.strip() for text in texts}
    assert len(read) > 50


def test_workers_write_the_same_texts_and_go_on(data: Data, tmp_path: Path):
    lm = small_lm(data)
    quiet(lm, 200, tmp_path / "one", shard_size=64)
    for part in ("1/2", "0/2"):
        quiet(lm, 200, tmp_path / "two", shard_size=64, shard=part)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    (tmp_path / "two" / "data" / "pool-00001-of-00004.parquet").unlink()
    quiet(lm, 200, tmp_path / "two", shard_size=64)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    other = model_of(open_data("sentences"), "lm", width=16, depth=1, heads=2)
    with pytest.raises(ConfigError, match="was begun with weights") as refusal:
        quiet(other, 200, tmp_path / "one", shard_size=64)
    assert len(str(refusal.value)) < 400


def test_a_set_is_read_in_the_tokens_of_the_data(data: Data, tmp_path: Path):
    """Of another tokenizer and length; what is too long then is left out, and folds count it."""
    (tmp_path / "some").mkdir()
    test, train = (to_strings(split.values, data.spec) for split in (data.test, data.train))
    lines = [train[0], test[0], "the food was good .", "word " * 60, "a\x07bell", train[1], test[1], "new and fine ."]
    (tmp_path / "some" / "gpt.txt").write_text("\n".join(lines) + "\n")
    synthesize(tmp_path / "some", probe=False, say=lambda line: None)
    manifest = read_manifest(tmp_path / "some")
    assert manifest["settings"]["n"] == manifest["shards"][-1]["stop"]
    for vocabulary in (300, 280):
        there = open_data("sentences", PreprocessConfig(limit=600, text=TextConfig(vocabulary=vocabulary)))
        found = sequences_of(PoolConfig(source=str(tmp_path / "some")), there)
        assert to_strings(found.values, there.spec) == [train[0], "the food was good .", train[1], "new and fine ."]
        assert (found.held, found.copies) == (2, 2)
    said: list[str] = []
    values = {"pool.source": str(tmp_path / "some"), "training.batch_size": 2}
    config = resolve("sentences", "beta_vae", None, values)
    assert len(source_for(config, data, said.append).values) == 4
    assert said[0].startswith("4 synthetic texts of")
    assert "2 are copies of training texts" in said[0]
    assert "are no texts that the model reads, 2 are test texts" in said[0]
    with pytest.raises(DataError, match=r"--pool.folds 2 needs 1,200"):
        sequences_of(PoolConfig(source=str(tmp_path / "some"), folds=2), data)


def test_which_samples_are_used_by_hand():
    """The test texts among the first four are left out unless training has them too."""
    values = np.array([[1, 0], [2, 0], [3, 1], [2, 2], [4, 0]], np.uint16)
    numbers = np.array([0, 2, 3, 4, 5])
    test, train = np.array([[2, 0], [3, 1], [4, 0]]), np.array([[3, 1], [9, 9]])
    found = usable(values, numbers, 5, test, train)
    assert found.values.tolist() == [[1, 0], [3, 1], [2, 2]]
    assert (found.unread, found.held, found.copies) == (1, 1, 1)


def test_what_is_no_text_of_the_data_is_left_out(data: Data):
    long = "the food was good . " * 20
    rows, numbers = rows_of([" the food ", "", "   ", long, "a\x00b", "was good"], data.spec)
    assert numbers.tolist() == [0, 5]
    np.testing.assert_array_equal(rows, from_strings(["the food", "was good"], data.spec))
    with pytest.raises(DataError, match="None of the 2 texts"):
        rows_of(["", long], data.spec)


def test_files_of_text_are_indexed_and_a_note_beside_a_set_is_none(data: Data, tmp_path: Path):
    lines = to_strings(data.validation.values[:40], data.spec)
    for name, part in (("a.txt", lines[:10]), ("b.txt", lines[10:40])):
        (tmp_path / name).write_text("\n".join(part) + "\n\n")
    synthesize(tmp_path, 40, probe=False, say=lambda line: None)
    shards = read_manifest(tmp_path)["shards"]
    assert [(s["file"], s["start"], s["stop"]) for s in shards] == [("a.txt", 0, 10), ("b.txt", 10, 40)]
    assert to_strings(open_pool(tmp_path, data.spec).values, data.spec) == lines
    (tmp_path / "b.txt").write_text("other\n")
    with pytest.raises(DataError, match=r"b.txt is not what the manifest says"):
        open_pool(tmp_path, data.spec)
    quiet(small_lm(data), 64, tmp_path / "pool")
    shards_alone = tmp_path / "pool" / "data"
    (shards_alone / "README.txt").write_text("samples of a language model\n")
    synthesize(shards_alone, 64 - blank(shards_alone), probe=False, data="sentences", say=lambda line: None)


def blank(folder: Path) -> int:
    """How many texts of a shard are empty."""
    import pyarrow.parquet as pq

    return sum(not t.strip() for p in folder.glob("*.parquet") for t in pq.read_table(p)["text"].to_pylist())


def test_the_probe_of_texts_stands_beside_held_out_ones(data: Data, tmp_path: Path):
    (tmp_path / "some").mkdir()
    train = to_strings(data.train.values[:3], data.spec)
    lines = [*train, *train[:1], "a b c", "a b d"] * 4
    (tmp_path / "some" / "x.txt").write_text("\n".join(lines) + "\n")
    found = synthesize(tmp_path / "some", data="sentences", say=lambda line: None)["probe"]
    assert found["samples"] == 24
    assert found["unique"] == pytest.approx(5 / 24)
    words = sum(len(t.split()) for t in lines) / 24
    assert found["words"] == pytest.approx(words)
    assert found["copied"] == pytest.approx(16 / 24)
    assert found["held_out_copied"] == 0
    assert 4 < found["held_out_words"] < 9
    json.dumps(found, allow_nan=False)


def test_a_run_of_another_tokenizer_draws_nothing_fresh(data: Data, tmp_path: Path):
    other = open_data("sentences", PreprocessConfig(limit=600, text=TextConfig(vocabulary=280)))
    same = data.spec.model_copy(update={"tokenizer": other.spec.tokenizer})
    lm = small_lm(data)
    lm.save(tmp_path / "lm")
    config = resolve("sentences", "beta_vae", None, {"pool.fresh": str(tmp_path / "lm"), "training.device": "cpu"})
    drawn = source_for(config, data, lambda line: None)
    assert drawn.some(3).shape == (3, data.spec.numel)
    with pytest.raises(DataError, match="tokens of another tokenizer"):
        source_for(config, Data("d", same, data.train, data.validation, data.test, []), lambda line: None)
    assert fresh(lm, 0, 4)(0).shape == (4, data.spec.numel)
