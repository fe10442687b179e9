"""Every architecture against stock transformers: equal to it in all that is done with a model, or refused."""

import functools
import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from against_stock import Found, compare, stock_nll, tokens
from architectures import CASES, Case, stock_model

pytestmark = pytest.mark.filterwarnings("ignore")

NAMED = {
    "llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "olmo3", "gemma3_text", "smollm3", "cohere", "glm",
    "granite",
}  # fmt: skip
"""Families of which no config is refused."""

SAME = {
    "LLaMA, partial_rotary_factor": "LLaMA",
    "LLaMA, linear without original_max_position_embeddings": "LLaMA, linear",
    "Gemma 3, linear without original_max_position_embeddings": "Gemma 3, linear in full_attention",
    "LLaMA, dynamic with original_max_position_embeddings": "LLaMA, dynamic",
    "LLaMA, longrope without factor": "LLaMA, longrope",
    "Qwen2, use_sliding_window false": "Qwen2",
}
"""Configs whose fields transformers reads as those of another one."""


ROOT = Path(__file__).parents[2]


@functools.cache
def found_of(name: str) -> Found:
    """Everything about a config, once a process."""
    return compare(CASES[name])


@functools.cache
def tables() -> ModuleType:
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("model_families", ROOT / "benchmarks/model_families.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def of_known(names: list[str]) -> pytest.MarkDecorator:
    unknown = pytest.mark.skip(reason="this version of transformers has no such architecture")
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[] if CASES[name].known else unknown, id=name) for name in names]
    )


@of_known([name for name, case in CASES.items() if case.family in NAMED])
def test_families_that_must_work_score_as_stock(name: str) -> None:
    found = compare(CASES[name], ("scoring",))
    assert found.outcome == "exact", found


@pytest.mark.long
@of_known(list(CASES))
def test_every_family_is_exact_in_all_tasks_or_refused(name: str) -> None:
    found = found_of(name)
    assert found.outcome == CASES[name].expected, found


@pytest.mark.long
@torch.no_grad()
def test_every_config_is_another_model() -> None:
    """A field that changes nothing in stock transformers would prove nothing here."""

    def losses(case: Case, **changes: int) -> torch.Tensor:
        stock = stock_model(case.config(**changes))
        row = tokens(stock, 1, 101)
        return stock_nll(stock, row[:, :-1], row[:, 1:])[0]

    families: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, case in CASES.items():
        if case.known:
            families[case.family][name] = found = losses(case)
            if case.window is not None:
                differ = (losses(case, **{case.window: 4096}) - found).abs()
                assert differ[:15].max() == 0 and differ.max() > 0.1, name
    for found in families.values():
        for name, nll in found.items():
            for other in list(found)[: list(found).index(name)]:
                differs = float((nll - found[other]).abs().max())
                assert (differs == 0) == (SAME.get(name) == other) and (differs == 0 or differs > 0.1), (name, other)


@pytest.mark.long
def test_the_tables_are_what_the_sweep_finds() -> None:
    """Numbers in sentences of refusal may be rounded otherwise elsewhere, and shapes are checked in tests first."""
    if not all(case.known for case in CASES.values()):
        pytest.skip("this version of transformers has fewer architectures than the tables")
    findings = {name: found_of(name) for name in CASES}
    varies = r"\d+(\.\d+)?(e[-+]\d+)?|\(\w+Error: [^)]*\)"
    for page, table in tables().tables(findings).items():
        shown, made = (re.sub(varies, "#", text) for text in ((ROOT / page).read_text(), table))
        assert made in shown, page


def test_a_table_says_what_became_of_each_config() -> None:
    findings = {
        "Mistral": Found("exact", {}),
        "Mistral, sliding_window": Found("exact", {}),
        "Mistral, sliding_window and yarn": Found("refused", {}, "one | reason"),
        "BLOOM": Found("refused", {}, "no rotary embedding"),
    }
    short, full = tables().tables(findings).values()
    assert short.splitlines()[2:] == ["| exact with windows | Mistral |", "| refused | BLOOM |"]
    assert full.splitlines()[2:] == [
        "| Mistral | `mistral` | exact | as it is |",
        "| Mistral | `mistral` | exact with windows | sliding_window |",
        r"| Mistral | `mistral` | refused: one \| reason | sliding_window and yarn |",
        "| BLOOM | `bloom` | refused: no rotary embedding | as it is |",
    ]


def test_the_sweep_is_wide_enough() -> None:
    assert len(CASES) >= 45 and len({case.family for case in CASES.values()}) >= 30
    assert {case.family for case in CASES.values()} >= NAMED
    assert all(case.expected == "exact" for case in CASES.values() if case.family in NAMED)
