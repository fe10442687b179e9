"""What a stranger gets who installs the wheel and has no checkout."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from the source distribution, as an index would serve it."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT],
        check=True,
        capture_output=True,
        cwd=target,  # not the checkout, where the folder `build` of an earlier run would shadow the module
    )
    with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_every_package_of_the_tree_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tree = {"lit_pi.callbacks", "lit_pi.configs"} | {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lit_pi").rglob("__init__.py")
    }
    assert set(settings["packages"]) == tree


def test_the_wheel_holds_every_module_and_preset(wheel: set[str]) -> None:
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "lit_pi").rglob("*.py")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "lit_pi" / "report").rglob("page.*") if path.suffix}
    expected |= {f"lit_pi/callbacks/{path.name}" for path in (ROOT / "callbacks").glob("*.py")}
    expected |= {f"lit_pi/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert expected | {"lit_pi/py.typed"} <= wheel


def test_the_wheel_takes_no_name_beside_its_own(wheel: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"lit_pi"}


def test_the_folder_callbacks_refuses_to_be_a_package_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", "import callbacks"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "lit_pi.callbacks" in done.stderr.splitlines()[-1]
