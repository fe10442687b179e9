"""`import lit_pi` is quick, and shows everything it has."""

import subprocess
import sys

import pytest

import lit_pi
import lit_pi.evaluations
import lit_pi.positions

FUNCTIONS = {"load", "extend", "perplexity_curve", "passkey", "measure", "generate", "save"}


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'lightning', 'numpy', 'matplotlib'}"
    code = f"import lit_pi, sys; dir(lit_pi); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_strategies_need_torch_alone() -> None:
    code = "import lit_pi, sys; lit_pi.Interpolate(scale=4); print({'transformers', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_function_strategy_and_evaluation_is_there() -> None:
    expected = FUNCTIONS | set(lit_pi.positions.__all__) | set(lit_pi.evaluations.__all__)
    assert set(lit_pi.__all__) == expected
    assert expected <= set(dir(lit_pi))
    for name in expected - FUNCTIONS:
        home = lit_pi.positions if name in lit_pi.positions.__all__ else lit_pi.evaluations
        assert getattr(lit_pi, name) is getattr(home, name)
    for name in FUNCTIONS:
        assert callable(getattr(lit_pi, name)) and getattr(lit_pi, name).__doc__


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'lit_pi' has no attribute 'interpolate'"):
        _ = lit_pi.interpolate
