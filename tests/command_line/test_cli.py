"""The command line as a person types it."""

import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedTokenizerFast

from lit_pi import __version__
from lit_pi import datamodules as data_modules
from lit_pi.cli import LitPiCLI
from lit_pi.positions import Interpolate

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = sorted(CONFIGS.rglob("*.yaml"))
DEMOS = sorted(CONFIGS.glob("experiment/demo_*.yaml"))

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*dataloader.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


@pytest.fixture
def resolved(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """The configuration that a command line comes to."""

    def resolve(*words: str) -> dict:
        with pytest.raises(SystemExit) as stop:
            LitPiCLI([*words, "--print_config"])
        assert stop.value.code == 0
        return yaml.safe_load(capsys.readouterr().out)

    return resolve


def header(path: Path) -> list[str]:
    """The command in a preset's first comment."""
    command = next(line for line in path.read_text().splitlines() if line.startswith("# lit-pi "))
    return shlex.split(command.removeprefix("# lit-pi "))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_preset_parses_with_the_command_in_its_header(path: Path, resolved: Callable[..., dict]) -> None:
    if "class_path: torchao." in path.read_text():
        pytest.importorskip("torchao", reason="its optimizers are parsed where it is installed")
    words = header(path)
    assert any(word.endswith(str(path.relative_to(CONFIGS.parent))) for word in words)
    assert resolved(*words)["model"]["position"]["class_path"].startswith("lit_pi.")


@pytest.mark.filterwarnings("ignore")
def test_every_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str]) -> None:
    base = tmp_path / "base"
    LitPiCLI(["fit", *tiny, "--trainer.max_steps=1", f"--trainer.default_root_dir={base}"])
    for path in DEMOS:
        words = header(path)
        small = [*tiny[:2], "--trainer.limit_test_batches=2", f"--trainer.default_root_dir={tmp_path / path.stem}"]
        if words[0] == "fit":
            small += ["--trainer.max_steps=2", *(word for word in tiny if "train" in word and "--data" in word)]
        if yaml.safe_load(path.read_text())["model"]["llm"]["class_path"] == "Pretrained":
            small += [f"--model.llm.path={base}"]
        else:
            small += ["--model.llm.config.num_hidden_layers=1"]
        LitPiCLI([*words, *small])
        expected = "checkpoints/step-000002.ckpt" if words[0] == "fit" else "results.json"
        assert (tmp_path / path.stem / expected).exists()
        assert (tmp_path / path.stem / f"{words[0]}.yaml").exists()


@pytest.mark.filterwarnings("ignore")
def test_one_yaml_trains_on_the_pile_and_draws_curves_and_maps(tmp_path: Path, tiny: list[str], texts: Path) -> None:
    records = [
        {"text": path.read_text(), "meta": {"pile_set_name": ("Books3", "ArXiv")[number % 2]}}
        for number, path in enumerate(sorted((texts / "train").iterdir()))
    ]
    with pyarrow.output_stream(str(tmp_path / "00.jsonl.zst"), compression="zstd") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())
    books = pyarrow.table({"text": [path.read_text() for path in sorted((texts / "test").iterdir())]})
    pyarrow.parquet.write_table(books, tmp_path / "test.parquet")

    data = yaml.safe_load((CONFIGS / "data" / "pile.yaml").read_text())
    data |= {"tokenizer": "bytes", "context_length": 64}
    data["train"]["init_args"] = {"train": str(tmp_path / "00.jsonl.zst"), "weights": {"Books3": 3, "ArXiv": 1}}
    pg19, passkey = (data["evaluations"][name]["init_args"] for name in ("pg19", "passkey"))
    pg19["corpus"]["init_args"] = {"test": str(tmp_path / "test.parquet")}
    pg19 |= {"context_lengths": [32, 64], "stride": 16}
    passkey |= {"context_lengths": [400], "distances": 4, "trials": 2}
    (tmp_path / "pile.yaml").write_text(yaml.safe_dump(data))

    model = [word for word in tiny if word.startswith("--model.llm")]
    LitPiCLI(["fit", "--config=configs/experiment/pile_interpolate.yaml", f"--data={tmp_path / 'pile.yaml'}",
              *tiny[:2], *model, f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.max_steps=4",
              "--trainer.accumulate_grad_batches=1", "--trainer.val_check_interval=2"])  # fmt: skip
    records = json.loads((tmp_path / "run" / "results.json").read_text())["records"]
    assert sorted((record["step"], record["evaluation"]) for record in records) == [
        (2, "passkey"), (2, "pg19"), (4, "passkey"), (4, "pg19"),
    ]  # fmt: skip
    dashboards = EventAccumulator(str(tmp_path / "run")).Reload()
    for tag in ("pg19/perplexity", "passkey/passkey"):
        assert [image.step for image in dashboards.Images(tag)] == [2, 4]
    assert [scalar.step for scalar in dashboards.Scalars("passkey/passkey/k_max_20/400")] == [2, 4]


def test_data_modules_say_what_their_presets_say() -> None:
    for module, preset in ((data_modules.PG19, "pg19"), (data_modules.ProofPile, "proof_pile")):
        evaluation = module().evaluations[preset]
        arguments = yaml.safe_load((CONFIGS / "data" / f"{preset}.yaml").read_text())["evaluations"][preset][
            "init_args"
        ]
        assert arguments.pop("corpus")["class_path"] == type(evaluation.corpus).__name__
        lengths, stride = tuple(arguments.pop("context_lengths")), arguments.pop("stride")
        assert (evaluation.plan.context_lengths, evaluation.plan.stride) == (lengths, stride)
        assert {name: getattr(evaluation, name) for name in arguments} == arguments
    for module in (data_modules.Pile, data_modules.RedPajama, data_modules.GovReport, data_modules.Passkey):
        assert isinstance(module(tokenizer="bytes"), LightningDataModule)
    assert data_modules.GovReport().train.learn == "summary"


@pytest.mark.filterwarnings("ignore")
def test_the_yaml_strategy_wins_over_the_checkpoint(tmp_path: Path, tiny: list[str]) -> None:
    where = f"--trainer.default_root_dir={tmp_path}"
    LitPiCLI(["fit", *tiny, where, "--trainer.max_steps=1", "--model.position=Interpolate", "--model.position.scale=2"])
    path = tmp_path / "checkpoints" / "step-000001.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    # What Lightning would merge into the configuration, had somebody saved it.
    checkpoint["hyper_parameters"] = {"position": {"class_path": "Interpolate", "init_args": {"scale": 2}}}
    torch.save(checkpoint, path)
    cli = LitPiCLI(
        ["test", *tiny, where, f"--ckpt_path={path}", "--model.position=configs/position/interpolate.yaml",
         "--model.position.scale=8"]
    )  # fmt: skip
    live = cli.model.model.rotary.position
    assert isinstance(live, Interpolate) and live.scale == 8
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    assert record["protocol"]["position"] == {"class": "Interpolate", "scale": 8.0, "target_context": None}
    assert record["protocol"]["checkpoint_position"]["scale"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--config", "EXPERIMENT", "--data.context_length", "128"),
        ("--data.context_length", "64", "--config", "EXPERIMENT", "--data.context_length=128"),
        ("--config", "EXPERIMENT", "--config", "OTHER"),
    ],
)
def test_interpolation_and_overrides_agree_in_every_order(
    words: tuple[str, ...], tmp_path: Path, resolved: Callable[..., dict]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("data: {context_length: 128}")
    files = {"EXPERIMENT": "configs/experiment/demo_pretrain.yaml", "OTHER": str(other)}
    config = resolved("fit", *(files.get(word, word) for word in words))
    assert config["data"]["context_length"] == 128
    assert config["model"]["llm"]["init_args"]["config"]["max_position_embeddings"] == 128


def test_a_strategy_is_swapped_without_the_old_ones_parameters(resolved: Callable[..., dict]) -> None:
    config = resolved(
        "fit", "--config=configs/experiment/demo_extend.yaml", "--model.position=configs/position/extrapolate.yaml"
    )
    assert config["model"]["position"] == {"class_path": "lit_pi.Extrapolate"}


def test_the_papers_optimizer_is_the_default(resolved: Callable[..., dict]) -> None:
    config = resolved("fit", "--model.llm=FromScratch", "--model.llm.size=7b", "--model.position=Extrapolate")
    optimizer, scheduler = config["model"]["optimizer"], config["model"]["scheduler"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert optimizer["init_args"].items() >= {"lr": 2e-5, "betas": [0.9, 0.95], "weight_decay": 0.0}.items()
    weight = torch.nn.Parameter(torch.zeros(1))
    adamw = torch.optim.AdamW([weight], lr=1.0)
    assert scheduler["class_path"] == "torch.optim.lr_scheduler.LinearLR"
    warmup = torch.optim.lr_scheduler.LinearLR(adamw, **scheduler["init_args"])
    rates = []
    for _ in range(22):
        rates.append(adamw.param_groups[0]["lr"])
        adamw.step()
        warmup.step()
    assert [rates[step] for step in (0, 10, 20, 21)] == pytest.approx([0.1, 0.55, 1.0, 1.0])


def test_presets_are_found_away_from_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: Callable[..., dict]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("configs/experiment/demo_extend.yaml", "experiment/demo_extend.yaml"):
        assert resolved("fit", "--config", name)["model"]["position"]["init_args"]["scale"] == 4


def test_the_environment_sets_what_files_and_arguments_do_not(
    monkeypatch: pytest.MonkeyPatch, resolved: Callable[..., dict]
) -> None:
    monkeypatch.setenv("LIT_PI_FIT__DATA__BATCH_SIZE", "7")
    monkeypatch.setenv("LIT_PI_FIT__DATA__SEED", "7")
    monkeypatch.setenv("LIT_PI_FIT__DATA__NUM_WORKERS", "7")
    data = resolved("fit", "--config=configs/experiment/demo_extend.yaml", "--data.seed=1")["data"]
    assert (data["batch_size"], data["seed"], data["num_workers"]) == (4, 1, 7)


def test_mistakes_are_one_sentence_and_status_2(refused: Callable[..., str], tmp_path: Path) -> None:
    fit = ("fit", "--config=configs/experiment/demo_pretrain.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [\n")
    strange = tmp_path / "strange.yaml"
    strange.write_text("strategy: {class_path: FSDP2, init_args: {shards: 1}}")
    config = "--model.llm.config={hidden_size: 30, num_attention_heads: 4}"
    cases = {
        (*fit, "--model.position=Nope"): "model.position is Nope, and there is no class or file",
        (
            *fit,
            "--model.position=mine.Nope",
        ): "model.position is mine.Nope, which needs mine: install it, or",
        (*fit, "--model.position=torch.nn.Linear"): "does not correspond to a subclass of PositionStrategy",
        (
            *fit,
            "--model.position=configs/position/no.yaml",
        ): "position is configs/position/no.yaml, and there is no such file",
        (*fit, "--model.position.scale=3"): "model.position does not take `scale`",
        (
            *fit,
            "--model.position=Interpolate",
            "--model.position.scale=0.5",
        ): "scale of Interpolate is 0.5: it must be 1 or more",
        (*fit, "--model.position=Interpolate", "--model.position.scale=x"): "scale is x, and must be of type float",
        (*fit, "--trainer.accelerator=cpu", "--trainer.devices=0"): "devices",
        (*fit, "--trainer.accumulate_grad_batches=0"): "trainer.accumulate_grad_batches is 0",
        (*fit, "--trainer.strategy=fsdp9"): "trainer: You selected an invalid strategy name",
        (*fit, "--trainer.precision=bf17"): "'bf16-mixed'",
        (*fit, f"--trainer={strange}"): "trainer.strategy does not take `shards`",
        (*fit, "--model.postion=Extrapolate"): "--model.postion",
        (*fit, "--data.context_length=abc"): "data.context_length is abc, and must be of type int",
        (*fit, "--data.context_length=100"): "and a multiple of 8",
        (*fit, "--data.batch_size=0"): "batch_size of LongContextData is 0: it must be 1 or more",
        (*fit, "--data.num_workers=-1"): "num_workers of LongContextData is -1: it must be 0 or more",
        (*fit, config): "The hidden size (30) is not a multiple of the number of attention heads (4)",
        (*fit, "--model.llm.size=9b"): "model.llm.size is 9b, and must be one of '2m', '7b'",
        (*fit, f"--config={broken}"): f"{broken} is not valid YAML",
        ("fit", "--config=nowhere.yaml"): "nowhere.yaml, and there is no such file or preset",
        (*fit, "--ckpt_path=nowhere.ckpt"): "there is no checkpoint nowhere.ckpt",
        (*fit, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"): f"no complete checkpoint in {tmp_path}",
        (*fit, "--ckpt_path=README.md"): "README.md is not a checkpoint of lit_pi",
        (*fit, f"--ckpt_path={tmp_path}"): f"{tmp_path} is not a checkpoint of lit_pi",
        (*fit, f"--trainer.default_root_dir={broken}/run"): f"because {broken} is no folder",
        ("fly",): "fly",
    }
    for words, said in cases.items():
        assert said in refused(*words), words


def test_mistakes_in_data_are_one_sentence_and_status_2(
    refused: Callable[..., str], tmp_path: Path, tiny: list[str]
) -> None:
    files = {
        "empty.txt": b"", "latin.txt": b"caf\xe9", "cut.jsonl": b'{"text": "a"}\n{"te', "short.txt": b"x" * 100
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    evaluation = (
        "--data.evaluations={e: {class_path: Perplexity, init_args: {corpus: {class_path: TextFiles, init_args: "
    )
    evaluation += f"{{test: {tmp_path / 'short.txt'}}}}}, "
    run_ = (f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1")
    fit, test = ("fit", *tiny, *run_), ("test", *tiny, run_[0])
    cases = {
        (*fit, f"--data.train.train={tmp_path}/empty.txt"): "there are no documents in split 'train' of text_files",
        (*fit, f"--data.train.train={tmp_path}/latin.txt"): "latin.txt is not UTF-8 at byte 3",
        (*fit, f"--data.train.train={tmp_path}/cut.jsonl"): "cut.jsonl, line 2, is not JSON",
        (*fit, f"--data.train.train={tmp_path}/none*"): "no files match",
        (*fit, "--data.tokenizer=./nowhere"): "there is no tokenizer at ./nowhere",
        (*fit, "--model.llm.config.vocab_size=200"): "has 258 tokens and the model only 200",
        (*fit, "--model.llm=Pretrained", f"--model.llm.path={tmp_path}/none"): f"no model at {tmp_path}/none",
        (
            *test,
            f"{evaluation}context_lengths: [256], stride: 16}}}}}}",
        ): "fills a window of 256 tokens: the longest has",
        (*test, f"{evaluation}context_lengths: [64], stride: 65}}}}}}"): "stride is 65: with context length 64",
        (*test, f"{evaluation}context_lengths: [64], stride: 16, batch_size: 0}}}}}}"): "batch_size of Perplexity",
        (*test, "--data.evaluations=null"): "there is nothing to evaluate",
        ("report", str(tmp_path)): f"there is no results.json in {tmp_path}",
    }
    for words, said in cases.items():
        assert said in refused(*words), words


def test_version_answers_without_loading_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lit_pi", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"lit-pi {__version__}\n"
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "lightning", "transformers"} & loaded


@pytest.mark.long
def test_shell_completion_knows_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    """And no strategies within strategies within strategies."""
    with pytest.raises(SystemExit) as stop:
        LitPiCLI(["--print_completion", "shtab-bash"])
    script = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--model.position.inner" in script and "--model.position.inner.inner" not in script
    assert "lit_pi.YaRN" in script


@pytest.mark.skipif(find_spec("torchao") is not None, reason="it is installed")
def test_an_optimizer_that_is_not_installed_is_one_sentence(refused: Callable[..., str]) -> None:
    words = ["--config=configs/experiment/demo_pretrain.yaml", "--model.optimizer=configs/optimizer/adamw_8bit.yaml"]
    said = refused("fit", *words)
    assert said.startswith("lit-pi: error: model.optimizer is torchao.optim.AdamW8bit, which needs torchao: install it")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("position", "class_path: lit_pi.positions.Interpolte", "has no attribute 'Interpolte'"),
        ("position", "class_path: Interpolte", "model.position is Interpolte, and there is no class or file"),
        ("position", "{class_path: Interpolate, init_args: {scal: 4}}", "model.position does not take `scal`"),
        ("position", "{class_path: Interpolate, init_args: {scale: four}}", "model.position.scale is four"),
        ("optimizer", "class_path: nosuch.AdamW", "model.optimizer is nosuch.AdamW, which needs nosuch"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_that_names_it(
    option: str, text: str, said: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    words = ["--config=configs/experiment/demo_pretrain.yaml", f"--model.{option}={tmp_path}/mine.yaml"]
    sentence = refused("fit", *words)
    assert said in sentence
    assert f"in {tmp_path}/mine.yaml, " in sentence


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    refused: Callable[..., str], tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", save)
    words = ("--corpus=TextFiles", f"--corpus.train={texts / 'train'}", "--vocabulary_size=300")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("mine")
    for output in ("new/deep", "mine"):
        assert "the disk is full" in refused("tokenizer", *words, f"--output={tmp_path / output}")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "mine", tmp_path / "mine" / "x"]
