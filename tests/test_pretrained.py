"""Pretrained encoders of sequences, tried with tiny random ones: against the models themselves, one sequence at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import at_step, diled, kill, weights
from torch import Tensor, nn

import diled as library
from diled.config import DataSpec
from diled.data.proteins import RESIDUES, SYMBOLS, encode, protein_spec
from diled.errors import ConfigError, ModelError
from diled.family import model_config
from diled.folders import read_architecture
from diled.models import pretrained
from diled.models.check import check_model
from diled.models.io import load_model
from diled.models.pretrained import _frozen, load_pretrained, pretrained_encoder, pretrained_states
from diled.models.zoo import build
from diled.nn.pretrained import PretrainedEncoder, PretrainedStates
from diled.parts import NetworkConfig
from diled.recipes import recipe_of
from diled.runs import RunConfig, read_run
from diled.training.stages import parameter_groups

SMALL: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
LOUD: dict[str, Any] = {**SMALL, "initializer_range": 0.6}
ESM_VOCABULARY = [*"0123", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
ESM_VOCABULARY[:4] = ["<cls>", "<pad>", "<eos>", "<unk>"]
BERT_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWX"]
T5_VOCABULARY = ["<pad>", "</s>", "<unk>", *("\u2581" + letter for letter in "ALGVSREDTIPKFQNYMHWCX")]
KINDS = ("esm", "esm-absolute", "bert", "t5")
SEQUENCES = ["ACDEF", "X", "WY*AC-", "", "KR"]
LENGTH = 6
SPEC = protein_spec(LENGTH)


def save_esm(folder: Path, positions: str) -> None:
    from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

    sizes = {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "max_position_embeddings": 20}
    how = {"position_embedding_type": positions, "emb_layer_norm_before": positions == "absolute"}
    EsmForMaskedLM(EsmConfig(**LOUD, **sizes, **how, token_dropout=True)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ESM_VOCABULARY))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def save_bert(folder: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**LOUD, vocab_size=len(BERT_VOCABULARY), max_position_embeddings=20)
    BertForMaskedLM(config).save_pretrained(folder, max_shard_size="2KB")
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCABULARY))


def save_t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2, "initializer_factor": 3.0}
    config = T5Config(**sizes, vocab_size=len(T5_VOCABULARY), decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    pieces = {"model": {"vocab": [[piece, -1.0] for piece in T5_VOCABULARY]}, "added_tokens": None}
    (folder / "tokenizer.json").write_text(json.dumps(pieces))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """One folder for each kind of encoder."""
    place = tmp_path_factory.mktemp("encoders")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_esm(place / "esm", "rotary")
        save_esm(place / "esm-absolute", "absolute")
        save_bert(place / "bert")
        save_t5(place / "t5")
    return place


def network(folder: Path, **more: Any) -> NetworkConfig:
    values = {"kind": "pretrained", "folder": str(folder), "architecture": read_architecture(folder, SYMBOLS)}
    return NetworkConfig(**values, **more)


def loaded(folder: Path, spec: DataSpec = SPEC, out: int = 3, **more: Any) -> PretrainedEncoder:
    encoder = pretrained_encoder(network(folder, **more), spec, out).eval()
    load_pretrained(encoder.embed, folder)
    return encoder


def rows(texts: list[str], length: int = LENGTH) -> Tensor:
    return torch.from_numpy(encode(texts, length))


def itself(folder: Path) -> nn.Module:
    """The model as transformers has it."""
    from transformers import AutoModel, T5EncoderModel

    kind = T5EncoderModel if folder.name == "t5" else AutoModel
    return kind.from_pretrained(folder).eval()


def tokens_of(folder: Path, text: str) -> list[int]:
    """By the tokenizer where there is one, else by hand."""
    if folder.name.startswith("esm"):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)(text.replace("*", "<unk>"))["input_ids"]
    if folder.name == "t5":
        return [T5_VOCABULARY.index("\u2581" + s) if s in RESIDUES + "X" else 2 for s in text] + [1]
    return [2, *(BERT_VOCABULARY.index(s) if s in RESIDUES + "X" else 1 for s in text), 3]


# The states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_model_itself(folders, kind):
    """Of symbols, and of the end where the row has room for it; a batch with filling against each sequence alone."""
    folder = folders / kind
    model, states = itself(folder), loaded(folder).embed(rows(SEQUENCES))
    first = 0 if kind == "t5" else 1
    for row, text in zip(states, SEQUENCES, strict=True):
        alone = model(input_ids=torch.tensor([tokens_of(folder, text)])).last_hidden_state[0, first:]
        n = min(len(text) + 1, LENGTH)
        torch.testing.assert_close(row[:n], alone[:n], rtol=1e-4, atol=1e-5)
    assert float((states[0, 0] - states[2, 0]).abs().max()) > 0.1, "it depends on the sequence"


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_mean_rows_of_the_table(folders, kind):
    """One-hot rows are symbols; half A and half C is a token of its own whose row is the mean of theirs."""
    folder = folders / kind
    encoder, x = loaded(folder), rows(SEQUENCES)
    torch.testing.assert_close(encoder(F.one_hot(x.long(), len(SYMBOLS)).float()), encoder(x))
    p = F.one_hot(rows(["AKWY"]).long(), len(SYMBOLS)).float()
    p[0, 2] = 0.5 * (p[0, 0] + F.one_hot(torch.tensor(SYMBOLS.index("C")), len(SYMBOLS)))
    p.requires_grad_(True)
    found = encoder.embed(p)[0, :5]
    model, ids = itself(folder), tokens_of(folder, "AKCY")
    first = 0 if kind == "t5" else 1
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[ids[first + 2]] = 0.5 * (table[ids[first]] + table[ids[first + 2]])
    want = model(input_ids=torch.tensor([ids])).last_hidden_state[0, first:]
    torch.testing.assert_close(found, want[:5], rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(found[0].square().sum(), p)
    assert bool(slope[0, :4].abs().amax(1).gt(0).all()), "each symbol is felt, through frozen weights too"


def test_what_follows_the_end_is_not_seen(folders):
    encoder, x = loaded(folders / "esm"), rows(["ACD"])
    changed = x.clone()
    changed[0, 4:] = 7
    assert torch.equal(encoder(changed), encoder(x))
    changed[0, 3] = 7
    assert not torch.allclose(encoder(changed), encoder(x))


def test_sites_are_read_in_the_whole_sequence(folders):
    whole, sites = "MKVLAWQ", (1, 4)
    spec = protein_spec(2, background=whole, sites=sites)
    states = loaded(folders / "esm", spec).embed(rows(["CD", "KA"], 2))
    for row, text in zip(states, ("MCVLDWQ", whole), strict=True):
        ids = torch.tensor([tokens_of(folders / "esm", text)])
        alone = itself(folders / "esm")(input_ids=ids).last_hidden_state[0, 1:]
        torch.testing.assert_close(row, alone[list(sites)], rtol=1e-4, atol=1e-5)


# What stays as it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [("all", set()), ("none", {"embeddings", "layer.0", "layer.1"}), (0, {"layer.0", "layer.1"}), (1, {"layer.1"}), (2, set())],
)  # fmt: skip
def test_frozen_parts_get_no_gradient_and_stay_in_evaluation_mode(folders, frozen, trained):
    encoder = loaded(folders / "esm", frozen=frozen, **({} if frozen == "all" else {"pace": 0.5})).train()
    model = encoder.embed.model
    parts = {"embeddings": model.embeddings, "layer.0": model.encoder.layer[0], "layer.1": model.encoder.layer[1]}
    for name, part in parts.items():
        assert {p.requires_grad for p in part.parameters()} == {name in trained}
        assert {m.training for m in part.modules()} == {name in trained}
    assert encoder.norm.training
    groups = dict(parameter_groups(encoder))
    held = {id(p) for group in groups.values() for p in group}
    assert held == {id(p) for p in encoder.parameters() if p.requires_grad}
    assert set(groups) == ({1.0} if frozen == "all" else {1.0, 0.5})
    same = torch.equal(encoder(rows(SEQUENCES)), encoder(rows(SEQUENCES)))
    assert same == (not trained), "dropout is off in what is frozen"


def test_such_a_model_keeps_the_contract(folders):
    values = {
        "latent_dim": 2,
        "network": {"kind": "pretrained", "folder": str(folders / "esm"), "frozen": 1, "width": 6},
    }
    config = model_config("vae", values).resolved(SPEC)
    recipe = build("vae", config, SPEC)
    check_model(
        recipe.model, rows(SEQUENCES), stages=recipe.stages, rebuild=lambda: build("vae", config, SPEC, 1).model
    )


# A run ----------------------------------------------------------------------------------------------------------------

TINY = ["--model.latent_dim", 2, "--model.network.kind", "pretrained", "--model.network.width", 6, "--report", "false"]
TINY += [
    "--training.steps",
    6,
    "--training.batch_size",
    8,
    "--training.monitor_every",
    6,
    "--device",
    "cpu",
    "--model",
    "vae",
]


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "variants.csv"
    path.write_text("sequence\n" + "\n".join("".join(rng.choice(list("ACDEF"), rng.integers(3, 7))) for _ in range(40)))
    return path


def train(variants: Path, folder: Path, out: Path, *words: Any) -> int:
    return diled("train", variants, "--out", out, *TINY, "--model.network.folder", folder, *words)


@pytest.fixture(scope="module")
def run(folders, variants, tmp_path_factory) -> Path:
    """A training of the second block, whose folder is gone afterwards."""
    place = tmp_path_factory.mktemp("run")
    shutil.copytree(folders / "esm", place / "esm")
    assert train(variants, place / "esm", place / "run", "--model.network.frozen", 1, "--model.network.decoder", "transformer",
                 "--model.network.heads", 2) == 0  # fmt: skip
    (place / "esm").rename(place / "away")
    return place / "run"


def test_a_training_changes_what_is_not_frozen_and_nothing_else(run, folders):
    before = itself(folders / "esm").state_dict()
    after = load_model(run)[0].encoder.network.embed.model.state_dict()
    fixed = {name: torch.equal(before[name], value) for name, value in after.items() if "inv_freq" not in name}
    assert {name for name in fixed if fixed[name]} == {
        n for n in fixed if n.startswith(("embeddings", "encoder.layer.0"))
    }
    assert len(fixed) > 30


def test_a_run_needs_its_folder_no_more(run, tmp_path):
    x = encode(SEQUENCES, LENGTH)
    first, again = library.load(run), library.load(run)
    np.testing.assert_array_equal(first.encode(x), again.encode(x))
    assert first.reconstruct(x).shape == x.shape
    config = read_run(run)
    states = pretrained_states(first.density)
    digest = hashlib.sha256((run.parent / "away" / "model.safetensors").read_bytes()).hexdigest()
    assert config.model.network.architecture.sha256 == digest
    assert first.config == config.model
    again = config.model_copy(update={"init_from": str(run)})
    started = pretrained_states(recipe_of(again, first.spec, lambda line: None).model)
    for name, value in states.state_dict().items():
        assert torch.equal(value, started.state_dict()[name]), "another run gives weights in place of the folder"
    with pytest.raises(ConfigError, match="there is no folder"):
        recipe_of(config, first.spec, lambda line: None)


def test_a_stopped_training_goes_on_without_the_folder(run, folders, variants, tmp_path, monkeypatch, capsys):
    shutil.copytree(folders / "esm", tmp_path / "esm")
    with monkeypatch.context() as patch:
        at_step(patch, 2, kill(signal.SIGTERM))
        words = ["--model.network.frozen", 1, "--model.network.decoder", "transformer", "--model.network.heads", 2]
        assert train(variants, tmp_path / "esm", tmp_path / "run", *words) == 130
    said = capsys.readouterr().out
    assert "Started the encoder from" in said
    assert "no token for *, and reads it as unknown" in said
    shutil.rmtree(tmp_path / "esm")
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(run)


def test_another_encoder_in_the_folder_is_noticed(run, folders):
    """A kept configuration with a folder that holds something else."""
    config = read_run(run)
    network = config.model.network.model_copy(update={"folder": str(folders / "esm-absolute")})
    changed = RunConfig(**{**dict(config), "model": config.model.model_copy(update={"network": network})})
    with pytest.raises(ConfigError, match=r"leave network\.architecture out"):
        recipe_of(changed, SPEC, lambda line: None)


# What a folder says, and what is wrong with it ------------------------------------------------------------------------


def test_what_a_tokenizer_says(tmp_path):
    """Names of special tokens in either form; tokens that were added; the end where nothing is said."""
    (tmp_path / "config.json").write_text('{"model_type": "bert", "transformers_version": "4", "hidden_size": 8}')
    (tmp_path / "model.safetensors").write_bytes(b"ab")
    table = {"a": 0, "C": 1, "\u2581C": 2, "[SEP]": 3, "odd": 4}
    text = {"model": {"vocab": table}, "added_tokens": [{"id": 9, "content": "D"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(text))
    (tmp_path / "tokenizer_config.json").write_text('{"unk_token": {"content": "odd"}, "cls_token": null}')
    found = read_architecture(tmp_path, ("", *"ACDE"))
    assert (found.tokens, found.start, found.pad, found.unknown) == ((3, 0, 2, 9, 4), None, 3, ("E",))
    assert found.values == {"model_type": "bert", "hidden_size": 8}
    assert found.sha256 == hashlib.sha256(b"ab").hexdigest()


def spoil_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("<cls>\n<eos>\n<unk>\n")


def spoil_layers(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))


def kind_of(kind: str, **more: Any) -> Any:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": kind, **more}))

    return spoil


SPOILT = {
    "no folder": (shutil.rmtree, "there is no folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json with a 'model_type'"),
    "damaged": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "is a pickle.*save it anew"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "there is no model.safetensors"),
    "no tokenizer": (lambda f: (f / "vocab.txt").unlink(), "has no tokenizer"),
    "another tongue": (spoil_vocabulary, "knows none of the symbols"),
    "unknown": (kind_of("esmx"), "'esmx' is unknown to transformers"),
    "a decoder": (kind_of("gpt2"), "'gpt2' is a decoder"),
    "esm as a decoder": (kind_of("esm", is_decoder=True), "'esm' is a decoder"),
    "both": (kind_of("bart", is_encoder_decoder=True), "'bart' is an encoder with a decoder"),
    "wrong values": (kind_of("esm", hidden_size="wide"), "describes no encoder"),
    "few rows": (kind_of("esm", vocab_size=24), "has the token 30, and its table 24 rows"),
    "few positions": (
        kind_of("esm", position_embedding_type="absolute", max_position_embeddings=9), "at most 7 tokens.*up to 8",
    ),
    "what fills rows up counts": (kind_of("fnet"), "'fnet' cannot be read from here: the states of a sequence change with"),
    "no language": (kind_of("xmod"), "'xmod' cannot be read from here: Input language unknown"),
    "other weights": (kind_of("esm", hidden_size=12), "do not fit its config.json: '.*' has another size"),
    "missing weights": (spoil_layers, "are incomplete: 'encoder.layer.2"),
    "damaged weights": (lambda f: (f / "model.safetensors").write_bytes(b"x"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_is_no_encoder(folders, tmp_path, case):
    spoil, said = SPOILT[case]
    shutil.copytree(folders / "esm", tmp_path / "esm")
    spoil(tmp_path / "esm")
    with pytest.raises((ConfigError, ModelError), match=said):
        loaded(tmp_path / "esm")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "pretrained"}, "needs 'folder'"),
        ({"kind": "mlp", "folder": "x"}, "'folder' has no effect, since network.kind is 'mlp'"),
        ({"folder": "x"}, "'folder' has no effect, since network.kind is 'auto'"),
        ({"kind": "transformer", "frozen": "none"}, "'frozen' has no effect"),
        ({"kind": "pretrained", "folder": "x", "pace": 1.0}, "'pace' has no effect, since network.frozen is 'all'"),
        ({"kind": "pretrained", "folder": "x", "channels": 8}, "'channels' has no effect"),
        ({"kind": "pretrained", "folder": "x", "frozen": -1}, "all, none or a number of blocks"),
        ({"kind": "pretrained", "folder": "x", "decoder": "transformer", "activation": "relu"}, "'activation' has no"),
        ({"kind": "pretrained", "folder": "x", "decoder": "transformer", "width": 10}, "multiple of heads"),
    ],
)
def test_settings_without_effect(values, said):
    with pytest.raises(ConfigError, match=said):
        model_config("vae", {"network": values})


def test_more_blocks_than_there_are(folders):
    with pytest.raises(ConfigError, match=r"network\.frozen = 3 does not fit this encoder: it has 2 blocks"):
        loaded(folders / "esm", frozen=3)


def test_blocks_in_pieces_cannot_be_frozen():
    """XLM keeps attentions, norms and what follows them in lists of their own: the first is not the blocks."""
    from transformers import XLMConfig, XLMModel

    sizes = {"n_words": 9, "emb_dim": 8, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 9, "n_langs": 1}
    model = XLMModel(XLMConfig(**sizes, pad_index=1))
    for frozen in (0, 1, 2):
        said = f"network.frozen = {frozen} does not fit this encoder: its blocks cannot be told apart"
        with pytest.raises(ConfigError, match=said):
            _frozen(model, "network.frozen", frozen)
    assert _frozen(model, "network.frozen", "all") == (model,)


@pytest.mark.parametrize("kind", ["esm", "layoutlm", "squeezebert"])
def test_two_short_rows_tell_what_an_encoder_needs_and_change_nothing_else(folders, tmp_path, kind, monkeypatch):
    """Two call their pooler whether it is there or not, so something that does nothing stands in its place."""
    shutil.copytree(folders / "esm", tmp_path / kind)
    kind_of(kind, embedding_size=8)(tmp_path / kind)
    known = network(tmp_path / kind, frozen="none")
    torch.manual_seed(3)
    encoder, after = pretrained_encoder(known, SPEC, 3), torch.rand(1)
    assert encoder.training
    assert all(part.training for part in encoder.modules())
    pooler = encoder.embed.model.pooler
    assert pooler is None if kind == "esm" else list(pooler.parameters()) == []
    alone, beside = (encoder.eval()(rows(texts, 9))[0] for texts in (["ACD"], ["ACD", "ACDEFGHIK"]))
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(pretrained, "_changed", lambda *call: 0.0)
    torch.manual_seed(3)
    untried = pretrained_encoder(known, SPEC, 3).state_dict()
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(value, untried[name]) for name, value in encoder.state_dict().items())


def test_other_data(folders):
    config = model_config("vae", {"network": {"kind": "pretrained", "folder": str(folders / "esm")}})
    with pytest.raises(ConfigError, match="'pretrained' is for sequences"):
        config.resolved(DataSpec(kind="vector", shape=(3,)))
    known = config.resolved(SPEC)
    assert known.resolved(SPEC) == known
    with pytest.raises(ConfigError, match="has tokens of 24 symbols, and these data have 4"):
        known.resolved(protein_spec(LENGTH, symbols=("", *"ACD")))


def test_without_transformers(folders, monkeypatch):
    known = network(folders / "esm")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'diled\[text\]'"):
        pretrained_encoder(known, SPEC, 2)


def test_nothing_is_said_and_nothing_stays_changed(folders, capfd):
    from transformers.utils import logging

    level, state = logging.get_verbosity(), torch.get_rng_state()
    load_pretrained(loaded(folders / "bert").embed, folders / "bert")
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, True)
    encoder = loaded(folders / "bert")
    state = torch.get_rng_state()
    load_pretrained(encoder.embed, folders / "bert")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_does_not_look_its_tokens_up(folders):
    """Its states would not follow probabilities, so it is no silent failure."""

    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def get_input_embeddings(self) -> nn.Module:
            return self.table

        def forward(self, **inputs: Tensor) -> Any:
            return type("States", (), {"last_hidden_state": torch.zeros(*inputs["input_ids"].shape, 2)})

    states = PretrainedStates(Deaf(), 2, tokens=(0, 1), start=None, pad=0)
    assert states(torch.tensor([[1, 0]])).shape == (1, 2, 2)
    with pytest.raises(RuntimeError, match="0 times"):
        states(torch.full((1, 2, 2), 0.5))
