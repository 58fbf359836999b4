"""Rewrite mode through Ray and HTTP, with recorded answers of a strong writer: what it makes, and always the same."""

import pytest

from benchmarks.endpoints.replay import replaying
from benchmarks.rewrite import RECORDINGS, Made, make
from causalneg.console import Reporter
from causalneg.records import Analysis
from causalneg.workspace import Workspace

pytestmark = pytest.mark.ray
_PAIRS = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Workspace, Made]]:
    """The same recording, run twice."""
    folders = [tmp_path_factory.mktemp("rewrite") for _ in range(2)]
    with replaying(RECORDINGS / "rewrite-sample.jsonl.gz") as url:
        made = [make("embedded:sample", "generic", url, folder, Reporter(), _PAIRS) for folder in folders]
    return [(Workspace(str(folder)), rows) for folder, rows in zip(folders, made, strict=True)]


def test_the_same_recording_gives_the_same_rows_ids_and_verdicts(runs: list[tuple[Workspace, Made]]) -> None:
    (_, first), (_, second) = runs
    assert first == second
    assert len({n.id for n in first.negatives}) == len(first.negatives) >= 2 * _PAIRS


def test_most_are_accepted_for_few_requests(runs: list[tuple[Workspace, Made]]) -> None:
    _, made = runs[0]
    assert [o.status for o in made.outcomes] == ["accepted"] * _PAIRS
    accepted = [n for n in made.negatives if n.verdict == "accepted"]
    assert len(accepted) >= 0.7 * len(made.negatives)
    assert max(o.requests for o in made.outcomes) <= 6  # one to analyse, one to write, one to judge each negative


def test_every_negative_is_judged_by_the_critical_requirements_of_its_analysis(
    runs: list[tuple[Workspace, Made]],
) -> None:
    workspace, made = runs[0]
    analyses = {a.id: a for a in workspace.read_rows("analyses", Analysis)}
    for negative in made.negatives:
        critical = [r.id for r in analyses[negative.analysis_id].requirements if r.critical]
        assert [j.requirement_id for j in negative.judgements] == critical
        assert negative.requirement_id in critical
        assert {"answers", "target_met"} <= negative.scores.keys()
        assert negative.mode == "rewrite"
