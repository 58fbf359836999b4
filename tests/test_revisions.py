"""What is done, drafted or found stays so under another version of the package; another revision makes it anew."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causalneg import stages
from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.job import DECIDING, prepare
from causalneg.generation.rows import Step
from causalneg.generation.run import prepare_pairs
from causalneg.generation.run import run as generate
from causalneg.mining.run import run as mine
from causalneg.records import Failure, Outcome
from causalneg.sources.run import run as import_data
from causalneg.training.run import _RESOURCES
from causalneg.workspace import Counts, Workspace

ENCODER = "embedded:minilm-l6"

# Runs commands as another release of the package does, and prints the key of the drafts.
OTHER_RELEASE = """
import sys
import causalneg
causalneg.__version__ = "0.1.1"
from causalneg.cli import main
from causalneg.config import load_config
from causalneg.generation.job import prepare
from causalneg.workspace import Workspace
folder, source = sys.argv[1:]
for command in (["import", "--source", source], ["mine"], ["index"]):
    assert main([*command, "--workspace", folder]) == 0
print(prepare(load_config(flags={"llm": "embedded:minilm-l6"}), Workspace(folder)).key)
"""


def write_source(folder: Path) -> Path:
    """Six passages and three queries."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "text": f"What is known about number {n} fills a book."} for n in range(6)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": f"q{n}", "text": f"What is known about number {n}?"} for n in range(3)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels" / "train.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(3)))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "data")


@pytest.fixture(scope="module")
def mined(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, imported and mined; to be read only."""
    workspace, report = Workspace(str(tmp_path_factory.mktemp("mined") / "ws")), Reporter(io.StringIO())
    import_data(load_config(flags={"import.source": str(source)}), workspace, report)
    mine(load_config(), workspace, report)
    return Path(workspace.root)


@pytest.fixture
def workspace(mined: Path, tmp_path: Path) -> Workspace:
    return Workspace(str(shutil.copytree(mined, tmp_path / "ws")))


def said(stage: Callable[[Config, Workspace, Reporter], object], workspace: Workspace, **flags: Any) -> str:
    """Run a stage and return what it prints."""
    output = io.StringIO()
    stage(load_config(flags={name.replace("__", "."): v for name, v in flags.items()}), workspace, Reporter(output))
    return output.getvalue()


def touched(workspace: Workspace) -> dict[str, int]:
    names = [n for n in workspace.list_files([""]) if not n.startswith("logs/")]
    return {name: Path(workspace.path(name)).stat().st_mtime_ns for name in names}


def test_another_release_redoes_nothing(workspace: Workspace, source: Path, report: Reporter) -> None:
    from causalneg.indexing.run import run as index

    index(load_config(), workspace, report)
    key = prepare(load_config(flags={"llm": ENCODER}), workspace).key
    before = touched(workspace)
    command = [sys.executable, "-c", OTHER_RELEASE, workspace.root, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done") == 3
    assert done.stdout.strip() == key
    assert touched(workspace) == before


@pytest.mark.parametrize(
    ("raised", "redone", "searched"),
    [
        ("mine", ["mine"], False),
        ("mine/candidates", ["mine"], True),
        ("mine/bm25", ["mine"], True),
        ("embeddings", ["mine"], True),
        ("import", ["import"], False),
        ("generate", [], False),
    ],
)
def test_another_revision_makes_anew_what_is_made_of_it(
    workspace: Workspace, source: Path, monkeypatch: pytest.MonkeyPatch, raised: str, redone: list[str], searched: bool
) -> None:
    candidates = len(workspace.list_files(["candidates"]))
    monkeypatch.setitem(stages.REVISIONS, raised, 2)
    lines = {"import": said(import_data, workspace, import__source=str(source)), "mine": said(mine, workspace)}
    assert [stage for stage, line in lines.items() if "already done" not in line] == redone
    assert all("it is made in another way now" in lines[stage] for stage in redone)
    assert (len(workspace.list_files(["candidates"])) > candidates) == searched
    assert workspace.require("mine").version
    assert "already done" in said(mine, workspace)


def test_a_setting_that_a_release_adds_redoes_nothing(workspace: Workspace, source: Path) -> None:
    key = prepare(load_config(flags={"llm": ENCODER}), workspace).key
    for stage in ("import", "mine"):  # as a release wrote them that did not have these settings yet
        name = f"manifests/{stage}.json"
        manifest = json.loads(workspace.read_bytes(name))
        del manifest["config"][stage]["strict" if stage == "import" else "sampling"]
        workspace.write_bytes(name, json.dumps(manifest).encode())
    assert "already done" in said(import_data, workspace, import__source=str(source))
    assert "already done" in said(mine, workspace)
    assert prepare(load_config(flags={"llm": ENCODER}), workspace).key == key
    assert "mine.sampling changed" in said(mine, workspace, mine__sampling="random")


def test_reports_and_cards_make_no_later_stage_outdated(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    for described in (b"in 3 s by 0.1.0", b"in 4 s by 0.1.1"):
        for stage, inputs, folder in (("import", [], "corpus"), ("generate", ["import"], "negatives")):
            run = workspace.begin(stage, {}, inputs, again=True)  # type: ignore[arg-type]
            run.workspace.write_bytes(f"{folder}/part-0.parquet", b"rows")
            run.workspace.write_bytes(f"{folder}/README.md", described)
            run.workspace.write_bytes(f"{folder}/report.json", described)
            run.finish(Counts(rows_in=1, accepted=1))
        if described.endswith(b"0"):
            stage_behind = workspace.begin("train", {}, ["import", "generate"])
            stage_behind.finish(Counts(rows_in=1, accepted=1))
    assert not workspace.is_outdated("train")
    assert workspace.begin("train", {}, ["import", "generate"]).done


@pytest.mark.parametrize("raised", STEPS)
def test_another_revision_of_a_step_keeps_what_the_llm_answered_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str
) -> None:
    drafts = Drafts(Workspace(str(tmp_path)), "key")
    for step in STEPS:
        drafts.write_step(step, "000000", [Step(pair_id="p")])
    drafts.write_outcomes("000000", [])
    before = stages.revision("generate")
    monkeypatch.setitem(stages.REVISIONS, f"generate/{raised}", 2)
    kept = [bool(drafts.read_step(step, "000000")) for step in STEPS]
    assert kept == [at < STEPS.index(raised) for at in range(len(STEPS))]
    assert not drafts.workspace.exists(f"{drafts.folder}/outcomes-r2/000000.parquet")
    assert stages.revision("generate") == before + 1


def test_another_revision_of_generate_decides_anew_and_asks_no_llm(
    workspace: Workspace, report: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(flags={"llm": ENCODER})
    job = prepare(config, workspace)
    drafts = Drafts(workspace, job.key)
    prepare_pairs(drafts, job.settings, config.seed)
    for batch in drafts.batches():
        told = {"stage": "generate", "kind": "timeout", "retryable": False, "attempts": 3, "message": "m"}
        none = dict.fromkeys(
            ("accepted", "rejected", "requests", "prompt_tokens", "cached_tokens", "generated_tokens"), 0
        )
        pairs = drafts.pairs(batch)
        drafts.write_step("scored", batch, [Step(pair_id=p.id, failure=Failure(input_id=p.id, **told)) for p in pairs])
        ids = [{"input_id": p.id, "query_id": p.query.id, "positive_id": p.positive.id} for p in pairs]
        drafts.write_outcomes(batch, [Outcome(**i, **none, status="failed", failure="timeout") for i in ids])
    made = generate(config, workspace, report)
    assert made is not None
    assert made.counts.failed == 3
    assert {name.split("/")[0] for name in made.files} == {"analyses", "negatives", "failures", "outcomes"}
    assert generate(config, workspace, report) == made
    monkeypatch.setitem(stages.REVISIONS, "generate", 2)
    again = generate(config, workspace, report)
    assert again is not None
    assert (again.revision, again.counts, again.digest) == (2, made.counts, made.digest)
    assert not workspace.exists("building")


def test_a_default_that_changes_wants_another_revision() -> None:
    """Settings at their defaults are in no key: with another default, another revision has to tell results apart."""
    now = Config().model_dump(mode="json", by_alias=True)
    determining = {
        "import": now["import"],
        "mine/candidates": now["mine"]["search"],
        "generate/pairs": {n: v for n, v in now["generate"].items() if n not in DECIDING},
        "train": {n: v for n, v in now["train"].items() if n not in _RESOURCES},
    }
    file = Path(__file__).with_name("defaults.json")
    for name, known in json.loads(file.read_text()).items():
        changed = stages.changed(known["defaults"], determining[name])
        assert not changed or stages.revision(name) > known["revision"], (
            f"{name}: the defaults of {', '.join(changed)} changed; raise its revision in causalneg/stages.py, and "
            f"write both into {file.name}"
        )
