"""The stage `evaluate`: the trained encoder against the one that training started from."""

import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.metrics import Run, Scores, compute, parse_measures, ranked
from causalneg.evaluation.report import Change, TopHit, page, table_rows, trec_lines
from causalneg.evaluation.search import exact_search
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Qrel, Query
from causalneg.vectors import embed_corpus
from causalneg.workspace import Counts, Manifest, Workspace

_SHOWN = 5  # queries on the page that improved, and as many that got worse


def _check_measures(config: Config) -> None:
    for name, cutoff in parse_measures(config.evaluate.measures).items():
        if cutoff is not None and cutoff > config.evaluate.depth:
            raise UserError(
                f"evaluate.measures: {name} looks at {cutoff} hits, but only evaluate.depth = "
                f"{config.evaluate.depth} are retrieved; raise the depth."
            )


def _qrels(workspace: Workspace, split: str) -> dict[str, dict[str, int]]:
    """Return a split's judgements.

    Raises:
        UserError: there is no such split.
    """
    qrels: dict[str, dict[str, int]] = {}
    splits = set()
    for qrel in workspace.read_rows("qrels", Qrel):
        splits.add(qrel.split)
        if qrel.split == split:
            qrels.setdefault(qrel.query_id, {})[qrel.passage_id] = qrel.score
    if not qrels:
        there = ", ".join(sorted(splits)) or "none"
        raise UserError(f"evaluate.split: the data has no judgements for the split {split!r}; there are: {there}.")
    return qrels


def _answerable(
    workspace: Workspace, qrels: Mapping[str, Mapping[str, int]], passage_ids: pa.ChunkedArray
) -> dict[str, str]:
    """Return id and text of the judged queries that have a positive in the corpus."""
    positives = {p for judged in qrels.values() for p, score in judged.items() if score > 0}
    wanted = pa.array(sorted(positives), pa.string())
    there = set(passage_ids.filter(pc.is_in(passage_ids, value_set=wanted)).to_pylist())
    return {
        query.id: query.text
        for query in workspace.read_rows("queries", Query)
        if any(score > 0 and p in there for p, score in qrels.get(query.id, {}).items())
    }


def _retrieve(
    config: Config,
    workspace: Workspace,
    report: Reporter,
    model: ResolvedModel,
    queries: Mapping[str, str],
    passage_ids: pa.ChunkedArray,
) -> dict[str, dict[str, float]]:
    corpus = embed_corpus(workspace, model, config.encode, report)
    vectors = encode(load_encoder(model), list(queries.values()), "query", config.encode.batch_size)
    hits = exact_search(vectors, corpus, passage_ids, config.evaluate.depth)
    return dict(zip(queries, hits, strict=True))


def _changes(
    workspace: Workspace,
    measure: str,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    runs: Mapping[str, Run],
    scores: Mapping[str, Scores],
) -> tuple[list[Change], list[Change]]:
    """Return the queries that improved most and those that got worse most, with their first hits."""
    base, trained = (scores[name].per_query[measure] for name in ("base", "trained"))
    by_gain = sorted(queries, key=lambda query: (base[query] - trained[query], query))
    improved = [q for q in by_gain if trained[q] > base[q]][:_SHOWN]
    worse = [q for q in reversed(by_gain) if trained[q] < base[q]][:_SHOWN]
    first = {name: {q: ranked(runs[name][q])[0] for q in (*improved, *worse)} for name in runs}
    passages = workspace.passages({p for hits in first.values() for p in hits.values()})

    def top(name: str, query: str) -> TopHit:
        passage = first[name][query]
        return TopHit(passages[passage].full_text, qrels[query].get(passage, 0) > 0)

    def change(query: str) -> Change:
        return Change(queries[query], base[query], trained[query], top("base", query), top("trained", query))

    return [change(q) for q in improved], [change(q) for q in worse]


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Measure both encoders on the split; nothing is done when they were measured already."""
    _check_measures(config)
    workspace.require("import")
    qrels = _qrels(workspace, config.evaluate.split)
    base = resolve(config.encoder)
    stage = workspace.begin("evaluate", {"evaluate": config.evaluate, "encoder": base.fingerprint}, ["import", "train"])
    if stage.done:
        report.line("evaluate: already done")
        _print(report, config, stage.done)
        return stage.done
    models = {"base": base, "trained": resolve(str(workspace.local_folder("model")))}
    passage_ids = workspace.column("corpus", "id")
    queries = _answerable(workspace, qrels, passage_ids)
    if not queries:
        raise UserError(
            f"evaluate.split: no query of the split {config.evaluate.split!r} has a positive in the corpus."
        )
    judged = {query: qrels[query] for query in queries}
    runs = {name: _retrieve(config, workspace, report, model, queries, passage_ids) for name, model in models.items()}
    scores = {name: compute(config.evaluate.measures, judged, run) for name, run in runs.items()}
    _write(workspace, config, queries, judged, runs, scores, len(passage_ids))
    manifest = stage.finish(
        Counts(rows_in=len(qrels), accepted=len(judged), rejected=len(qrels) - len(judged)),
        details={name: result.mean for name, result in scores.items()},
    )
    _print(report, config, manifest)
    if rejected := manifest.counts.rejected:
        report.line(f"evaluate: {rejected} of {len(qrels)} queries left out: no positive in the corpus")
    report.line(f"evaluate: {workspace.path('report/index.html')}")
    return manifest


def _write(
    workspace: Workspace,
    config: Config,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    runs: Mapping[str, Run],
    scores: Mapping[str, Scores],
    passages: int,
) -> None:
    for name, run in runs.items():
        workspace.write_bytes(f"runs/{name}.trec", trec_lines(run, name).encode())
    metrics = {"split": config.evaluate.split, "queries": len(queries), "passages": passages} | {
        name: result.mean for name, result in scores.items()
    }
    workspace.write_bytes("runs/metrics.json", json.dumps(metrics, indent=1).encode())
    measure = next(iter(scores["base"].mean))
    improved, worse = _changes(workspace, measure, queries, qrels, runs, scores)
    summary = (
        f"{len(queries)} queries of the split “{config.evaluate.split}”, {passages} passages. "
        f"Before: {config.encoder}. After: the same encoder, trained."
    )
    rows = table_rows(scores["base"].mean, scores["trained"].mean)
    workspace.write_bytes("report/index.html", page(summary, rows, measure, improved, worse).encode())


def _print(report: Reporter, config: Config, manifest: Manifest) -> None:
    title = f"{manifest.counts.accepted} queries of the split {config.evaluate.split!r}"
    rows = table_rows(manifest.details["base"], manifest.details["trained"])
    report.table(title, ["measure", "before", "after", "difference"], rows)
