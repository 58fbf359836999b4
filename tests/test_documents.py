"""What the documents tell a reader to type: it parses, and its files, targets and flags are there."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from documents import Block, blocks, commands

from causalneg.cli import COMMANDS, _flag_names, _load, _option

REPOSITORY = Path(__file__).parents[1]
BLOCKS = blocks(REPOSITORY)
SCRIPTS = [block for block in BLOCKS if block.language == "sh"]
_JOBS = {"import_data": "import", "run_mteb": "mteb"}  # the others have their command's name
_OTHERS = {"--working-dir"}  # of other programs


def _of_causalneg(words: list[str]) -> list[str] | None:
    """Return the command of causalneg with its arguments that is among the words, or None."""
    for at, word in enumerate(words):
        if word == "causalneg" and words[at + 1] in COMMANDS:
            return words[at + 1 :]
        if job := re.fullmatch(r"jobs/(\w+)\.py", word):
            return [_JOBS.get(job[1], job[1]), *words[at + 1 :]]
    return None


def test_the_documents_have_blocks_and_every_fence_is_known() -> None:
    assert {block.place.split(":")[0] for block in BLOCKS} >= {"README.md", "cluster/README.md"}
    for name in {block.place.split(":")[0] for block in BLOCKS}:
        fences = re.findall(r"^```(\w+)$", (REPOSITORY / name).read_text(), re.MULTILINE)
        assert len(fences) == sum(block.place.startswith(f"{name}:") for block in BLOCKS), name


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_it_parses(block: Block) -> None:
    if block.language == "python":
        compile(block.text, block.place, "exec")
        return
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.place)
def test_commands_flags_files_and_targets_are_there(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for words in commands(block.text):
        if (own := _of_causalneg(words)) is not None:
            _load(own[0], own[1:])  # refuses what is unknown
        elif words[0] == "make":
            assert set(words[1:]) <= set(targets)
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2])
        for word in words:
            if word.startswith(("cluster/", "configs/", "jobs/", "docs/")):
                assert (REPOSITORY / word).exists(), word


def test_flags_in_the_text_are_there() -> None:
    known = {_option(flag) for command in COMMANDS for flag in _flag_names(command)}
    known |= {f"--no-{flag[2:]}" for flag in known} | {"--config", "--help"} | _OTHERS
    for file in (REPOSITORY / "benchmarks").rglob("*.py"):
        known |= set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", file.read_text()))
    for name in ("README.md", "cluster/README.md"):
        text = re.sub(r"^```.*?^```$", "", (REPOSITORY / name).read_text(), flags=re.MULTILINE | re.DOTALL)
        # Within a code span, where a span may go on in the next line.
        spans = re.findall(r"`([^`]+)`", text)
        flags = {f for span in spans for f in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span)}
        assert flags <= known
