"""The workspace: whole files, stages that are done, redone or resumed, on a disk and elsewhere."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from causalneg.config import MineSettings
from causalneg.errors import UserError
from causalneg.records import Negative, Passage, Query
from causalneg.workspace import Counts, Manifest, Workspace

PASSAGES = [Passage(id=str(n), title=f"t{n}", text=f"text {n} ü") for n in range(5)]


@pytest.fixture(params=["local", "memory"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on disk, and one in an object store of fsspec."""
    if request.param == "local":
        yield Workspace(str(tmp_path / "ws"))
        return
    workspace = Workspace(f"memory://{uuid.uuid4().hex}/ws")
    yield workspace
    workspace.remove("")


def imported(workspace: Workspace, passages: list[Passage]) -> Manifest:
    stage = workspace.begin("import", {"passages": [p.id for p in passages]}, [])
    if stage.done:
        return stage.done
    stage.workspace.write_rows("corpus", "part-000000", Passage, passages)
    return stage.finish(Counts(rows_in=len(passages), accepted=len(passages)))


def mined(workspace: Workspace, wanted: int = 15) -> Manifest:
    stage = workspace.begin("mine", {"mine": MineSettings(num_negatives=wanted)}, ["import"])
    assert stage.done is None
    stage.workspace.write_rows("mined", f"part-{wanted}", Query, [Query(id="1", text="x")])
    return stage.finish(Counts(rows_in=1, accepted=1))


# Files and rows


def test_rows_come_back_in_the_order_of_the_names(workspace: Workspace) -> None:
    assert workspace.write_rows("corpus", "part-000001", Passage, PASSAGES[2:]) == 3
    assert workspace.write_rows("corpus", "part-000000", Passage, PASSAGES[:2]) == 2
    assert list(workspace.read_rows("corpus", Passage)) == PASSAGES
    assert workspace.list_files(["corpus"]) == ["corpus/part-000000.parquet", "corpus/part-000001.parquet"]
    assert workspace.passages({"1", "4", "absent"}) == {"1": PASSAGES[1], "4": PASSAGES[4]}


def test_an_absent_folder_has_no_rows(workspace: Workspace) -> None:
    assert list(workspace.read_rows("corpus", Passage)) == []
    assert workspace.list_files(["corpus"]) == []
    workspace.remove("corpus")


def test_bytes_are_replaced_as_a_whole(workspace: Workspace) -> None:
    workspace.write_bytes("runs/a.trec", b"long before")
    workspace.write_bytes("runs/a.trec", b"after")
    assert workspace.read_bytes("runs/a.trec") == b"after"
    assert workspace.list_files(["runs"]) == ["runs/a.trec"]
    assert workspace.checksum("runs/a.trec").bytes == 5


def test_rows_of_another_schema_are_refused(workspace: Workspace) -> None:
    workspace.write_rows("negatives", "part-000000", Query, [Query(id="1", text="x")])
    with pytest.raises(UserError, match=r"part-000000\.parquet was written by another version"):
        list(workspace.read_rows("negatives", Negative))


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.replace"])
def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    workspace = Workspace(str(tmp_path))
    workspace.write_bytes("model/weights", b"old" * 1000)
    script = f"""
import os, pathlib, sys, time
def stop(*arguments):
    print("in the middle", flush=True)
    time.sleep(600)
{moment} = stop
from causalneg.workspace import Workspace
Workspace(sys.argv[1]).write_bytes("model/weights", b"new" * 100_000)
"""
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout
    assert writer.stdout.readline() == b"in the middle\n"
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    assert workspace.read_bytes("model/weights") == b"old" * 1000
    assert workspace.list_files(["model"]) == ["model/weights"]
    workspace.write_bytes("model/weights", b"new")
    assert workspace.read_bytes("model/weights") == b"new"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    (tmp_path / "model" / "taken").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        workspace.write_bytes("model/taken", b"data")
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["taken"]


def test_what_cannot_be_opened_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="nosuch"):
        Workspace("nosuch://bucket/ws")


def test_a_store_has_no_local_folder(tmp_path: Path) -> None:
    assert Workspace(str(tmp_path)).local_folder("model") == tmp_path / "model"
    with pytest.raises(UserError, match="memory://ws"):
        Workspace("memory://ws").local_folder("model")


# Stages


def test_a_stage_with_the_same_settings_and_inputs_is_done(workspace: Workspace) -> None:
    first = imported(workspace, PASSAGES)
    made = mined(workspace)
    assert workspace.manifest("import") == first
    stage = workspace.begin("mine", {"mine": MineSettings()}, ["import"])
    assert stage.done == made == workspace.require("mine")
    assert list(made.files) == ["mined/part-15.parquet"]
    assert made.files["mined/part-15.parquet"] == workspace.checksum("mined/part-15.parquet")
    assert made.config["mine"]["num_negatives"] == 15
    assert made.inputs == {"import": first.digest}


def test_a_result_with_other_settings_takes_the_place_of_the_earlier_one(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    mined(workspace, wanted=15)
    assert list(mined(workspace, wanted=60).files) == ["mined/part-60.parquet"]
    assert workspace.list_files(["mined"]) == ["mined/part-60.parquet"]


def test_the_earlier_result_stays_while_a_stage_is_redone(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    made = mined(workspace)
    stage = workspace.begin("mine", {"mine": MineSettings(num_negatives=60)}, ["import"])
    stage.workspace.write_rows("mined", "part-60", Query, [Query(id="1", text="new")])
    assert list(stage.workspace.read_rows("mined", Query)) == [Query(id="1", text="new")]
    assert stage.workspace.list_files(["mined"]) == ["mined/part-60.parquet"]
    assert list(workspace.read_rows("mined", Query)) == [Query(id="1", text="x")]
    assert workspace.require("mine") == made
    assert workspace.begin("mine", {"mine": MineSettings()}, ["import"]).done == made


def test_another_input_makes_a_stage_run_again(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    mined(workspace)
    assert not workspace.is_outdated("mine")
    imported(workspace, PASSAGES[:3])
    assert workspace.is_outdated("mine")
    assert workspace.begin("mine", {"mine": MineSettings()}, ["import"]).done is None
    assert workspace.list_files(["mined"]) == ["mined/part-15.parquet"]


def test_an_input_made_again_alike_changes_nothing(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    mined(workspace)
    imported(workspace, PASSAGES[:3])
    imported(workspace, PASSAGES)
    assert workspace.begin("mine", {"mine": MineSettings()}, ["import"]).done is not None


def test_a_file_that_is_gone_makes_a_stage_run_again(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    mined(workspace)
    workspace.remove("mined/part-15.parquet")
    assert workspace.begin("mine", {"mine": MineSettings()}, ["import"]).done is None


def test_an_unfinished_run_resumes(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    assert not workspace.begin("mine", {"mine": MineSettings()}, ["import"]).resumed
    building = workspace.begin("mine", {"mine": MineSettings()}, ["import"]).workspace
    building.write_rows("mined", "part-000000", Query, [Query(id="1", text="x")])
    again = workspace.begin("mine", {"mine": MineSettings()}, ["import"])
    assert again.done is None
    assert again.resumed
    assert again.workspace.list_files(["mined"]) == ["mined/part-000000.parquet"]
    assert workspace.list_files(["mined"]) == []
    again.finish(Counts(rows_in=1, accepted=1))
    assert workspace.begin("mine", {"mine": MineSettings()}, ["import"]).done


def test_an_unfinished_run_with_other_settings_does_not_resume(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    building = workspace.begin("mine", {"mine": MineSettings()}, ["import"]).workspace
    building.write_rows("mined", "part-000000", Query, [Query(id="1", text="x")])
    other = workspace.begin("mine", {"mine": MineSettings(num_negatives=1)}, ["import"])
    assert not other.resumed
    assert other.workspace.list_files(["mined"]) == []


def test_a_stage_needs_its_inputs(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="no finished import; run `causalneg import` first"):
        workspace.begin("mine", {}, ["import"])
    assert workspace.list_files(["manifests"]) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "import"}', b"\xff\xfe"])
def test_a_damaged_manifest_is_named(workspace: Workspace, content: bytes) -> None:
    imported(workspace, PASSAGES)
    workspace.write_bytes("manifests/import.json", content)
    with pytest.raises(UserError, match=r"manifests/import\.json is damaged"):
        workspace.require("import")


def test_a_damaged_mark_of_a_started_stage_starts_it_anew(workspace: Workspace) -> None:
    imported(workspace, PASSAGES)
    workspace.begin("mine", {}, ["import"])
    workspace.write_bytes("building/mine/key", b"\xff\x00")
    assert not workspace.begin("mine", {}, ["import"]).resumed


def test_the_parts_of_the_counts_add_up() -> None:
    Counts(rows_in=6, accepted=3, rejected=2, failed=1)
    with pytest.raises(ValidationError, match="do not add up"):
        Counts(rows_in=6, accepted=3, rejected=2)


def test_a_manifest_carries_tokens_and_details(workspace: Workspace) -> None:
    stage = workspace.begin("import", {}, [])
    stage.workspace.write_rows("corpus", "part-000000", Passage, PASSAGES)
    made = stage.finish(Counts(rows_in=5, accepted=5), tokens={"prompt": 3}, details={"splits": {"train": 2}})
    read = workspace.require("import")
    assert read == made
    assert (read.tokens, read.details) == ({"prompt": 3}, {"splits": {"train": 2}})


def test_batches_keep_the_schema(workspace: Workspace) -> None:
    workspace.write_rows("corpus", "part-000000", Passage, PASSAGES)
    (batch,) = workspace.read_batches("corpus", Passage)
    assert batch.schema == pa.schema([(name, pa.string()) for name in ("id", "title", "text", "metadata")])


def test_a_check_that_fails_leaves_earlier_work_alone(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "ws"))
    stage = workspace.begin("import", {"seed": 0}, [])
    stage.workspace.write_rows("queries", "part-000000", Query, [Query(id="q", text="who?")])
    stage.finish(Counts(rows_in=1, accepted=1))

    def refuse() -> None:
        raise UserError("too little memory")

    assert workspace.begin("import", {"seed": 0}, [], check=refuse).done, "nothing to do, so nothing is asked"
    with pytest.raises(UserError, match="too little memory"):
        workspace.begin("import", {"seed": 1}, [], check=refuse)
    assert workspace.require("import").counts.accepted == 1
    assert [q.id for q in workspace.read_rows("queries", Query)] == ["q"]
