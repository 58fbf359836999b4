"""Runs what the documents tell a reader to type, section by section, in one folder, as a reader would."""

import json
import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from documents import Block, blocks

from causalneg.evaluation.trec import run_lines
from causalneg.records import Query
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
_RUN = [block for block in blocks(REPOSITORY) if block.reason is None]
SECTIONS = {section: list(parts) for section, parts in groupby(_RUN, key=lambda block: block.section)}
_TRAIN, _TEST = 8, 2  # pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample_workspace: Workspace) -> Path:
    """A folder with what a reader has: an environment, pairs of their own, and runs of other programs."""
    made = tmp_path_factory.mktemp("reader")
    (made / ".venv").symlink_to(sys.prefix)
    (made / ".curlrc").write_text("fail-with-body\n")  # so that an answer that is an error is one to the shell
    texts = {query.id: query.text for query in sample_workspace.read_rows("queries", Query)}
    rows = []
    for split, count in (("train", _TRAIN), ("test", _TEST)):
        positives = list(sample_workspace.positives(split).items())[:count]
        passages = sample_workspace.passages({ids[0] for _, ids in positives})
        rows += [
            {"query": texts[query], "positive": passages[ids[0]].text, "title": passages[ids[0]].title, "split": split}
            for query, ids in positives
        ]
    (made / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for number, name in enumerate(("bm25", "mine", "other")):
        hits = {f"q{q}": {f"p{(q + number * r) % 7}": 1.0 / (r + 1) for r in range(4)} for q in range(6)}
        (made / f"{name}.trec").write_text(run_lines(hits, name))
    (made / "qrels.txt").write_text("".join(f"q{q} 0 p{q} 1\n" for q in range(6)))
    return made


def _script(parts: list[Block]) -> str:
    """Join the blocks of a section; what they leave running ends with them."""
    lines = ["set -euo pipefail", "trap 'for job in $(jobs -p); do kill $job; done; wait' EXIT"]
    for part in parts:
        lines.append(part.text if part.language == "sh" else f"python - <<'END_OF_BLOCK'\n{part.text}END_OF_BLOCK")
    return "\n".join(lines)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_runs(section: str, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "CURL_HOME": str(folder),
    }
    shell = subprocess.Popen(
        ["bash", "-c", _script(SECTIONS[section])],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=900)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, printed
    assert "Traceback" not in printed
