"""What a configuration that a stranger wrote cannot do, and what its harmless twin can."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_pi.cli import LitPiCLI

pytestmark = pytest.mark.filterwarnings("ignore")


def calling(function: str, mark: Path) -> str:
    """A value that would make a file, if what it names were called."""
    arguments = {
        "os.system": {"command": f"touch {mark}"},
        "subprocess.Popen": {"args": ["touch", str(mark)]},
        "os.mkdir": {"path": str(mark)},
    }
    return json.dumps({"class_path": function, "init_args": arguments[function]})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.optimizer={}", "model.optimizer"),
        ("--model.scheduler={}", "model.scheduler"),
        ("--model.position={}", "model.position"),
        ("--trainer.callbacks=[{}]", "trainer.callbacks"),
        ("--trainer.logger={}", "trainer.logger"),
        ("--data.evaluations={{e: {}}}", "data.evaluations"),
        ("--model.llm.config.rope_parameters={}", "rope_parameters"),
        ("--model.scheduler={{class_path: LambdaLR, init_args: {{lr_lambda: {}}}}}", "model.scheduler.lr_lambda"),
    ],
)
@pytest.mark.parametrize("function", ["os.system", "os.mkdir"])
def test_no_function_is_called_by_a_class_path(
    option: str, said: str, function: str, tmp_path: Path, tiny: list[str], refused: Callable[..., str]
) -> None:
    sentence = refused("fit", *tiny, option.format(calling(function, tmp_path / "mark")))
    assert said in sentence and function in sentence
    assert not (tmp_path / "mark").exists()


def test_functions_of_other_modules_are_no_classes(
    tmp_path: Path, tiny: list[str], refused: Callable[..., str]
) -> None:
    value = f"--model.optimizer={{class_path: numpy.savetxt, init_args: {{fname: {tmp_path}/mark, X: x}}}}"
    assert "model.optimizer is numpy.savetxt, which is no class" in refused("fit", *tiny, value)
    assert not list(tmp_path.iterdir())
    other = "--model.optimizer={class_path: torch.nn.Linear, init_args: {in_features: 1, out_features: 1}}"
    assert "model.optimizer is torch.nn.Linear, which is no Optimizer" in refused("fit", *tiny, other)


def test_classes_are_not_made_where_any_value_may_stand(
    tmp_path: Path, tiny: list[str], refused: Callable[..., str]
) -> None:
    value = calling("subprocess.Popen", tmp_path / "mark")
    where = f"--trainer.default_root_dir={tmp_path / 'run'}"
    assert "rope_parameters" in refused("fit", *tiny, where, f"--model.llm.config.rope_parameters={value}")
    assert not (tmp_path / "mark").exists()


def test_tags_make_no_objects(tmp_path: Path, tiny: list[str], refused: Callable[..., str]) -> None:
    tag = f"!!python/object/apply:os.system ['touch {tmp_path / 'mark'}']"
    (tmp_path / "tag.yaml").write_text(f"model: {tag}\n")
    assert "tag.yaml is not valid YAML" in refused("fit", f"--config={tmp_path / 'tag.yaml'}")
    refused("fit", *tiny, f"--model.position={tag}")
    assert not (tmp_path / "mark").exists()


def test_optimizers_and_schedulers_by_class_path_train(tmp_path: Path, tiny: list[str]) -> None:
    cli = LitPiCLI(
        ["fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1",
         "--model.optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.5}}",
         "--model.scheduler={class_path: StepLR, init_args: {step_size: 1, gamma: 0.5}}"]
    )  # fmt: skip
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.25
