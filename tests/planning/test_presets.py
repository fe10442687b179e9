"""Every size and every training run of the paper can be planned, sharded over 8 devices, without having either."""

import re

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.planning import plan, trainer
from lit_pi.planning.ledger import Work

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = ["7b", "13b", "33b", "65b"]
LONGER = "configs/experiment/interpolate_{}.yaml"
RUNS = {
    "pile_finetune": [],
    "redpajama_interpolate": [],
    "redpajama_finetune": [],
    "pile_interpolate": [],
    "pile_interpolate at 16k": [f"--config={LONGER.format('16k')}"],
    "pile_interpolate at 32k": [f"--config={LONGER.format('32k')}"],
}


CASES = [*((run, "7b") for run in RUNS), *(("pile_interpolate", size) for size in SIZES[1:])]


@pytest.mark.parametrize(("run", "size"), CASES)
def test_it_passes_plan(run: str, size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """One of its layers, which are all alike; not a CPU's rates, which matrices of such sizes take minutes to tell."""
    monkeypatch.setattr(trainer, "rates", lambda *_: dict.fromkeys(Work, 1e12))
    monkeypatch.setattr(plan, "TRACES", 1)
    LitPiCLI([
        "plan", f"--config=configs/experiment/{run.split()[0]}.yaml", *RUNS[run],
        f"--model=configs/model/llama_{size}.yaml", "--model.llm=FromScratch", f"--model.llm.size={size}",
        "--model.llm.config={num_hidden_layers: 1}", "--trainer=configs/parallel/fsdp2.yaml",
        "--trainer.accelerator=cpu", "--trainer.devices=8", "--memory_gib=80",
    ])  # fmt: skip
    said = capsys.readouterr().out
    (context,) = re.findall(r"sequences of ([\d,]+)", said)
    (longest,) = re.findall(r"longest context in 80\.0 GiB │ *([\d,]+) tokens", said)
    wanted = {"16k": "16,384", "32k": "32,768"}.get(run.rpartition(" ")[2], "8,192")
    assert context == wanted
    assert int(longest.replace(",", "")) >= int(wanted.replace(",", ""))
