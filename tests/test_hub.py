"""Folders on the Hugging Face Hub, by a stand-in that keeps repositories in a folder and hands out what is asked for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import diled as command

from diled.config import DataSpec
from diled.data.text import load_tokenizer, train_tokenizer
from diled.errors import ConfigError, DataError, ModelError
from diled.folders import read_architecture
from diled.hub import AUTOENCODER, LEFT_OUT, NETWORK, SOURCE, TOKENIZER, fetched, on_hub
from diled.model import Model, load
from diled.models.foreign import check_source, load_foreign
from diled.output import on_one_line
from diled.runs import read_run
from diled.synthesizing import synthesize

filtered = pytest.importorskip("huggingface_hub.utils").filter_repo_objects
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


class Hub:
    """Repositories are folders of `root`, and what is fetched goes to `cache`, by the patterns of the real library."""

    def __init__(self, place: Path) -> None:
        self.root, self.cache, self.revisions = place / "root", place / "cache", []

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: Any, ignore_patterns: Any) -> str:
        self.revisions.append(revision)
        if not (self.root / name).is_dir():
            raise OSError(f"404: no repository {name}\nand more")
        files = [p.relative_to(self.root / name).as_posix() for p in (self.root / name).rglob("*") if p.is_file()]
        there = self.cache / name / "snapshots" / "0123abcd"
        for file in filtered(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (there / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.root / name / file, there / file)
        return str(there)

    def found(self, name: str) -> set[str]:
        """The files of a repository that were fetched."""
        there = self.cache / name / "snapshots" / "0123abcd"
        return {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return stand_in


def test_a_path_is_what_it_is(hub: Hub, tmp_path: Path) -> None:
    for source in ("owner/name", "gpt2", str(tmp_path), tmp_path, "mine:make", "hubs/a"):
        assert not on_hub(source)
        assert fetched(source, NETWORK) == Path(source)
    assert hub.revisions == []


def test_a_name_on_the_hub(hub: Hub) -> None:
    (hub.root / "owner/na.me-1").mkdir(parents=True)
    (hub.root / "owner/na.me-1/config.json").write_text("{}")
    (hub.root / "alone").mkdir()
    (hub.root / "alone/config.json").write_text("{}")
    assert (fetched("hub:owner/na.me-1", NETWORK) / "config.json").is_file()
    assert (fetched("hub:owner/na.me-1@v1.0", NETWORK) / "config.json").is_file()
    assert (fetched("hub:alone@refs/pr/3", NETWORK) / "config.json").is_file()
    assert hub.revisions == [None, "v1.0", "refs/pr/3"]


@pytest.mark.parametrize("name", ["hub:", "hub:a/b/c", "hub:/a", "hub:a/", "hub:a b", "hub:a/b@"])
def test_a_name_that_is_none(hub: Hub, name: str) -> None:
    with pytest.raises(DataError, match=f"here: {name} is no name on the Hub: write hub:owner/name"):
        fetched(name, NETWORK, DataError, "here")
    assert hub.revisions == []


def test_what_is_not_there_and_a_library_that_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    said = r"^hub:owner/none could not be fetched from the Hub \(404: no repository owner/none\)\. Check the name"
    with pytest.raises(ModelError, match=said):
        fetched("hub:owner/none", NETWORK, ModelError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ConfigError, match=r"x: To fetch hub:a/b, huggingface_hub is needed: pip install 'diled\[hub\]'"
    ):
        fetched("hub:a/b", NETWORK, where="x")


@pytest.mark.parametrize(
    ("wanted", "there", "left"),
    [
        (
            NETWORK,
            "config.json tokenizer.json tokenizer_config.json vocab.txt merges.txt model.safetensors "
            "model-00001-of-00002.safetensors model.safetensors.index.json",
            "pytorch_model.bin model.fp16.safetensors flax_model.msgpack tf_model.h5 modeling_theirs.py README.md model.onnx",
        ),
        (TOKENIZER, "tokenizer.json vocab.txt", "model.safetensors config.json tokenizer.model"),
        (
            AUTOENCODER,
            "model_index.json config.json diffusion_pytorch_model.safetensors vae/config.json "
            "vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.bin vae/diffusion_pytorch_model.fp16.safetensors unet/config.json v1.ckpt "
            "unet/diffusion_pytorch_model.safetensors text_encoder/model.safetensors v1.safetensors",
        ),
        (
            SOURCE,
            "model_index.json unet/config.json unet/diffusion_pytorch_model.safetensors scheduler/scheduler_config.json "
            "config.json model.safetensors provenance.json tokenizer.json scheduler_config.json "
            "diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.bin images/1.png README.md pytorch_model.bin tokenizer/tokenizer.json",
        ),
    ],
    ids=["network", "tokenizer", "autoencoder", "source"],
)
def test_neither_pickles_nor_code_nor_second_copies_are_fetched(wanted: Any, there: str, left: str) -> None:
    files = [*there.split(), *left.split()]
    found = filtered(files, allow_patterns=list(wanted), ignore_patterns=list(LEFT_OUT))
    assert list(found) == there.split()


# What is trained, audited and drawn from --------------------------------------------------------------------------------


def esm(folder: Path) -> None:
    """A tiny random ESM-2 with its own vocabulary."""
    transformers = pytest.importorskip("transformers")
    symbols = ["<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, "<mask>"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.EsmConfig(vocab_size=len(symbols), pad_token_id=1, max_position_embeddings=40,
                                    position_embedding_type="rotary", **sizes)  # fmt: skip
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(symbols))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")


def test_a_pretrained_encoder_is_trained_from_its_name(hub: Hub, tmp_path: Path) -> None:
    esm(hub.root / "owner/esm")
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list(RESIDUES), 6)) for _ in range(60)]
    (tmp_path / "s.csv").write_text("sequence\n" + "\n".join(rows) + "\n")
    options = ["--model.network.kind", "pretrained", "--model.network.folder", "hub:owner/esm@v2", "--report", "false"]
    options += ["--training.steps", 2, "--device", "cpu", "--out", "run"]
    assert command("train", "s.csv", "--model", "vae", *options) == 0
    assert hub.found("owner/esm") == {"config.json", "model.safetensors", "vocab.txt"}
    assert set(hub.revisions) == {"v2"}
    assert read_run(tmp_path / "run").model.network.folder == "hub:owner/esm@v2"
    shutil.rmtree(hub.root)
    asked = len(hub.revisions)
    assert load(tmp_path / "run", device="cpu").encode(rows[:2]).shape[0] == 2
    assert len(hub.revisions) == asked, "a run needs the folder no more"
    with pytest.raises(ConfigError, match="hub:owner/esm could not be fetched"):
        read_architecture("hub:owner/esm", ("", *RESIDUES))


def test_a_tokenizer_from_its_name(hub: Hub) -> None:
    pytest.importorskip("tokenizers")
    (hub.root / "gpt2").mkdir(parents=True)
    (hub.root / "gpt2/tokenizer.json").write_text(train_tokenizer(["good food", "bad food"], 260))
    assert json.loads(load_tokenizer("hub:gpt2")) == json.loads((hub.root / "gpt2/tokenizer.json").read_text())
    with pytest.raises(DataError, match="hub:bert could not be fetched"):
        load_tokenizer("hub:bert")


def test_an_autoencoder_of_the_hub_is_audited_under_its_name(hub: Hub) -> None:
    diffusers = pytest.importorskip("diffusers")
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=2, norm_num_groups=2, sample_size=8)
    vae.save_pretrained(hub.root / "owner/pipeline/vae")
    (hub.root / "owner/pipeline/model_index.json").write_text("{}")
    (hub.root / "owner/pipeline/unet").mkdir()
    (hub.root / "owner/pipeline/unet/diffusion_pytorch_model.safetensors").write_bytes(b"gigabytes")
    spec = DataSpec(kind="image", shape=(3, 8, 8), levels=256)
    check_source("hub:owner/pipeline")
    foreign = load_foreign("hub:owner/pipeline", spec)
    assert foreign.name == "hub:owner/pipeline"
    x = torch.zeros(2, 3, 8, 8)
    with torch.no_grad():
        mean = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(foreign.density.encoder(x).mean, mean.flatten(1))
    assert "unet/diffusion_pytorch_model.safetensors" not in hub.found("owner/pipeline")
    with pytest.raises(
        ModelError, match=r"There is no run folder owner/pipeline\. One on the Hugging Face Hub is named hub:owner/p"
    ):
        check_source("owner/pipeline")


def test_a_model_of_ours_is_loaded_and_drawn_from_by_its_name(hub: Hub, tmp_path: Path) -> None:
    options = ["--model", "vae", "--training.steps", 2, "--report", "false", "--device", "cpu"]
    assert command("train", "digits", *options, "--out", "run") == 0
    model = load(tmp_path / "run", device="cpu")
    model.save(hub.root / "owner/digits")
    again = Model.from_pretrained("hub:owner/digits", device="cpu")
    np.testing.assert_array_equal(again.sample(4, seed=0), model.sample(4, seed=0))
    with pytest.raises(ConfigError, match=r"'revision' has no effect beside hub:: write hub:owner/digits@REVISION"):
        Model.from_pretrained("hub:owner/digits", revision="main")
    quiet: dict[str, Any] = {"probe": False, "progress": False, "say": lambda _: None, "device": "cpu"}
    found = synthesize("hub:owner/digits@main", 64, tmp_path / "pool", **quiet)
    assert found["source"] == {"kind": "run", "name": "hub:owner/digits@main"}
    assert command("sample", "hub:owner/digits", "--n", 4, "--device", "cpu") == 0
    assert (tmp_path / "samples.png").is_file(), "beside the user, not in the cache"
    audited = ["--data", "digits", "--sections", "bounds", "--device", "cpu", "--out", "audit"]
    assert command("audit", "hub:owner/digits", "run", *audited) == 0
    said = json.loads((tmp_path / "audit/audit.json").read_text())
    assert "hub:owner/digits" in json.dumps(said)
    assert command("train", "digits", *options, "--init-from", "hub:owner/digits", "--out", "again") == 0
    assert read_run(tmp_path / "again").init_from == "hub:owner/digits"
    assert found["settings"]["weights"] == synthesize(model, 64, tmp_path / "other", **quiet)["settings"]["weights"]


def test_a_model_of_text_is_fetched_with_its_tokenizer(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "some.txt").write_text("".join(f"the food was good , number {i} .\n" for i in range(60)))
    small = ["--model", "lm", "--model.width", 8, "--model.depth", 1, "--model.heads", 2]
    options = [
        *small,
        "--preprocess.text.vocabulary",
        260,
        "--training.steps",
        2,
        "--report",
        "false",
        "--device",
        "cpu",
    ]
    assert command("train", "some.txt", *options, "--out", "run") == 0
    model = load(tmp_path / "run", device="cpu")
    model.save(hub.root / "you/texts")
    again = load("hub:you/texts", device="cpu")
    assert again.spec == model.spec
    np.testing.assert_array_equal(again.bound(["the food was bad ."]), model.bound(["the food was bad ."]))
    capsys.readouterr()
    assert command("sample", "hub:you/texts", "--n", 2, "--device", "cpu") == 0
    drawn = map(on_one_line, model.strings(model.sample(2)))
    assert capsys.readouterr().out.startswith("\n".join(drawn) + "\n")
    assert command("train", "some.txt", *options, "--init-from", "hub:you/texts", "--out", "again") == 0


def test_an_older_pipeline_keeps_its_network_beside_its_index(hub: Hub, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "norm_num_groups": 4, "layers_per_block": 1}
    network = diffusers.UNet2DModel(**sizes, **blocks)
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(num_train_timesteps=8))
    pipeline.save_pretrained(tmp_path / "new")
    old = hub.root / "owner/old"
    old.mkdir(parents=True)
    for file in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
                 "scheduler/scheduler_config.json"):  # fmt: skip
        shutil.copy(tmp_path / "new" / file, old / Path(file).name)
    quiet: dict[str, Any] = {"probe": False, "progress": False, "say": lambda _: None, "device": "cpu"}
    found = [synthesize(s, 64, tmp_path / f"p{i}", **quiet) for i, s in enumerate(("new", "hub:owner/old"))]
    assert [f["source"]["name"] for f in found] == ["new", "hub:owner/old"]
    assert found[0]["settings"] == found[1]["settings"]
    assert [s["sha256"] for s in found[0]["shards"]] == [s["sha256"] for s in found[1]["shards"]]
