"""CONTRIBUTING's examples are what they say they are: whole, and accepted by the tests whose rows they are."""

import importlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contributing import ROOT, blocks

import lit_pi.data.corpora
import lit_pi.positions
from lit_pi.cli import LitPiCLI
from lit_pi.data.build import open_store
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.positions.testing import check_contract


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds the new files of a section, which are not in the project, beside those of a package."""

    def add(section: str, package: ModuleType) -> dict[str, str]:
        files = blocks(section)
        for path in [path for path in files if not (ROOT / path).exists()]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(files[path])
        folder = package.__name__.replace(".", "/")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
        importing = files[f"{folder}/__init__.py"].split()
        monkeypatch.setattr(
            package, importing[-1], getattr(importlib.import_module(importing[1]), importing[-1]), raising=False
        )
        return files

    return add


def rows(code: str, package: ModuleType) -> dict[str, Any]:
    return eval(f"{{{code}}}", vars(package))


@pytest.mark.filterwarnings("ignore")
def test_the_strategy_is_held_to_the_contract_and_runs(added: Any, tmp_path: Path, tiny: list[str]) -> None:
    files = added("A position strategy", lit_pi.positions)
    ((name, strategy),) = rows(files["tests/helpers/strategies.py"], lit_pi.positions).items()
    assert name == "linear-ramp" and name not in importlib.import_module("strategies").STRATEGIES
    check_contract(strategy)
    rope = lit_pi.positions.Rope(8, 10_000.0, 64)
    ratios = rope.inv_freq() / strategy.inv_freq(rope, 64)
    assert ratios.tolist() == pytest.approx([1, 2, 3, 4])
    options = [word for word in tiny if "--model.position" not in word]
    config = tmp_path / "configs/position/linear_ramp.yaml"
    cli = LitPiCLI(
        [
            "test",
            *options,
            f"--model.position={config}",
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.limit_test_batches=1",
        ]
    )
    assert cli.model.position.describe() == {"class": "LinearRamp", "scale": 4, "target_context": None}
    assert (tmp_path / "results.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_corpus_is_held_to_the_tests_of_corpora_and_gives_a_store(
    added: Any, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = added("A corpus", lit_pi.data.corpora)
    spec = spec_from_file_location("tests_of_corpora", ROOT / "tests/data/corpora/test_hub.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(tests := module_from_spec(spec))
    ((name, corpus),) = rows(files["tests/data/corpora/test_hub.py"], lit_pi.data.corpora).items()
    assert name not in tests.CORPORA
    tests.CORPORA[name] = corpus
    texts = tmp_path / "papers.jsonl"
    texts.write_text('{"text": "a book"}\n' * 2)
    tests.test_local_files_in_the_format_of_the_corpus_are_its_documents(name, str(texts))
    tests.test_without_network_the_files_to_bring_are_named_at_once(name, monkeypatch)

    store = open_store(corpus(train=str(texts)), "train", load_tokenizer("bytes"))
    assert [bytes(store.document(index).tolist()).decode() for index in range(len(store))] == ["a book"]
    options = [word for word in tiny if "--data." not in word]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        LitPiCLI(["fit", *options, f"--data={tmp_path / 'configs/data/arxiv.yaml'}", "--print_config"])
    assert capsys.readouterr().out.count(".ArxivCorpus\n") == 2
