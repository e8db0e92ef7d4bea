"""Text from pretrained parts, tried with tiny random ones: against the models themselves, by hand, and end to end."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closed_forms import assert_mean
from test_causal import beam_search, table
from test_sequences import apart, every_sequence
from tiny import at_step, diled, kill, log, weights
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

import diled as library
from diled.config import DataSpec
from diled.data.grammar import sentences
from diled.data.text import decode_rows, encode_texts, load_tokenizer, text_spec
from diled.errors import ConfigError, DiledError
from diled.family import model_config
from diled.folders import read_architecture, read_encoder
from diled.models.autoregressive import AutoregressiveDecoder
from diled.models.check import check_model
from diled.models.io import load_model
from diled.models.parts import decoder as decoder_of
from diled.models.parts import encoder_network
from diled.models.pretrained import check_rereading, load_pretrained
from diled.models.zoo import build
from diled.nn.causal import Writer
from diled.nn.pretrained import PretrainedEncoder
from diled.nn.pretrained_decoder import PretrainedDecoder
from diled.sequences import scored
from diled.tokens import word_pieces
from diled.training.stages import parameter_groups

TEXTS = sentences(120, 0)[0]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZE: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.5}
D, LENGTH = 2, 40
KINDS = ("gpt2", "llama", "opt")


def model_of(kind: str, rows: int, positions: int = 40, **more: Any) -> Any:
    """A tiny random decoder."""
    import transformers as t

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    sizes = {**SIZE, "vocab_size": rows, "max_position_embeddings": positions, **ends, **more}
    if kind == "gpt2":
        return t.GPT2LMHeadModel(t.GPT2Config(**sizes))
    if kind == "llama":
        return t.LlamaForCausalLM(t.LlamaConfig(**sizes, intermediate_size=12, num_key_value_heads=1))
    return t.OPTForCausalLM(t.OPTConfig(**sizes, ffn_dim=12, init_std=0.5, word_embed_proj_dim=6))


def save_bytes(folder: Path, **named: str) -> int:
    """Byte-level BPE of the sentences, with a special token for the end; its number of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(named or {"eos_token": "<end>"}))
    return tokenizer.get_vocab_size()


def save_bert(folder: Path) -> None:
    """With vocab.txt alone, as small BERTs are published."""
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    vocabulary = tokenizer.get_vocab()
    config = BertConfig(**SIZE, intermediate_size=12, vocab_size=len(vocabulary), max_position_embeddings=60)
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """One folder for each kind of network."""
    place = tmp_path_factory.mktemp("networks")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind in KINDS:
            (place / kind).mkdir()
            model_of(kind, save_bytes(place / kind)).save_pretrained(place / kind)
        save_bert(place / "bert")
    (place / "sentences.txt").write_text("\n".join(TEXTS))
    return place


def spec_of(folder: Path, length: int = LENGTH) -> DataSpec:
    return text_spec(length, load_tokenizer(folder))


def rows_of(texts: list[str], spec: DataSpec) -> Tensor:
    return torch.from_numpy(encode_texts(texts, spec).astype(np.int64))


def network_of(folders: Path, kind: str = "gpt2", /, **more: Any) -> dict[str, Any]:
    return {
        "kind": "pretrained", "folder": str(folders / "bert"), "decoder_folder": str(folders / kind), "heads": 2, **more,
    }  # fmt: skip


def resolved(folders: Path, kind: str = "gpt2", spec: DataSpec | None = None, **more: Any) -> Any:
    values = {"latent_dim": D, "network": network_of(folders, kind, **more)}
    return model_config("vae", values).resolved(spec or spec_of(folders / kind))


def loaded(folders: Path, kind: str = "gpt2", **more: Any) -> PretrainedDecoder:
    """A decoder with the weights of its folder."""
    spec = spec_of(folders / kind)
    network = decoder_of(resolved(folders, kind, **more), spec).network
    load_pretrained(network, folders / kind, more.get("new_blocks", 0))
    return network.eval()


def writer(
    kind: str = "gpt2", inject: str = "both", length: int = 3, tokens: int = 3, **more: Any
) -> AutoregressiveDecoder:
    """Of so many tokens, the last of which is its end, with rows of the table that no token has."""
    from transformers import DynamicCache

    torch.manual_seed(1)
    model = model_of(kind, tokens + 4)
    how = {"dim": D, "start": tokens - 1, "end": tokens - 1, "cache": DynamicCache, "inject": inject, "scale": 0.5}
    return AutoregressiveDecoder(PretrainedDecoder(model, length, tokens + 1, **how, **more).eval())


def own_logits(model: nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


# Probabilities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inject", ["both", "embedding", "memory"])
def test_what_is_written_is_a_distribution_for_each_code(kind, inject):
    decoder, rows, z = writer(kind, inject), every_sequence(), torch.randn(3, D)
    p = table(decoder, z, rows)
    torch.testing.assert_close(p.sum(1), torch.ones(3))
    assert apart(p[0], p[1]) > 1e-3, "the code matters"


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_code_it_is_the_model_itself(folders, kind):
    """Its own log-probabilities of a text, from its token for the beginning to that for the end."""
    network, spec = loaded(folders, kind, inject="embedding"), spec_of(folders / kind)
    from transformers import AutoModelForCausalLM

    model, rows = AutoModelForCausalLM.from_pretrained(folders / kind).eval(), encode_texts(TEXTS[:4], spec)
    end = json.loads(spec.tokenizer)["model"]["vocab"]["<end>"]
    nll = network.nll(torch.from_numpy(rows), torch.zeros(4, D))
    for found, row in zip(nll, rows.tolist(), strict=True):
        ids = [k - 1 for k in row if k]
        log_p = own_logits(model, [end, *ids]).log_softmax(1)
        want = [-float(log_p[i, k]) for i, k in enumerate([*ids, end])][: len(row)]
        torch.testing.assert_close(found[: len(want)], torch.tensor(want), rtol=1e-4, atol=1e-4)
        assert not bool(found[len(want) :].any())


def test_offset_and_prefix_by_hand():
    """GPT-2 from its weights, with one more key and value before the first position of each block."""
    network = writer("gpt2", tokens=5, length=4).network
    model, z = network.model.transformer, torch.randn(2, D)
    x = torch.tensor([[1, 2, 4, 1], [4, 3, 0, 0]])
    ids = torch.tensor([[4, 0, 1, 3], [4, 3, 2, 4]])  # token k is k + 1; the start and the end are 4
    h = model.wte.weight[ids] + model.wpe.weight[:4] + (z @ network.offset.weight.T + network.offset.bias)[:, None]
    memory = (z @ network.memory.weight.T + network.memory.bias).reshape(2, 2, 2, 8)  # row, block, key or value
    for block, own in zip(model.h, memory.unbind(1), strict=True):
        q, k, v = (block.ln_1(h) @ block.attn.c_attn.weight + block.attn.c_attn.bias).chunk(3, 2)
        k, v = torch.cat([own[:, None, 0], k], 1), torch.cat([own[:, None, 1], v], 1)
        mixed = []
        for part in (slice(0, 4), slice(4, 8)):
            score = q[..., part] @ k[..., part].transpose(1, 2) / 2
            later = torch.arange(5)[None, :] > torch.arange(4)[:, None] + 1
            mixed.append(score.masked_fill(later, -math.inf).softmax(2) @ v[..., part])
        h = h + torch.cat(mixed, 2) @ block.attn.c_proj.weight + block.attn.c_proj.bias
        h = h + block.mlp(block.ln_2(h))
    logits = model.ln_f(h) @ model.wte.weight.T
    want = torch.cat([logits[..., 4:5], logits[..., :4], logits[..., 4:5] - 30], 2)
    torch.testing.assert_close(network(x, z), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nats_are_computed_where_they_count(kind):
    network, z = writer(kind, length=4).network, torch.randn(4, D)
    x = torch.tensor([[1, 2, 1, 2], [2, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    each = F.cross_entropy(network(x, z).transpose(1, 2), x, reduction="none")
    torch.testing.assert_close(network.nll(x, z), torch.where(scored(x), each, torch.zeros(())), rtol=1e-4, atol=1e-5)
    seen: list[tuple[int, ...]] = []
    network.model.get_output_embeddings().register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))
    network.nll(x[1:], z[1:])
    assert seen == [(1, 6, 7)]


@pytest.mark.parametrize("kind", KINDS)
def test_kept_keys_are_teacher_forcing(kind):
    """Positions, the prefix and what is kept of those that go on, also where positions are rotations."""
    network, z = writer(kind, length=5, tokens=4).network, 3 * torch.randn(5, D)
    x = torch.tensor([[1, 2, 1, 3, 2], [2, 3, 0, 0, 0], [0, 0, 0, 0, 0], [3, 3, 1, 0, 0], [2, 2, 2, 2, 1]])
    met = torch.zeros(5, 5, 5)

    def choose(logits: Tensor, i: int, rows: Tensor) -> Tensor:
        met[rows, i] = logits
        return x[rows, i]

    with torch.no_grad():
        assert torch.equal(network.draw(5, choose, z), x)
        kept = scored(x)
        torch.testing.assert_close(met[kept], network(x, z)[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_search_keeps_the_likeliest_beginnings(kind):
    network, z = writer(kind, length=4, tokens=5).network, 3 * torch.randn(8, D)
    with torch.no_grad():
        for k in (2, 3):
            assert network.search(z, k).tolist() == [beam_search(network, one, k) for one in z]
    assert len({tuple(row) for row in network.search(z, 3).tolist()}) > 1


def test_the_end_is_its_token_and_is_never_written_as_a_symbol():
    network = writer().network
    logits = torch.arange(7.0)[None]
    assert network.of_symbols(logits).tolist() == [[2.0, 0.0, 1.0, -28.0]]
    x = AutoregressiveDecoder(network)(torch.randn(500, D)).sample()
    assert int(x.max()) < 3


def test_the_offset_and_the_prefix_each_change_what_is_written(folders):
    x = rows_of(TEXTS[:2], spec_of(folders / "gpt2"))
    for inject, part in (("both", "offset"), ("both", "memory"), ("embedding", "offset"), ("memory", "memory")):
        network = loaded(folders, inject=inject)
        assert (network.offset is None, network.memory is None) == (inject == "memory", inject == "embedding")
        before = network.nll(x, torch.ones(2, D))
        with torch.no_grad():
            getattr(network, part).weight.mul_(-20)
        assert apart(network.nll(x, torch.ones(2, D)), before) > 1e-3


def test_hidden_symbols_are_one_learned_vector_in_training_alone():
    network = writer(word_dropout=0.5).network
    x, z, seen = torch.ones(400, 3, dtype=torch.long), torch.zeros(400, D), {}
    network.model.register_forward_pre_hook(
        lambda m, args, values: seen.update(h=values["inputs_embeds"]), with_kwargs=True
    )

    def hidden() -> Tensor:
        network(x, z)
        return (seen["h"] - network.offset.bias - network.blank).abs().amax(2) < 1e-6

    assert not bool(hidden().any())
    network.train()
    found = hidden()
    assert not bool(found[:, 0].any()), "the start is no symbol of the text"
    assert_mean(found[:, 1:].double().flatten(), 0.5)


# What stays as it is --------------------------------------------------------------------------------------------------

EVERY = {"wte", "wpe", "0", "1", "ln_f"}


@pytest.mark.parametrize(
    ("frozen", "new", "trained"),
    [
        ("all", 0, set()), ("all", 1, {"0"}), ("blocks", 0, {"wte"}), ("blocks", 1, {"wte", "0"}), ("none", 0, EVERY),
        (0, 0, {"0", "1", "ln_f"}), (1, 0, {"1", "ln_f"}), (1, 1, {"0", "2", "ln_f"}), (2, 1, {"0", "ln_f"}),
    ],
)  # fmt: skip
def test_frozen_parts_of_a_decoder(folders, frozen, new, trained):
    pace = {"decoder_pace": 0.5} if trained else {}
    network = loaded(folders, decoder_frozen=frozen, new_blocks=new, word_dropout=0.0, **pace).train()
    gpt = network.model.transformer
    parts: dict[str, nn.Module] = {"wte": gpt.wte, "wpe": gpt.wpe, "ln_f": gpt.ln_f}
    parts |= {str(i): block for i, block in enumerate(gpt.h)}
    x = rows_of(TEXTS[:3], spec_of(folders / "gpt2"))
    network.nll(x, torch.ones(3, D)).sum().backward()
    for name, part in parts.items():
        assert {p.requires_grad for p in part.parameters()} == {name in trained}, name
        assert {m.training for m in part.modules()} == {name in trained}, name
        assert {p.grad is not None for p in part.parameters()} == {name in trained}, name
    assert all(p.grad is not None for part in (network.offset, network.memory) for p in part.parameters())
    groups = dict(parameter_groups(network))
    assert set(groups) == ({1.0, 0.5} if trained else {1.0})
    assert {id(p) for p in groups[1.0]} == {id(p) for m in (network.offset, network.memory) for p in m.parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_new_blocks_lie_below_those_of_the_folder(folders, kind):
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(folders / kind).state_dict()
    network = loaded(folders, kind, new_blocks=1)
    found = network.model.state_dict()
    for name, value in own.items():
        place = name
        for i in (1, 0):
            place = place.replace(f".h.{i}.", f".h.{i + 1}.").replace(f".layers.{i}.", f".layers.{i + 1}.")
        assert torch.equal(found[place], value), place
    assert len(found) == len(own) + sum(".0." in name for name in own)
    assert len(network.shapes) == 6


def test_tied_weights_are_kept_once_and_stay_tied(folders):
    network, other = loaded(folders), decoder_of(resolved(folders), spec_of(folders / "gpt2")).network
    state = network.state_dict()
    assert "model.transformer.wte.weight" in state
    assert "model.lm_head.weight" not in state
    other.load_state_dict(state)
    assert other.model.lm_head.weight is other.model.transformer.wte.weight
    assert torch.equal(other.model.lm_head.weight, network.model.lm_head.weight)
    assert "model.lm_head.weight" in loaded(folders, "llama").state_dict(), "that one is not tied"


# Encoders of text -----------------------------------------------------------------------------------------------------


def encoder_of(folders: Path, spec: DataSpec, **more: Any) -> PretrainedEncoder:
    values = {"latent_dim": D, "network": {"kind": "pretrained", "folder": str(folders / "bert"), "heads": 2, **more}}
    torch.manual_seed(0)
    encoder = encoder_network(model_config("vae", values).resolved(spec), spec, 3)
    load_pretrained(encoder.embed, folders / "bert")
    return encoder.eval()


def bert(folders: Path, text: str) -> Tensor:
    """The states of one text, by transformers alone."""
    from transformers import AutoTokenizer, BertModel

    ids = AutoTokenizer.from_pretrained(folders / "bert")(text)["input_ids"]
    with torch.no_grad():
        return (
            BertModel.from_pretrained(folders / "bert").eval()(input_ids=torch.tensor([ids])).last_hidden_state[0, 1:]
        )


def test_an_encoder_reads_texts_with_its_own_tokenizer(folders):
    """The states of all words and of the end are those of the model by itself, whatever else is in the batch."""
    spec, texts = spec_of(folders / "gpt2"), [*TEXTS[:3], "Odd, caf\u00e9 [SEP]!", TEXTS[3]]
    encoder, x = encoder_of(folders, spec), rows_of(texts, spec)
    rows = encoder.reread(x)
    states = encoder.embed(rows)
    for row, state, text in zip(rows, states, texts, strict=True):
        want = bert(folders, text.replace("[SEP]", "[ SEP ]") if "[SEP]" in text else text)
        assert int((row != 0).sum()) == len(want) - 1
        torch.testing.assert_close(state[: len(want)], want, rtol=1e-4, atol=1e-4)
    alone = torch.cat([encoder(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(encoder(x), alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"no probabilities.*network\.kind transformer, or.*--preprocess\.text\.tokenizer"
    ):
        encoder(F.one_hot(x.long(), len(spec.symbols)).float())


def test_an_encoder_whose_tokens_are_the_data_s_makes_no_detour(folders):
    known = read_encoder(folders / "bert", spec_of(folders / "gpt2"))
    spec = text_spec(LENGTH, load_tokenizer(known.tokenizer))
    encoder, x = encoder_of(folders, spec), rows_of(TEXTS[:3], spec)
    assert encoder.reread is None
    for state, text in zip(encoder.embed(x), TEXTS, strict=False):
        want = bert(folders, text)
        torch.testing.assert_close(state[: len(want)], want, rtol=1e-4, atol=1e-4)
    p = F.one_hot(x.long(), len(spec.symbols)).float()
    torch.testing.assert_close(encoder(p), encoder(x), rtol=1e-4, atol=1e-5)
    other = encoder_of(folders, spec_of(folders / "gpt2"))
    back = rows_of(decode_rows(x.numpy(), spec), spec_of(folders / "gpt2"))
    torch.testing.assert_close(other(back), encoder(x), rtol=1e-4, atol=1e-5)


ODD = ["Caf\u00e9 \u00c0 la CARTE!!", "\u4e2d\u6587 mixed", "a\u0301b\x00c\td", "don't... [MASK] #hash", "x" * 120, ""]


@pytest.mark.parametrize(
    "said",
    [{}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": False, "tokenize_chinese_chars": False}],
)
def test_word_pieces_are_those_of_transformers(folders, tmp_path, said):
    from transformers import BertTokenizer

    shutil.copytree(folders / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps(said))
    known = read_encoder(tmp_path / "bert", spec_of(folders / "gpt2"))
    table = {line: i for i, line in enumerate((folders / "bert" / "vocab.txt").read_text().splitlines())}
    ours, theirs = Tokenizer.from_str(known.tokenizer), BertTokenizer(vocab=table, **said)
    for text in [*ODD, *TEXTS[:5]]:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert (known.start, known.tokens, known.pad) == (table["[CLS]"], (table["[SEP]"],), table["[PAD]"])


def test_capitals_without_a_word_on_them(folders, tmp_path):
    shutil.copytree(folders / "bert", tmp_path / "bert")
    path = tmp_path / "bert" / "vocab.txt"
    path.write_text(path.read_text() + "\nPARIS")
    with pytest.raises(ConfigError, match="has capital letters, and nothing says whether"):
        read_encoder(tmp_path / "bert", spec_of(folders / "gpt2"))
    path.write_text("\n".join(line for line in path.read_text().splitlines() if line != "[CLS]"))
    with pytest.raises(ConfigError, match=r"has no \[CLS\]"):
        read_encoder(tmp_path / "bert", spec_of(folders / "gpt2"))


def test_the_frame_of_a_text_is_that_of_the_tokenizer(folders, tmp_path):
    """Not the tokens with usual names, which it has as well."""
    from tokenizers import processors

    table = json.loads((folders / "gpt2" / "tokenizer.json").read_text())["model"]["vocab"]
    for template, want in (("a $A <end>", (table["a"], table["<end>"])), ("$A <end>", (None, table["<end>"]))):
        folder = tmp_path / template[0]
        shutil.copytree(folders / "gpt2", folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        specials = [(t, table[t]) for t in ("a", "<end>")]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
        tokenizer.save(str(folder / "tokenizer.json"))
        known = read_encoder(folder, text_spec(4, word_pieces({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, lowercase=True,
                                                              chinese=True, accents=None)))  # fmt: skip
        assert (known.start, known.tokens[0]) == want
    tokenizer.post_processor = processors.TemplateProcessing(single="a a $A <end>", special_tokens=specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ConfigError, match="puts 2 tokens before a text and 1 after it"):
        read_encoder(folder, text_spec(4, word_pieces({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, lowercase=True,
                                                      chinese=True, accents=None)))  # fmt: skip


def test_texts_that_are_too_long_for_an_encoder(folders):
    """They are refused before a training, with their number; later ones are cut."""
    spec = spec_of(folders / "gpt2", 120)
    encoder = encoder_of(folders, spec)
    texts = [*TEXTS[:3], "z z z z " * 14 + "zz", "z z z z " * 15]
    x = rows_of(texts, spec)
    most = encoder.reread.most
    assert most == 58
    sizes = [len(row) for row in encoder.reread.tokens(x)]
    assert max(sizes[:3]) < most
    assert sizes[3:] == [58, 60]
    check_rereading(encoder, x[:4], "the texts")
    with pytest.raises(ConfigError, match="at most 58 tokens of a text, and number 5 of the texts has 60"):
        check_rereading(encoder, x, "the texts")
    assert encoder.reread(x).shape == (5, 59)
    assert bool(encoder(x).isfinite().all())
    check_rereading(nn.Linear(1, 1), x, "the texts")


# A run ----------------------------------------------------------------------------------------------------------------

WORDS = ["--model.latent_dim", 4, "--model.network.kind", "pretrained", "--model.network.heads", 2, "--report", "false"]
WORDS += ["--training.batch_size", 16, "--training.log_every", 10, "--training.monitor_every", 60, "--device", "cpu"]


def train(folders: Path, place: Path, out: Path, *words: Any) -> int:
    parts = ["--model.network.folder", place / "bert", "--model.network.decoder_folder", place / "gpt2"]
    own = ["--preprocess.text.tokenizer", folders / "gpt2", "--out", out, "--model", "vae"]
    return diled("train", folders / "sentences.txt", *own, *WORDS, *parts, *words)


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory) -> Path:
    """A training of the second block of each, and of a new one, whose folders are gone afterwards."""
    place = tmp_path_factory.mktemp("run")
    for kind in ("bert", "gpt2"):
        shutil.copytree(folders / kind, place / kind)
    frozen = ["--model.network.frozen", 1, "--model.network.decoder_frozen", 1, "--model.network.new_blocks", 1]
    pace = ["--model.network.decoder_pace", 1.0, "--training.learning_rate", 3e-3, "--training.steps", 60]
    assert train(folders, place, place / "run", *frozen, *pace) == 0
    for kind in ("bert", "gpt2"):
        (place / kind).rename(place / f"{kind}-away")
    return place / "run"


def test_a_training_changes_what_is_not_frozen_and_nothing_else(run, folders):
    from transformers import AutoModelForCausalLM, BertModel

    model = load_model(run)[0]
    before = BertModel.from_pretrained(folders / "bert").state_dict()
    after = model.encoder.network.embed.model.state_dict()
    fixed = {name for name in after if torch.equal(before[name], after[name])}
    assert fixed == {name for name in after if name.startswith(("embeddings", "encoder.layer.0"))}
    before = AutoModelForCausalLM.from_pretrained(folders / "gpt2").state_dict()
    after = model.decoder.network.model.state_dict()
    fixed = {
        name
        for name in before
        if torch.equal(before[name], after[name.replace(".h.1", ".h.2").replace(".h.0", ".h.1")])
    }
    still = ("transformer.wte", "transformer.wpe", "transformer.h.0", "lm_head")
    assert fixed == {name for name in before if name.startswith(still)}
    losses = [line["loss"] for line in log(run) if "loss" in line]
    assert losses[-1] < losses[0] - 1


def test_a_run_needs_its_folders_no_more(run, folders):
    first, again = library.load(run), library.load(run)
    x = encode_texts(TEXTS[:6], first.spec)
    np.testing.assert_array_equal(first.bound(x, seed=0), again.bound(x, seed=0))
    texts = [decode_rows(row[None], first.spec)[0] for row in first.sample(3, seed=0)]
    assert all(isinstance(text, str) for text in texts)
    assert first.reconstruct(x).shape == x.shape
    assert not [name for name in weights(run) if name.endswith("lm_head.weight")]
    network = first.config.network
    assert network.architecture.tokenizer is not None
    assert network.architecture.vocabulary is None
    assert network.decoder_architecture.tokenizer is None
    assert first.config.resolved(first.spec) == first.config
    assert len((run / "config.json").read_text().splitlines()) < 400, "no list of all tokens"


def test_a_published_model_does_not_name_local_folders(run, tmp_path, monkeypatch):
    """It loads without them, and what is on the Hub is named still; the model itself keeps its own."""

    class Api:
        def __init__(self, token: str | None) -> None:
            pass

        def create_repo(self, name: str, **options: Any) -> None:
            pass

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
            return str(shutil.copytree(folder_path, tmp_path / repo_id))

    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    model = library.load(run, device="cpu")
    before, want = model.config, model.bound(TEXTS[:2])
    place = Path(model.push_to_hub("you/texts"))
    published = "".join(
        path.read_text() for path in (place / "config.json", place / "provenance.json", place / "README.md")
    )
    for folder in (before.network.folder, before.network.decoder_folder):
        assert folder
        assert folder not in published
    assert model.config is before
    np.testing.assert_array_equal(library.load(place, device="cpu").bound(TEXTS[:2]), want)
    network = before.network.model_copy(update={"folder": "hub:owner/bert"})
    model.config = before.model_copy(update={"network": network})
    again = json.loads((Path(model.push_to_hub("you/again")) / "config.json").read_text())["config"]["network"]
    assert (again["folder"], again["decoder_folder"]) == ("hub:owner/bert", "unpublished")


def test_a_stopped_training_goes_on_without_the_folders(folders, tmp_path, monkeypatch, capsys):
    for kind in ("bert", "gpt2"):
        shutil.copytree(folders / kind, tmp_path / kind)
    words = ["--model.network.decoder_frozen", "blocks", "--training.steps", 6]
    assert train(folders, tmp_path, tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        at_step(patch, 2, kill(signal.SIGTERM))
        assert train(folders, tmp_path, tmp_path / "run", *words) == 130
    assert "Started the decoder from" in capsys.readouterr().out
    for kind in ("bert", "gpt2"):
        shutil.rmtree(tmp_path / kind)
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_such_a_model_keeps_the_contract(folders):
    spec = spec_of(folders / "gpt2")
    config = resolved(folders, decoder_frozen="none", frozen="none")
    recipe = build("vae", config, spec)
    x = rows_of(TEXTS[:4], spec)
    check_model(recipe.model, x, stages=recipe.stages, rebuild=lambda: build("vae", config, spec, 1).model)


# What is refused ------------------------------------------------------------------------------------------------------


def edited(name: str, **more: Any) -> Any:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | more))

    return spoil


def other_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"].append({**values["added_tokens"][0], "id": 320, "content": "<more>"})
    path.write_text(json.dumps(values))


def no_special_end(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"eos_token": "a"}')


SPOILT = {
    "no folder": (shutil.rmtree, "decoder_folder: there is no folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "decoder_folder: .*there is no model.safetensors"),
    "a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "decoder_folder: .*is a pickle"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "no such tokenizer": (edited("tokenizer.json", model={"type": "odd"}), "the tokenizer of .* cannot be read"),
    "other tokens": (other_tokens, r"tokens of its own.*choose its own for them, --preprocess\.text\.tokenizer"),
    "no end": (no_special_end, "no special token for the end"),
    "an encoder": (edited("config.json", model_type="bert"), "'bert' is no decoder of text"),
    "both": (edited("config.json", model_type="t5", is_encoder_decoder=True), "'t5' is an encoder with a decoder"),
    "unknown": (edited("config.json", model_type="gpt9"), "'gpt9' is unknown to transformers"),
    "no cache": (edited("config.json", model_type="mamba", num_hidden_layers=2), "'mamba' cannot write from a code here"),
    "wrong values": (edited("config.json", n_embd="wide"), "describes no decoder"),
    "few rows": (edited("config.json", vocab_size=300), "has 320 tokens, and its table 300 rows only"),
    "few positions": (edited("config.json", n_positions=39), "writes at most 39 tokens, and these texts have up to 40"),
    "a narrow window": (edited("config.json", sliding_window=40), "writes at most 39 tokens"),
    "other weights": (edited("config.json", n_embd=12), "do not fit its config.json"),
    "missing weights": (edited("config.json", n_layer=3), "are incomplete: 'transformer.h.2"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_is_no_decoder(folders, tmp_path, case):
    spoil, said = SPOILT[case]
    for kind in ("bert", "gpt2"):
        shutil.copytree(folders / kind, tmp_path / kind)
    spoil(tmp_path / "gpt2")
    spec = spec_of(folders / "gpt2")
    with pytest.raises(DiledError, match=said):
        load_pretrained(decoder_of(resolved(tmp_path, spec=spec), spec).network, tmp_path / "gpt2")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"decoder_folder": None, "decoder_frozen": "none"}, "'decoder_frozen' has no effect"),
        ({"decoder_folder": None, "new_blocks": 1}, "'new_blocks' has no effect"),
        ({"decoder_pace": 1.0}, "'decoder_pace' has no effect, since network.decoder_frozen is 'all'"),
        ({"width": 64}, "'width' has no effect, since the decoder is that of 'decoder_folder'"),
        ({"decoder": "transformer"}, "'decoder' has no effect"),
        ({"autoregressive": False}, "writes symbol by symbol"),
        ({"decoder_frozen": "some"}, "all, blocks, none or a number of blocks"),
        ({"kind": "transformer"}, "'decoder_folder' has no effect, since network.kind is 'transformer'"),
    ],
)
def test_settings_without_effect(folders, more, said):
    with pytest.raises(ConfigError, match=said):
        model_config("vae", {"network": network_of(folders, **more)})


def test_more_blocks_than_there_are(folders):
    with pytest.raises(ConfigError, match=r"decoder_frozen = 3 does not fit this decoder: it has 2 blocks"):
        loaded(folders, decoder_frozen=3, new_blocks=1)


def test_other_data(folders):
    config = resolved(folders)
    assert config.resolved(spec_of(folders / "gpt2")) == config
    other = text_spec(LENGTH, load_tokenizer(read_encoder(folders / "bert", spec_of(folders / "gpt2")).tokenizer))
    with pytest.raises(ConfigError, match=r"network\.decoder_architecture is of another tokenizer than these data"):
        config.resolved(other)
    protein = DataSpec(kind="protein", shape=(4,), levels=3, low=0, high=2, symbols=("", "a", "b"))
    with pytest.raises(ConfigError, match="decoder_folder is for text, not for data of kind 'protein'"):
        resolved(folders, spec=protein)
    assert read_architecture(folders / "bert", ("", "a", "b")).tokenizer is None


def test_a_writer_by_itself_writes_nothing():
    with pytest.raises(NotImplementedError):
        Writer(3, 3).nll(torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(NotImplementedError):
        Writer(3, 3).draw(1, lambda logits, i, rows: rows)
