"""Slips of a person at the keyboard: one sentence that names what, where and what to do, and status 2."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from safetensors import SafetensorError
from tensorboard.summary.writer.record_writer import RecordWriter

from lit_pi import cli
from lit_pi.__main__ import main
from lit_pi.cli import LitPiCLI
from lit_pi.command_line.mistakes import mistake_behind, mistakes_of_threads
from lit_pi.files import beside

pytestmark = pytest.mark.filterwarnings("ignore")

SLIPS = {
    "--model.position=Interpolte": "did you mean `Interpolate`?",
    "--model.position=interpolate": "did you mean `Interpolate`?",
    "--trainer.callbacks=[{class_path: EarlyStoping}]": "did you mean `EarlyStopping`?",
    "--model.position.factor=2": "does not take `factor`",
    "--model.optimizer.lrr=2": "model.optimizer does not take `lrr` (did you mean `lr`?): it takes params, lr, betas",
    "--model.optimizer.lr=abc": "model.optimizer.lr is abc, and must be of type float: give a number",
    "--model.optimizer.lr=-1": "model.optimizer does not work with its options: Invalid learning rate: -1.0",
    "--model.optimizer.lr=nan": "model.optimizer.lr is nan, which is not finite",
    "--model.optimizer.lr=.inf": "model.optimizer.init_args.lr is inf, which is not finite",
    "--model.scheduler={class_path: StepLR, init_args: {step_size: 0}}": "model.scheduler does not work",
    "--model.llm.config.initializer_range=.nan": "initializer_range is nan, which is not finite",
    "--model.llm.config.attention_dropout=2": "attention_dropout of FromScratch is 2: it must be 0 or more and below 1",
    "--model.llm.config.hidden_size=0": "hidden_size of FromScratch is 0: it must be 1 or more",
    "--model.llm.config.num_key_value_heads=3": "FromScratch got 4 attention heads of size 8 over 3",
    "--model.llm.config.hidden_act=foo": "hidden_act of FromScratch is foo, which a LLaMA does not have: it must",
    "--model.llm.config.hidden_act=gelux": "is gelux, which a LLaMA does not have (did you mean `gelu`?)",
    "--model.llm.config.hidden_act=[gelu]": "hidden_act of FromScratch is ['gelu'], which a LLaMA does not have",
    "--model.llm.config.model_type=lama": "is lama, which a LLaMA does not have (did you mean `llama`?)",
    "--model.llm.config.rope_parameters={rope_type: yarnn}": "is yarnn, which a LLaMA does not have (did you",
    "--model.llm.config.rope_parameters={type: yarnn}": "rope_type of FromScratch is yarnn, which a LLaMA does not",
    "--model.llm.config.hiden_size=8": "config field `hiden_size` (did you mean `hidden_size`?), which",
    "--model.llm.config.vocab_size=${nope}": "in model.llm.init_args.config.vocab_size cannot be resolved: there is no "
    "option nope; correct it",
    "--data.seed=${oc.env:NOPE_OF_MINE}": "there is no environment variable NOPE_OF_MINE; set it",
    "--data.seed=${nope:3}": "in data.seed cannot be resolved: Unsupported interpolation type nope",
    "--checkpoint.filename={": "checkpoint.filename is {, which is no template",
    "--checkpoint.filename={step.__class__}": "which asks for more than a number: write {step}",
    "--checkpoint.filename={step:>999999999}": "which asks for more than a number",
    "--checkpoint.filename=../x": "which leads elsewhere",
    "--seed_everything=99999999999999": "seed_everything is 99999999999999: it must be 0 or more and at most",
    "--trainer.log_every_n_steps=0": "trainer.log_every_n_steps is 0: it must be 1 or more",
    "--trainer.limit_train_batches=0": "trainer.limit_train_batches is 0, which leaves `fit` nothing to do",
    "--trainer.max_steps=1000000000001": "trainer.max_steps is 1000000000001: it must be -1 or more and at most",
    "--trainer.max_time=00:00:00:00": "trainer.max_time is no time at all",
    "--trainer.devices=999": "trainer.devices is 999, and this machine has",
    "--trainer.num_nodes=3": "trainer.num_nodes is 3, and nothing tells where the other nodes are",
    "--data.batch_size=1000000": "must be 1 or more and at most 65,536",
    "--model.llm.config.num_hidden_layers=1000000000": "it must be 1 or more and at most 10,000",
    "--trainer.max_steps=.nan": "trainer.max_steps is nan, which is not finite",
    "--trainer.strategy={class_path: FSDP2, init_args: {process_group_backend: foo}}": "which torch does not know",
    "--data.contxt_length=3": "there is no option --data.contxt_length (did you mean `--data.context_length`?)",
    "--data.packing=pack": "(did you mean `packed`?)",
    "--data.predict=lit_pi.data.prompts.Prompts": "data.predict needs files: give --data.predict.files",
    "--data.context_length=1000000000": "it must be 8 or more and at most 16,777,216",
    "--model.llm.config={vocab_size: 1, vocab_size: 2}": "has the key `vocab_size` twice",
    "--trainer.callbacks=[{class_path: none_of_mine.Mine}]": "which needs none_of_mine: install it, or begin with "
    "PYTHONPATH=FOLDER for a module of one's own, such as PYTHONPATH=. for none_of_mine here",
    "--trainer.logger={class: CSVLogger}": "names no class: give `class_path` and `init_args`",
    "--model.position=PositionStrategy": "model.position is PositionStrategy, which is abstract",
    "--model.position=configs/position/interpolat.yaml": "(did you mean `configs/position/interpolate.yaml`?)",
    "--checkpoint.train_time_interval=xx": 'is xx, and must be of type timedelta: give a string with form "h:m:s"',
    "--model.scheduler=OneCycleLR": "error: model.scheduler needs max_lr: give --model.scheduler.max_lr",
    "--model.adapter=LoRAA": "there is no class or file of that name (did you mean `LoRA`?)",
    "--ckpt_path=": "ckpt_path is empty: name a checkpoint, `last` or `auto`, or leave it out",
    "--trainer.max_time=foo": "trainer.max_time is foo, which is no time: write days:hours:minutes:seconds",
    f"--trainer.callbacks={'[' * 3000}{']' * 3000}": "error: --trainer.callbacks has values inside of values, over 100",
    f"--data.evaluations={'{a: ' * 3000}1{'}' * 3000}": "error: --data.evaluations has values inside of values",
    f"--trainer.max_steps={'9' * 5000}": "error: --trainer.max_steps has a number of 5,000 digits, which no option",
    "--trainer.default_root_dir=a\0b": "--trainer.default_root_dir is `a b`, with a NUL byte in it",
    "--trainer.default_root_dir=a\udce9b": "is `a b`, which is not UTF-8 at character 1: rename",
    "--config=/": "config is /, which is a folder or something else: name a file in YAML",
    "--config=/none/of/mine": "config is /none/of/mine, and there is no such file or preset",
    "--rope_guard.allow_strategy_change=Foo": "there is no position strategy of that name",
}


@pytest.mark.parametrize("option", SLIPS, ids=lambda option: option[:60])
def test_slips_are_told(option: str, tiny: list[str], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert SLIPS[option] in refused("fit", *tiny, f"--trainer.default_root_dir={tmp_path}", option)


def test_methods_that_a_class_lacks_are_named(
    tmp_path: Path, tiny: list[str], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfinished_of_mine.py").write_text(
        "from lit_pi.positions import PositionStrategy\nclass Mine(PositionStrategy):\n    prefix_consistent = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = refused("fit", *tiny, "--model.position=unfinished_of_mine.Mine")
    assert "model.position is unfinished_of_mine.Mine, which is abstract: write its `inv_freq`" in said


def test_a_command_that_is_not_there_gets_the_nearest(refused: Callable[..., str]) -> None:
    assert "there is no command fti (did you mean `fit`?)" in refused("fti")
    assert "there is no option --ouput (did you mean `--output`?)" in refused("report", "x", "--ouput", "y")


@pytest.mark.parametrize("name", ["../../x", "", "a\nb", "e" * 260, "a/b"])
def test_names_of_evaluations_are_names_of_files(name: str, tiny: list[str], refused: Callable[..., str]) -> None:
    evaluations = yaml.safe_load(tiny[-1].partition("=")[2])
    given = yaml.safe_dump({name: evaluations["texts"]}, default_flow_style=True, width=10_000).strip()
    assert "files are named after it" in refused("test", *tiny[:-1], f"--data.evaluations={given}")


FILES = {
    "empty": (b"", "holds nothing and no options"),
    "comment": (b"# nothing\n", "holds nothing and no options"),
    "word": (b"hello\n", "holds `hello` and no options"),
    "latin": ("# café\ndata: {seed: 1}\n".encode("latin-1"), "is not UTF-8 at byte 5: save it as UTF-8"),
    "twice": (b"data:\n  seed: 1\n  seed: 2\n", "has the key `seed` twice, again in line 3"),
    "bomb": (b"a: &a [1, 1]\n" + b"".join(b"b%d: &b%d [*%s, *%s]\n" % (n, n, *[b"b%d" % (n - 1) if n else b"a"] * 2)
             for n in range(30)), "has aliases of aliases"),
    "circle": (b"a: &a [*a]\n", "has aliases of aliases"),
    "deep": (b"a: " + b"[" * 3000 + b"]" * 3000, "has values inside of values, over 100 deep"),
    "digits": (b"a: " + b"9" * 5000, "has a number of 5,000 digits, which no option takes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("inside", [False, True])
def test_files_with_mistakes_are_named(
    kind: str, inside: bool, tmp_path: Path, tiny: list[str], refused: Callable[..., str]
) -> None:
    content, said = FILES[kind]
    (tmp_path / f"{kind}.yaml").write_bytes(content)
    (tmp_path / "outer.yaml").write_text(f"model:\n  position: {kind}.yaml\n")
    sentence = refused("fit", *tiny, "--config", str(tmp_path / ("outer" if inside else kind)) + ".yaml")
    assert f"{kind}.yaml {said}" in sentence


UNREADABLE = {
    "trainr: {max_steps: 2}": "in {file}, there is no option trainr.max_steps (did you mean `trainer.max_steps`?)",
    "data: {contxt_length: 2}": "error: in {file}, there is no option data.contxt_length (did you mean `data.context",
    "data: {tokenizer: no}": "data.tokenizer is False, as YAML reads yes, no, on and off, and must be of type str: put",
    "data: {tokenizer: 2024}": "data.tokenizer is 2024, and must be of type str: put a text in quotes",
    'trainer: {default_root_dir: "a\\0b"}': "trainer.default_root_dir is `a b`, with a NUL byte in it, which no name",
    'data: {train: {class_path: TextFiles, init_args: {train: "a\\0b"}}}': "train is `a b`, with a NUL byte in it",
    'model: {position: "a\\0b.yaml"}': "model.position has a NUL byte in it, which no name has: remove that",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_options_in_a_file_that_are_none_are_told(
    text: str, tmp_path: Path, tiny: list[str], refused: Callable[..., str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert UNREADABLE[text].format(file=file) in refused("fit", *tiny, f"--config={file}")


@pytest.mark.parametrize("key", ["checkpoint", "output"])
def test_commands_without_a_trainer_read_no_nul(key: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine.yaml").write_text(f'{key}: "a\\0b"')
    said = refused("export", "--checkpoint=a", "--output=b", f"--config={tmp_path}/mine.yaml")
    assert f"{key} is `a b`, with a NUL byte in it" in said


def test_presets_are_found_inside_of_files_far_from_the_clone(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model:\n  position: configs/position/interpolate.yaml\n")
    run = LitPiCLI(["fit", *tiny, "--config=mine.yaml", "--trainer.max_steps=1", "--trainer.default_root_dir=run"])
    assert run.model.position.describe()["class"] == "Interpolate"
    (tmp_path / "configs" / "position").mkdir(parents=True)
    (tmp_path / "configs" / "position" / "interpolate.yaml").write_text("class_path: NTKAware\ninit_args: {scale: 3}\n")
    run = LitPiCLI(["fit", *tiny, "--config=mine.yaml", "--trainer.max_steps=1", "--trainer.default_root_dir=other"])
    assert run.model.position.describe()["class"] == "NTKAware"


def test_places_that_cannot_be_written_are_named(tmp_path: Path, tiny: list[str], refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("mine")
    long = tmp_path / ("a" * 300)
    assert "File name too long" in refused("fit", *tiny, f"--trainer.default_root_dir={long}")
    corpus = (
        "--corpus=TextFiles",
        next(word for word in tiny if "train.train" in word).replace("data.train", "corpus"),
    )
    for inside in ("", "/x"):
        sentence = refused("tokenizer", *corpus, "--vocabulary_size=300", f"--output={tmp_path}/file{inside}")
        assert f"{tmp_path}/file" in sentence and "name another place" in sentence
    assert (tmp_path / "file").read_text() == "mine"


def test_a_reader_who_leaves_loses_nothing() -> None:
    """`lit-pi ... | head -1`: the process goes on, and ends well."""
    code = (
        "from lit_pi.command_line.output import going_on_unread\n"
        "with going_on_unread():\n    [print('x' * 100) for _ in range(10_000)]\n"
        "import sys; print('ended', file=sys.stderr)"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "ended\n")


def test_a_run_directory_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = SimpleNamespace(is_global_zero=True, callbacks=[], default_root_dir="a\x1b[31mb\nc")
    monkeypatch.setattr(cli, "LitPiCLI", lambda: SimpleNamespace(trainer=trainer, subcommand="fit"))
    cli.run()
    first, _ = capsys.readouterr().out.splitlines()
    assert first == "Run directory: a [31mb c"


@pytest.mark.parametrize(
    ("where", "said"),
    [(">&-", ""), ("2>&- >&-", ""), (">/dev/full", "lit-pi: what goes to standard output is lost from here on (No sp")],
)
def test_standard_output_that_is_closed_or_full_stops_nothing(where: str, said: str) -> None:
    command = f"{sys.executable} -m lit_pi --version {where}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr[:60]) == (0, said[:60])


@pytest.mark.parametrize(
    ("error", "what"),
    [(SafetensorError, "the file of weights"), (Exception, "the tokenizer")],
    ids=["weights", "tokens"],
)
def test_a_disk_that_a_library_in_rust_fills_is_full(error: type[Exception], what: str) -> None:
    raised = error("Error while serializing: I/O error: No space left on device (os error 28)")
    said = f"the disk is full where {what} is written: free space, or write elsewhere, and run again"
    assert mistake_behind(raised) == said


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"),
    ],
)
def test_too_many_open_files_are_told(raised: Exception) -> None:
    assert (mistake_behind(raised) or "").startswith("too many files are open: allow more with `ulimit -n 4096`")


def test_processes_that_could_not_hand_over_batches_are_not_waited_for(
    tiny: list[str], tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (40, 40))
    said = refused("fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--data.num_workers=2")
    assert "data.num_workers is 2, and only 40 files may be open at once: allow 48 with `ulimit -n 48`" in said


def test_a_full_disk_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, beside(tmp_path / "mine"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert f"the disk is full where {tmp_path}/mine is written" in (mistake_behind(full.value) or "")


def test_what_ends_a_thread_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As TensorBoard's thread, on a full disk."""
    others: list[object] = []
    monkeypatch.setattr(threading, "excepthook", others.append)

    def fail(error: Exception) -> None:
        raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (KeyError("a bug"), full):
        with pytest.raises(OSError, match="No space left") if error is full else nullcontext(), mistakes_of_threads():
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
    assert len(others) == 1 and "Traceback" not in capsys.readouterr().err


def test_without_a_place_for_temporary_files_the_places_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As packages ask for one while the command is imported."""
    monkeypatch.setitem(sys.modules, "lit_pi.cli", SimpleNamespace(run=tempfile.gettempdir))
    monkeypatch.setattr(sys, "argv", ["lit-pi", "report", "x"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="2"):
        main()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("lit-pi: error: No usable temporary directory found in ['") and "TMPDIR" in said


def test_a_disk_that_is_full_for_tensorboard_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tiny: list[str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tracebacks: list[object] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    monkeypatch.setattr(RecordWriter, "write", full)
    assert "the disk is full" in refused(
        "fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1"
    )
    assert not tracebacks


@pytest.mark.long
def test_files_that_may_not_grow_are_one_sentence(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    words = [sys.executable, "-m", "lit_pi", "report", str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "lit-pi: error: " in done.stderr
