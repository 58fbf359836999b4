"""The names of MTEB's tasks: those of the published evaluation are there, in English, with the split that counts."""

from pathlib import Path

import mteb
import pytest

from causalneg.config import load_config
from causalneg.errors import UserError
from causalneg.evaluation.mteb.tasks import find_tasks
from causalneg.workspace import Workspace


def found(workspace: Workspace, *names: str, **local: str) -> list[str]:
    return [task.metadata.name for task in find_tasks(names, local, workspace, None)]


@pytest.mark.parametrize(
    ("name", "split", "data"),
    [("HotpotQA", "test", "mteb/hotpotqa"), ("MSMARCO", "dev", "mteb/msmarco"), ("NQ", "test", "mteb/nq")],
)
def test_the_published_tasks_are_english_retrieval(name: str, split: str, data: str, tmp_path: Path) -> None:
    (task,) = find_tasks([name], {}, Workspace(str(tmp_path)), None)
    metadata = task.metadata
    assert (metadata.name, metadata.type, list(metadata.eval_langs)) == (name, "Retrieval", ["eng-Latn"])
    assert (list(task.eval_splits), metadata.main_score) == ([split], "ndcg_at_10")
    assert metadata.dataset["path"] == data
    assert len(metadata.dataset["revision"]) == 40
    assert not metadata.superseded_by


def test_nanobeir_is_thirteen_tasks_by_their_names(tmp_path: Path) -> None:
    names = found(Workspace(str(tmp_path)), "NanoBEIR")
    data = "ArguAna ClimateFever DBPedia FEVER FiQA2018 HotpotQA MSMARCO NFCorpus NQ Quora SCIDOCS SciFact Touche2020"
    assert names == [f"Nano{name}Retrieval" for name in data.split()]
    for name in names:
        metadata = mteb.get_task(name).metadata
        assert metadata.eval_splits == ["train"]  # all that these data sets have
        assert metadata.main_score == "ndcg_at_10"
    assert found(Workspace(str(tmp_path)), "NanoNQRetrieval", "NanoBEIR")[:2] == [names[8], names[0]]  # each once


def test_the_chinese_ms_marco_is_another_task() -> None:
    assert mteb.get_task("MMarcoRetrieval").metadata.eval_langs == ["cmn-Hans"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TriviaQA", r"no task or benchmark 'TriviaQA'.*TriviaQA's own files.*--local"),
        ("MSMARCORetrieval", "'MSMARCORetrieval': the English MS MARCO is MSMARCO"),
        ("HotpotQARetrieval", "it is HotpotQA"),
        ("NanoBEER", "did you mean 'NanoBEIR'"),
        ("HotpotQa", "did you mean 'HotpotQA'"),
        ("worksapce", "did you mean 'workspace'"),
        ("STS12", "STS12 is no task of retrieving texts but of STS"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        found(Workspace(str(tmp_path)), name)


def test_wrong_local_tasks_are_named(sample_workspace: Workspace) -> None:
    ws = sample_workspace.root_url
    assert found(sample_workspace, "NQ", "Mine", Mine=ws) == ["NQ", "Mine"]
    with pytest.raises(UserError, match="NQ is one of MTEB's own tasks"):
        found(sample_workspace, "NQ", NQ=ws)
    with pytest.raises(UserError, match=r"'Mien' is not among mteb\.tasks; did you mean 'Mine'"):
        found(sample_workspace, "Mine", Mien=ws)
    with pytest.raises(UserError, match="'a/b' is no name"):
        find_tasks(["a/b"], {"a/b": ws}, sample_workspace, None)
    with pytest.raises(UserError, match="no finished import"):
        found(sample_workspace, "Mine", Mine=ws + "-absent")
    with pytest.raises(UserError, match=r"for the split 'tset'; there are: test, train\."):
        find_tasks(["workspace"], {}, sample_workspace, "tset")
    with pytest.raises(UserError, match="names no task"):
        find_tasks([], {}, sample_workspace, None)


def test_one_name_needs_no_brackets() -> None:
    assert load_config(flags={"mteb.tasks": "NQ"}).mteb.tasks == ["NQ"]
