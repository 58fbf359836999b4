"""The mine stage: candidates of every train query, found once; then filtered by their stored scores."""

import math
from collections.abc import Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg import duplicates
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.features import CorpusFeatures, corpus_features
from causalneg.mining.filters import decide
from causalneg.mining.page import examples, page
from causalneg.mining.report import MiningReport, Tally
from causalneg.mining.rescore import rescore
from causalneg.mining.search import CandidateSearch
from causalneg.models import resolve
from causalneg.prompts import said_prompts
from causalneg.records import Candidate, Mined, from_table
from causalneg.runtime import cluster_session
from causalneg.stages import revised
from causalneg.workspace import Counts, Manifest, Workspace

REPORT = "mined/report"


class _Signatures:
    """The MinHash signatures of the passages that are candidates.

    Args:
        workspace: holds the corpus and keeps the signatures.
        parts: files of `Candidate` rows.
        config: workers.
        report: shows the progress.
    """

    def __init__(self, workspace: Workspace, parts: list[str], config: Config, report: Reporter) -> None:
        self._workspace = workspace
        self._ids = workspace.column("corpus", "id").combine_chunks()
        wanted = np.unique(np.concatenate([self._numbers(self._passages(p)) for p in parts]))
        self._features: CorpusFeatures = corpus_features(
            workspace,
            revised(f"signatures/{duplicates.VERSION}", "mine/signatures"),
            _make_signatures,
            report,
            "comparing",
            wanted,
            config.encode.workers,
        )

    def _passages(self, part: str) -> pa.Array:
        return self._workspace.read_table(part, ["passage_id"]).column("passage_id").unique()

    def _numbers(self, ids: pa.Array) -> np.ndarray:
        return np.asarray(pc.index_in(ids, value_set=self._ids))

    def of(self, part: str) -> dict[str, np.ndarray]:
        """Return the signature of every passage that a file of candidates names."""
        ids = self._passages(part)
        return dict(zip(ids.to_pylist(), self._features.take(self._numbers(ids)), strict=True))


def _make_signatures() -> "duplicates.Signatures":
    return duplicates.signatures


def _score_range(workspace: Workspace, parts: list[str]) -> tuple[float, float]:
    """Return the lowest and the highest score of all candidates."""
    low, high = math.inf, -math.inf
    for part in parts:
        table = workspace.read_table(part, ["dense_score", "cross_score"])
        ends = pc.min_max(pc.coalesce(table.column("cross_score"), table.column("dense_score"))).as_py()
        low, high = min(low, ends["min"]), max(high, ends["max"])
    return low, high


def _by_query(table: pa.Table) -> Iterator[list[Candidate]]:
    for _, rows in groupby(from_table(Candidate, table), key=lambda c: c.query_id):
        yield list(rows)


def _say(report: Reporter, result: MiningReport) -> None:
    short = f", {result.short} with fewer than {result.wanted}" if result.short else ""
    report.line(f"mine: {result.kept} negatives for {result.queries} queries{short}, out of {result.candidates}")


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Mine negatives for every train query into `mined`.

    Raises:
        UserError: import is not done, a model does not exist, or there is nothing to train on.
    """
    workspace.require("import")
    settings = config.mine
    model = resolve(config.mining_encoder)
    cross = resolve(settings.search.cross_encoder) if settings.search.cross_encoder else None
    determines = {
        "mine": settings,
        "encoder": model.fingerprint,
        "precision": config.encode.precision,
        "cross_encoder": cross.fingerprint if cross else None,
        "seed": config.seed,
    }
    stage = workspace.begin("mine", determines, inputs=["import"], say=report.line)
    if stage.done:
        report.line(f"mine: already done ({stage.done.counts.accepted} negatives)")
        return stage.done
    workspace = stage.workspace
    report.line(f"mine: {said_prompts(model)}")
    with cluster_session():
        parts = CandidateSearch(workspace, model, config, report).run()
        if cross:
            parts = rescore(workspace, parts, cross, config.encode, report)
        signatures = _Signatures(workspace, parts, config, report) if settings.near_duplicate is not None else None
        tally = Tally(settings, config.seed, *_score_range(workspace, parts))
        with report.meter("filtering", len(parts), "parts") as meter:
            for number, part in enumerate(parts):
                known = signatures.of(part) if signatures else {}
                rows: list[Mined] = []
                for candidates in _by_query(workspace.read_table(part)):
                    decided = decide(candidates, known, settings, config.seed)
                    tally.add(candidates, decided, known)
                    rows += decided
                workspace.write_rows("mined", f"part-{number:06d}", Mined, rows)
                meter.advance()
    result = tally.report()
    workspace.write_bytes(f"{REPORT}.json", result.model_dump_json(indent=1).encode())
    workspace.write_bytes(f"{REPORT}.html", page(result, examples(workspace, config.seed)).encode())
    _say(report, result)
    counts = Counts(rows_in=result.candidates, accepted=result.kept, rejected=result.candidates - result.kept)
    return stage.finish(counts, details={"queries": result.queries, "verdicts": result.verdicts})
