"""What the demo must show, as the paper does (Chen et al. 2023, table 1 and section 3.2).

python benchmarks/demo_claims.py runs/demo
"""

import json
import sys
from pathlib import Path


def perplexities(run: Path) -> dict[int, float]:
    """Perplexity by context length (tokens) of the test in a run directory."""
    records = json.loads((run / "results.json").read_text())["records"]
    (curve,) = [record["curve"] for record in records if record["stage"] == "test"]
    return {point["context_length"]: point["perplexity"] for point in curve}


def main() -> None:
    demo = Path(sys.argv[1])
    extrapolate, tuned = perplexities(demo / "extrapolate"), perplexities(demo / "interpolate-tuned")
    original, fourfold = min(extrapolate), 4 * min(extrapolate)
    base = extrapolate[original]
    claims = {
        f"Extrapolate at {fourfold} is at least 2x its own perplexity at {original}": extrapolate[fourfold] >= 2 * base,
        f"Interpolate, tuned, at {fourfold} is at most 1.2x the base's at {original}": tuned[fourfold] <= 1.2 * base,
    }
    for claim, holds in claims.items():
        print(f"{'shown' if holds else 'NOT SHOWN'}: {claim}")
    print(f"  base {base:.2f}, extrapolated {extrapolate[fourfold]:.2f}, interpolated {tuned[fourfold]:.2f}")
    sys.exit(0 if all(claims.values()) else 1)


if __name__ == "__main__":
    main()
