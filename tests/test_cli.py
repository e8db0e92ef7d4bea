"""The command line: light, helpful, and the same as Python."""

import inspect
import json
import re
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import yaml
from lightning.fabric.plugins.environments import SLURMEnvironment
from tiny import diled, train, weights

import diled as package
from diled import cli, verbs
from diled.config import AugmentConfig, Config, DataSpec, PoolConfig, PreprocessConfig, TrainingConfig
from diled.errors import DataWarning, DiledError
from diled.family import FAMILY
from diled.kinds import default_code
from diled.runs import model_named_in, nested, rank, read_run, resolve

VERBS = list(cli.POSITIONAL)


def in_fresh_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Help


def test_help_loads_nothing_heavy():
    """Neither the list of verbs nor the help of any verb loads torch; the list does without pydantic too."""
    said = in_fresh_python(
        "import contextlib, io, sys\nfrom diled import cli\n"
        "assert cli.main(['--help']) == 0 and cli.main([]) == 0 and cli.main(['--version']) == 0\n"
        "print(sorted({'torch', 'lightning', 'pydantic', 'numpy', 'yaml', 'argparse'} & set(sys.modules) - {'argparse'}))\n"
        f"for verb in {VERBS!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try:\n            cli.main([verb, '--help'])\n"
        "        except SystemExit as stop:\n            assert stop.code == 0\n"
        "    assert 'usage: diled ' + verb in out.getvalue()\n"
        "print(sorted({'torch', 'lightning', 'numpy', 'sklearn', 'pyarrow', 'PIL'} & set(sys.modules)))\n"
    )
    assert said.splitlines()[-2:] == ["[]", "[]"]


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        diled(*words, "--help")
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_overview_names_every_verb(capsys):
    assert diled("--help") == 0
    said = capsys.readouterr().out
    assert re.findall(r"^  (\w+)", said, re.MULTILINE) == VERBS == [f.__name__ for f in map(verbs.__dict__.get, VERBS)]
    assert diled("--version") == diled("--", "--version") == 0, "torchrun hands on the -- behind its own options"
    assert capsys.readouterr().out.split() == [package.__version__] * 2


def test_the_package_is_run_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["diled", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("diled", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == package.__version__


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_a_verb_is_an_option_with_help(verb, capsys):
    said = help_of(capsys, verb)
    for name in inspect.signature(getattr(verbs, verb)).parameters:
        option = name if name in cli.POSITIONAL[verb] else "--" + name.replace("_", "-")
        if name != "settings":
            assert re.search(rf"{option} \S+ ?\S", said), f"{option} is not explained"
    for private in ("_data", "BaseModel", "typing", "CONFIG"):
        assert private not in said


def test_shared_options_mean_the_same_everywhere():
    """--data, --out, --seed and --device have one type each, and a seed is 0 unless said otherwise."""
    kinds = {"seed": {"int", "int | None"}, "device": {"Device"}, "data": {"str | Path | None"}}
    kinds["out"] = {"str | Path | None", "str | Path"}
    for verb in VERBS:
        for name, parameter in inspect.signature(getattr(verbs, verb)).parameters.items():
            if name in kinds and (verb, name) != ("edit", "data"):  # its attributes may come from several data sets
                assert parameter.annotation in kinds[name], f"{verb} --{name}"
            if name == "device":
                assert parameter.default == "auto"
            if name == "seed":
                assert parameter.default in (0, None)


def test_the_help_says_what_size_a_code_has(capsys):
    said = " ".join(help_of(capsys, "train", "--model", "vae").split())
    text, protein, long = (
        DataSpec(kind=kind, shape=(n,), levels=3, symbols=("", "A", "B"))
        for kind, n in (("text", 40), ("protein", 6), ("protein", 99))
    )
    assert (default_code(protein), default_code(long)) == (2 * 6, 32)
    assert f"of proteins twice their length, at most 32; of text {default_code(text)};" in said


@pytest.mark.parametrize("model", FAMILY)
def test_the_help_of_train_shows_the_values_of_the_model(model, capsys):
    said = help_of(capsys, "train", "--model", model)
    assert f"--model NAME name in the family: {', '.join(FAMILY)}" in said
    for key, field in FAMILY[model].model_fields.items():
        assert f"--model.{key}" in said
        if not isinstance(field.default, Config):
            assert f"(default: {field.default})" in said
    if "prior" in FAMILY[model].model_fields:
        default = FAMILY[model].model_fields["prior"].default.schedule
        assert f"How log SNR falls with time. (default: {default})" in said


def test_every_value_of_the_configuration_is_documented(capsys):
    said = help_of(capsys, "train")
    groups = {"training": TrainingConfig, "preprocess": PreprocessConfig, "pool": PoolConfig}
    for group, kind in (groups | {"training.augment_values": AugmentConfig}).items():
        for key, field in kind.model_fields.items():
            if not isinstance(field.default, Config) and f"{group}.{key}" not in ("training.seed", "training.device"):
                assert re.search(rf"--{group}.{key} \S+ \w", said)
    assert "--training.seed" not in said  # it is --seed


# Settings from files, options and arguments


@pytest.fixture
def written(tmp_path):
    """Settings -> the path of a YAML file that holds them."""

    def write(values):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_later_settings_win_and_defaults_stay(written):
    file = {"data": "digits", "model": {"name": "diled_paper", "weight": 3.0, "prior": {"width": 32}}}
    file |= {"training": {"steps": 7, "batch_size": 9, "seed": 4}, "preprocess": {"size": 6}}
    path = written(file)
    config = resolve(None, None, path, {"model.prior.width": 64, "training": {"steps": 8}}, seed=5)
    assert (config.name, config.data, config.preprocess.size) == ("diled_paper", "digits", 6)
    assert (config.training.steps, config.training.batch_size, config.training.seed) == (8, 9, 5)
    assert config.model.weight == 3.0
    assert config.model.prior.width == 64
    default = FAMILY["diled_paper"].model_fields["prior"].default
    assert config.model.prior == default.model_copy(update={"width": 64})
    assert resolve("mnist", "vae", written({"data": "digits"})).data == "mnist"


def test_of_steps_and_epochs_the_later_one_counts(written):
    """Files also as a run saves them, which hold the steps, and no epochs or none."""

    def length(file, settings):
        training = resolve("digits", "vae", written({"training": file}), settings).training
        return training.steps, training.epochs

    default = TrainingConfig().steps
    for file in ({"steps": 7}, {"steps": 7, "epochs": None}, {"epochs": 3}):
        assert length(file, {"training.epochs": 2}) == (default, 2)
        assert length(file, {"training": {"steps": 8}}) == (8, None)
    assert length({"steps": 7, "seed": 4}, {"training.batch_size": 9}) == (7, None)
    assert length({"epochs": 3}, {"training.epochs": None}) == (default, None)
    both = {"steps": 7, "epochs": 3}
    for file, settings in ((both, {}), (both, {"training.epochs": 2}), ({"steps": 7}, {"training": both})):
        with pytest.raises(DiledError, match="leave out 'steps' or 'epochs'"):
            length(file, settings)


def test_a_model_is_named_in_three_ways(written):
    for values in ({"model": "vae"}, {"model": {"name": "vae"}}, {"name": "vae", "model": {}}):
        assert model_named_in(written(values)) == "vae"
        assert resolve("digits", config=written(values)).name == "vae"
    assert resolve("digits", settings={"model": "vae"}).name == "vae"
    assert resolve("digits", "ldm", settings={"model": "vae"}).name == "ldm"
    assert resolve("digits").name == "diled"


def test_a_configuration_file_and_options_train(tmp_path, written):
    file = written({"data": "digits", "model": {"name": "ldm", "network": {"width": 16}}, "training": {"steps": 50}})
    options = ["--training.steps", 6, "--model.prior.width", 16, "--report", "false"]
    assert diled("train", "--config", file, "--out", tmp_path / "run", *options) == 0
    config = read_run(tmp_path / "run")
    assert (config.name, config.training.steps, config.model.network.width) == ("ldm", 6, 16)
    assert config.model.prior.width == 16
    assert config.model.prior.gamma_min == FAMILY["ldm"].model_fields["prior"].default.gamma_min


def test_words_become_values():
    assert nested({"a.b": 1, "a": {"c.d": 2}}) == {"a": {"b": 1, "c": {"d": 2}}}
    parser = cli._parser("train", verbs.train, "diled")
    words = "digits --training.clip None --training.betas 0.5,0.9 --preprocess.size 3,4 --training.tensorboard"
    given = vars(parser.parse_intermixed_args([*words.split(), "--model.std", "null", "--preprocess.label_column=7"]))
    settings = {key: value for key, value in given.items() if "." in key}
    config = resolve("digits", settings=settings)
    assert config.training.clip is None
    assert config.training.betas == (0.5, 0.9)
    assert config.training.tensorboard is True
    assert config.preprocess.size == (3, 4)
    assert config.preprocess.label_column == "7"
    assert config.model.std is None


@pytest.mark.parametrize(
    ("words", "columns"),
    [("Kd (nM)", ["Kd (nM)"]), ("[a, b]", ["a", "b"]), ("(a,b (c))", ["a", "b (c)"]), ("a,b [c]", ["a", "b [c]"])],
)
def test_brackets_around_a_list_are_no_part_of_names_and_others_are(words: str, columns: list[str]):
    given = vars(
        cli._parser("train", verbs.train, "diled").parse_intermixed_args(["x", "--model.properties.columns", words])
    )
    assert given["model.properties.columns"] == columns


LISTS = {
    "Sequence[int]": (["3,1", "2"], [3, 1, 2], "INT [INT ...]"),
    "Sequence[float]": (["0.05,", "1e-1"], [0.05, 0.1], "NUMBER [NUMBER ...]"),
    "Sequence[str]": (["x,y", "z"], ["x", "y", "z"], "NAME [NAME ...]"),
    "Sequence[str | Path] | str | Path | None": (["x,y", "z"], ["x,y", "z"], "NAME [NAME ...]"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_list_is_parted_by_spaces_or_commas_as_its_help_shows(verb, capsys):
    """Classes, paths and names of arms may hold a comma, so that only spaces part them."""
    parser, said = cli._parser(verb, getattr(verbs, verb), "diled"), help_of(capsys, verb)
    needed = [word for name in cli.POSITIONAL[verb] for word in ["a"]]
    needed += ["b"] if verb == "interpolate" else []
    needed += ["--attribute", "c=d,e"] if verb == "edit" else []
    for name, parameter in inspect.signature(getattr(verbs, verb)).parameters.items():
        if parameter.annotation not in LISTS or name in cli.POSITIONAL[verb]:
            continue
        words, members, shown = LISTS[parameter.annotation]
        members = words if name in cli.WITH_COMMAS else members
        option = "--" + name.replace("_", "-")
        assert f"{option} {shown}" in said
        assert vars(parser.parse_intermixed_args([*needed, option, *words]))[name] == members
        if parameter.annotation in ("Sequence[int]", "Sequence[float]"):
            for wrong in ("0.5x", "1,two", ","):
                with pytest.raises(DiledError, match=rf"{option}: .*(is no (whole )?number|at least one value)"):
                    parser.parse_intermixed_args([*needed, option, wrong])


def test_a_list_that_is_no_list_of_numbers_is_said_in_one_sentence(capsys):
    assert diled("audit", "runs/none", "--radii", "0.05;0.1") == 2
    assert diled("reproduce", "dmaapx-mnist", "--seeds", "0,1.5") == 2
    radii, seeds = capsys.readouterr().err.splitlines()
    assert "--radii: '0.05;0.1' is no number" in radii
    assert "--seeds: '1.5' is no whole number" in seeds


def test_values_that_are_lists_are_written_as_their_help_shows_them(capsys):
    """The default that the help prints is a spelling of that value."""
    said = help_of(capsys, "train", "--model", "vae")
    assert "--training.betas NUMBER,NUMBER" in said
    assert "--preprocess.sequence.sites INT,..." in said
    parser = cli._parser("train", verbs.train, "vae")
    words = [
        "--training.betas",
        "(0.9, 0.999)",
        "--preprocess.sequence.sites",
        "()",
        "--model.properties.columns",
        "a, b",
    ]
    given = vars(parser.parse_intermixed_args(["digits", *words]))
    config = resolve("digits", "vae", settings={key: value for key, value in given.items() if "." in key})
    assert config.training.betas == (0.9, 0.999)
    assert config.preprocess.sequence.sites == ()
    assert config.model.properties.columns == ("a", "b")


def test_options_may_stand_before_the_data(tmp_path):
    out = ["--out", tmp_path / "run", "--training.steps", 4, "--model.network.width", 16, "--report", "false"]
    assert diled("train", "--model", "vae", *out, "digits") == 0
    assert read_run(tmp_path / "run").data == "digits"


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")


def test_ranks(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank() == 1
    monkeypatch.setenv("RANK", "5")
    assert rank() == 5


@pytest.mark.parametrize(
    ("given", "expected", "by_srun"),
    [
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1, False),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0"}, 0, False),
        ({"SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1, False),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "3"}, 3, True),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "2", "LOCAL_RANK": "0"}, 2, True),
        (
            {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "1", "LOCAL_RANK": "0", "RANK": "2"},
            2,
            True,
        ),
    ],
)
def test_ranks_within_slurm(given, expected, by_srun, monkeypatch):
    """Processes that the engine starts inherit the task's number; of those that srun starts, that number counts."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**given, "SLURM_NTASKS_PER_NODE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected
    assert SLURMEnvironment.detect() == by_srun, "the engine thinks so too"


# Python and the command line


def test_the_package_has_the_verbs():
    assert set(VERBS) <= set(package.__all__)
    for verb in VERBS:
        assert callable(getattr(package, verb))


def test_packages_that_are_verbs_too(capsys):
    import diled.data
    import diled.models

    assert diled.data() == verbs.data()
    assert diled.models() == verbs.models()
    assert diled.data("digits").spec.shape == (1, 8, 8)
    assert diled.data.open_data is not None
    capsys.readouterr()


def test_python_and_the_command_line_train_the_same(tmp_path):
    assert train(tmp_path / "cli", model="vae", steps=6) == 0
    settings = json.loads((tmp_path / "cli" / "run.json").read_text())
    options = {"training": settings["training"], "model": {"network": {"width": 16}, "latent_dim": 4}}
    model = package.train("digits", model="vae", out=tmp_path / "python", report=False, settings=options)
    assert weights(tmp_path / "cli") == weights(tmp_path / "python")
    again = package.sample(tmp_path / "cli", 5, seed=3)
    assert np.array_equal(package.sample(model, 5, seed=3), again)
    assert diled("sample", tmp_path / "cli", "--n", 5, "--seed", 3, "--out", tmp_path / "x.npy") == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), again)


def test_errors_in_python_are_exceptions():
    with pytest.raises(DiledError, match="Did you mean 'digits'"):
        package.train("digts")


def test_a_broken_pipe_is_no_error(monkeypatch):
    def closed(verb, result, out):
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_show", closed)
    assert diled("models") == 0


def test_ctrl_c_outside_of_training(monkeypatch, capsys):
    def interrupted(verb, result, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_show", interrupted)
    assert diled("models") == 130
    assert capsys.readouterr().err == "diled: stopped.\n"


def test_what_inputs_lost_is_told_in_one_sentence(monkeypatch):
    """Without the file and the line of the code; warnings of other libraries keep theirs."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # and it is put back
    assert cli.main(["no-verb"]) == 2
    lost = DataWarning("1 of 2 texts is lost.")
    assert warnings.formatwarning(lost, DataWarning, "some.py", 3) == "diled: 1 of 2 texts is lost.\n"
    assert "some.py:3: UserWarning: odd" in warnings.formatwarning(UserWarning("odd"), UserWarning, "some.py", 3)


@pytest.mark.parametrize("number", ["-1", "-.5", "-1.", "-1e-3", "-2.5E+3"])
def test_negative_numbers_are_no_options(number):
    parser = cli._parser("edit", verbs.edit, "diled")
    found = parser.parse_args(["run", "x", "--attribute", "label=3", "--strength", number])
    assert found.strength == float(number)
