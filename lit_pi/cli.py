"""The command line: Lightning's, with positions, presets and one run directory."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from inspect import signature
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch import distributed

# Short class names in YAML work for classes that are imported.
import lit_pi.callbacks
import lit_pi.data.corpora
import lit_pi.datamodules
import lit_pi.evaluations
import lit_pi.evaluations.choices.tasks
import lit_pi.parallel
import lit_pi.positions  # noqa: F401
from lit_pi.callbacks import (
    Checkpoint,
    History,
    IsolationProbe,
    LifeCycle,
    LossProgressBar,
    Measurements,
    Predictions,
    RopeGuard,
    Sentinel,
    StockEquality,
    Throughput,
)
from lit_pi.command_line.closing import closing
from lit_pi.command_line.doors import check_classes, check_template
from lit_pi.command_line.machines import check_machines, check_open_files
from lit_pi.command_line.mistakes import mistake_behind, mistakes_of_threads
from lit_pi.command_line.numbers import check_numbers
from lit_pi.command_line.parser import MODE, Parser
from lit_pi.command_line.run_config import RunConfig
from lit_pi.command_line.texts import check_texts, check_words
from lit_pi.command_line.wording import naming_the_file, telling_what_fails
from lit_pi.command_line.yaml_files import preset
from lit_pi.compare.command import compare
from lit_pi.data.prepare import prepare
from lit_pi.data.train_tokenizer import train_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.export import export
from lit_pi.models.sources.checkpoint import FOLDER, checkpoints_of, newest_checkpoint, read_content
from lit_pi.models.training.optimization import ADAMW, WARMUP
from lit_pi.module import LitLlama
from lit_pi.parallel.checkpoint_io import AtomicCheckpointIO
from lit_pi.planning import PlanningTrainer
from lit_pi.planning.plan import Plan
from lit_pi.report import report
from lit_pi.runs.failures import failure_behind
from lit_pi.runs.owner import check_writable, owned, unused_directory
from lit_pi.runs.ranks import watched
from lit_pi.runs.signals import SIGNALS
from lit_pi.runs.status import note, say_if_unfinished, told
from lit_pi.secrets import hidden

DEFAULT_CALLBACKS: dict[str, type[Callback]] = {
    callback.__name__: callback
    for callback in (History, StockEquality, IsolationProbe, Measurements, Predictions, Throughput, LifeCycle)
}
"""Callbacks of every run that does not bring its own of their class, or leave them out with `--without`."""
Default = Literal[
    "History",
    "StockEquality",
    "IsolationProbe",
    "Measurements",
    "Predictions",
    "Throughput",
    "LifeCycle",
    "Checkpoint",
    "RopeGuard",
    "Sentinel",
]
NOISE = (
    "litlogger",
    "does not have many workers",
    "in eval mode",
    "set_float32_matmul_precision",
    "Online softmax",
)
"""Words of advertisements, and of advice that is wrong for lit_pi or already followed."""
LAST, AUTO = "last", "auto"
"""Words that `--ckpt_path` takes for the newest complete checkpoint of the run directory; `auto`, which `fit` begins
without one where there is none."""

COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "tokenizer": train_tokenizer,
    "export": export,
    "report": report,
}
"""Commands without a Trainer: their functions' arguments and docstrings are options and help."""
PLANNED = ("seed_everything", "trainer", "model", "data", "without", "checkpoint", "rope_guard", "sentinel")
"""Groups of options that `plan` has too."""
SHARED = ("fit", "compare")
"""A subcommand, and the one that has its options too."""
RUNS = "runs"
"""Where runs go that are not told where."""
SUBCOMMANDS = {"fit", "validate", "test", "predict", "plan", "compare", *COMMANDS}


class LitPiCLI(LightningCLI):
    """`lit-pi fit | validate | test | predict | plan`, driven by YAML, and the `COMMANDS`, which need no Trainer."""

    def __init__(self, args: ArgsType = None) -> None:
        self._first = next(iter(args if isinstance(args, list) else sys.argv[1:]), "")
        with ExitStack() as self._until_the_end:
            super().__init__(
                LitLlama,
                LongContextData,
                trainer_class=PlanningTrainer,
                save_config_callback=RunConfig,
                save_config_kwargs={"overwrite": True},
                trainer_defaults={
                    "log_every_n_steps": 10,
                    "enable_model_summary": False,
                },
                seed_everything_default=0,
                parser_kwargs={"parser_mode": MODE, "default_env": True, "env_prefix": "LIT_PI"},
                parser_class=Parser,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=args,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Lightning's subcommands that lit_pi has, and the arguments it fills in; only the one that is asked for.

        A parser takes a fifth of a second to build.
        """
        offered = LightningCLI.subcommands()
        found = {name: offered[name] for name in ("fit", "validate", "test", "predict")} | {
            "plan": {"model", "datamodule", "verify"}
        }
        # A comparison shares the options of `fit`.
        return {name: given for name, given in found.items() if self._may_be(name) or (name, self._first) == SHARED}

    def _may_be(self, subcommand: str) -> bool:
        return self._first not in SUBCOMMANDS or subcommand == self._first

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, with presets named by their path under `configs/`."""
        words = args if isinstance(args, list) else sys.argv[1:]
        check_words(words)
        found = [preset(word) for word in words]
        with naming_the_file(found):
            self.config = parser.parse_args(found)
        subcommand = self.config.subcommand
        check_texts(self.config[subcommand])
        check_classes(self.config[subcommand])
        check_numbers(subcommand, self.config[subcommand])
        if subcommand == "compare":
            self._compare(self.config[subcommand])
            parser.exit()
        if command := COMMANDS.get(subcommand):
            with telling_what_fails():
                arguments = parser.instantiate_classes(self.config)[subcommand]
            command(**{name: arguments[name] for name in signature(command).parameters})
            parser.exit()

    def _compare(self, config: Namespace) -> None:
        """Compare under the options of `fit` that a configuration holds beside those of `compare`."""
        options = signature(compare).parameters.keys() & config.keys()
        parser = self._subcommand_parsers["fit"]
        given = {name: config.pop(name) for name in options}
        common, base = yaml.safe_load(parser.dump(config, skip_none=False)), None
        if given["pretrain"] is not None:
            found = parser.parse_args([f"--config={os.fspath(given['pretrain'])}"])
            base = yaml.safe_load(parser.dump(found, skip_none=False))
        for made in (common, *([] if base is None else [base])):
            made.pop("config", None)
        compare(**given, common=common, base=base, predict=_planned)

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Add Lightning's subcommands, and those of lit_pi's own."""
        super()._add_subcommands(parser, **kwargs)
        assert parser._subcommands_action is not None
        if self._may_be("compare"):
            text = parse_docstring(compare.__doc__ or "")
            described = {each.arg_name: each.description for each in text.params}
            subparser = self._prepare_subcommand_parser(PlanningTrainer, "fit", description=text.short_description)
            subparser.add_function_arguments(compare, skip={"common", "base", "predict", "dry_run"}, sub_configs=True)
            subparser.add_argument("--dry_run", action="store_true", help=described["dry_run"])
            parser._subcommands_action.add_subcommand("compare", subparser, help=text.short_description)
        for name, command in [(name, command) for name, command in COMMANDS.items() if self._may_be(name)]:
            text = parse_docstring(command.__doc__ or "")
            subparser = Parser(description=f"{text.short_description}", parser_mode=MODE, env_prefix="LIT_PI")
            subparser.add_argument("-c", "--config", action="config", help="Path to a configuration file in YAML.")
            if command is report:
                subparser.add_argument("directories", nargs="+", type=Path, help="run directories that were tested")
            described = {param.arg_name: param.description for param in text.params}
            flags = {name for name, parameter in signature(command).parameters.items() if parameter.annotation is bool}
            subparser.add_function_arguments(command, skip={"directories", *flags}, sub_configs=True)
            for flag in flags:
                subparser.add_argument(f"--{flag}", action="store_true", help=described[flag])
            parser._subcommands_action.add_subcommand(name, subparser, help=text.short_description)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # lit_pi prints tables of its own
        if subcommand == "plan":
            text = {
                each.arg_name: each.description for each in parse_docstring(PlanningTrainer.plan.__doc__ or "").params
            }
            parser.add_argument("--verify", action="store_true", help=text["verify"])
            self._subcommand_method_arguments[subcommand].append("verify")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add checkpointing, the guard, and the paper's optimizer as defaults that YAML can override."""
        parser.add_argument(
            "--without",
            type=list[Default],
            default=[],
            help="Default callbacks to leave out. Those named in trainer.callbacks replace the default of their class.",
        )
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.add_lightning_class_args(RopeGuard, "rope_guard")
        parser.add_lightning_class_args(Sentinel, "sentinel")
        parser.set_defaults(
            {
                "checkpoint.filename": "step-{step:06d}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.every_n_train_steps": 100,
                "checkpoint.save_top_k": 1,
                "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": ADAMW},
                "model.scheduler": {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": WARMUP},
            }
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: the YAML's strategy wins over what a checkpoint was trained with."""

    def before_instantiate_classes(self) -> None:
        """Settle the run directory, own it, and settle what `--ckpt_path last` and `auto` mean in it."""
        config = self.config[self.subcommand]
        given = config.trainer.default_root_dir
        if self.subcommand == "plan":  # it writes nothing
            config.trainer.default_root_dir = given or RUNS
            return
        check_writable(Path(given or RUNS))
        config.trainer.default_root_dir = str(run := Path(given) if given else unused_directory(Path(RUNS)))
        self._until_the_end.enter_context(owned(run))
        if config.ckpt_path == "":
            raise UserError(f"ckpt_path is empty: name a checkpoint, `{LAST}` or `{AUTO}`, or leave it out")
        folder = Path(config.checkpoint.dirpath or run / FOLDER)
        if config.ckpt_path == AUTO and self.subcommand == "fit" and not checkpoints_of(run, folder):
            config.ckpt_path = None
        elif config.ckpt_path in (LAST, AUTO):
            config.ckpt_path = str(newest_checkpoint(run, folder))
            if self.subcommand != "fit":
                say_if_unfinished(run)
        elif config.ckpt_path is not None and not Path(config.ckpt_path).exists():
            raise UserError(f"there is no checkpoint {config.ckpt_path}: name an existing one, `{LAST}` or `{AUTO}`")
        elif config.ckpt_path is not None:
            read_content(Path(config.ckpt_path))  # before a model is built, and in vain
        elif config.ckpt_path is None and self.subcommand == "fit" and checkpoints_of(run, folder):
            raise UserError(
                f"{run} already holds the checkpoints of a training run: continue it with --ckpt_path {AUTO}, "
                "or name another directory with --trainer.default_root_dir"
            )
        check_template(config.checkpoint.filename)
        config.checkpoint.dirpath = str(folder)
        self.save_config_kwargs["config_filename"] = f"{self.subcommand}.yaml"

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "plan":
            super()._run_subcommand(subcommand)
            return
        run, launcher = Path(self.trainer.default_root_dir), self.trainer.strategy.launcher
        with (
            SIGNALS.heard(),
            told(run, subcommand, mistake_behind),
            mistakes_of_threads(),
            watched(lambda: getattr(launcher, "procs", ()), lambda reason: note(run, state="failed", reason=reason)),
        ):
            super()._run_subcommand(subcommand)

    def instantiate_classes(self) -> None:
        """Make everything, and let the model know which checkpoint it will be."""
        with telling_what_fails():
            super().instantiate_classes()
        check_open_files(self.datamodule.num_workers)
        self.model.checkpoint_path = self.config[self.subcommand].get("ckpt_path")

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add the default callbacks that the configuration neither has nor leaves out."""
        left_out = self._get(self.config_init, "without", default=[])
        given = config["callbacks"] or []
        given = given if isinstance(given, list) else [given]
        checkpoints = not config["barebones"] and config["enable_checkpointing"] is not False
        added = [callback for callback in callbacks if checkpoints or not isinstance(callback, ModelCheckpoint)]
        added = [
            callback
            for callback in added
            if type(callback).__name__ not in left_out and not any(isinstance(own, type(callback)) for own in given)
        ]
        added += [
            make()
            for name, make in DEFAULT_CALLBACKS.items()
            if name not in left_out and not any(isinstance(callback, make) for callback in given)
        ]
        bar = not config["barebones"] and config["enable_progress_bar"] is not False
        if bar and not any(isinstance(callback, ProgressBar) for callback in given):
            # Lightning's other bar counts epochs that a run of so many steps does not have.
            added.append(LossProgressBar())
        return super()._instantiate_trainer(config | {"callbacks": given}, added)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer that logs into the run directory and writes checkpoints that are whole or absent."""
        config = self.config_init[self.subcommand]["trainer"]
        if config["logger"] in (None, True) and not config["barebones"]:
            kwargs["logger"] = TensorBoardLogger(
                config["default_root_dir"], name="", version="", default_hp_metric=False
            )
        if config["barebones"]:
            # What lit_pi or Lightning sets by default is refused there.
            for name in ("logger", "log_every_n_steps", "enable_model_summary"):
                config[name] = None
        plugins = config["plugins"] if isinstance(config["plugins"], list) else [config["plugins"]]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            checkpoint_io = AtomicCheckpointIO(self.config_init[self.subcommand]["checkpoint"].in_background)
            kwargs["plugins"] = [*(plugin for plugin in plugins if plugin is not None), checkpoint_io]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # Lightning's, of strategies, accelerators, devices and nodes
            raise UserError(f"trainer: {error}") from error
        check_machines(trainer)
        return trainer


def _planned(config: dict[str, Any]) -> Plan:
    """The plan of a training."""
    with NamedTemporaryFile("w", suffix=".yaml") as file, redirect_stdout(StringIO()):
        yaml.safe_dump({name: config[name] for name in PLANNED if name in config}, file)
        file.flush()
        trainer = LitPiCLI(["plan", f"--config={file.name}"]).trainer
    assert isinstance(trainer, PlanningTrainer) and trainer.planned is not None
    return trainer.planned


def run() -> None:
    """Run the command line; a mistake of the user is one line on stderr and exit status 2."""
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # lightning with torch 2.13
    for advice in NOISE:
        warnings.filterwarnings("ignore", message=f".*{advice}")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not any(word in record.getMessage() for word in NOISE))
    try:
        cli = LitPiCLI()
    except Exception as error:
        mistake, failure = mistake_behind(error), failure_behind(error)
        if not mistake and not failure:
            raise
        print(f"lit-pi: error: {hidden(failure or mistake or '')}", file=sys.stderr)
        sys.exit(1 if failure else 2)
    if cli.trainer.is_global_zero and cli.subcommand != "plan":
        print(*closing(cli.trainer, str(cli.subcommand)), sep="\n")
    if distributed.is_initialized():
        distributed.destroy_process_group()  # a process that exits with gloo's threads may abort
