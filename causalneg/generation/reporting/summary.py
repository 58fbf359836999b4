"""Sums up what generation made: counts, source leakage and examples, as JSON, page, data-set card and table."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import pyarrow.compute as pc

from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.examples import accepted
from causalneg.generation.capability import Capability
from causalneg.generation.job import Job
from causalneg.generation.reporting.card import card
from causalneg.generation.reporting.examples import Draw, Example, example
from causalneg.generation.reporting.leakage import LeakageReport, SourcedText, draw_mined, draw_queries, leakage
from causalneg.generation.reporting.page import page
from causalneg.generation.reporting.report import GenerationReport, Tally, summary
from causalneg.generation.rows import Procedure, Step
from causalneg.records import Mined, Negative, Outcome, Query, from_table
from causalneg.workspace import Workspace

REPORT = "negatives/report"
CARD = "negatives/README.md"
_PROBED = 1_000  # generated negatives that the probe of the source looks at, and as many mined ones


class Summary:
    """Counts while a run's rows pass by, and writes what there is to see.

    Args:
        workspace: its folders of negatives and mined passages are read again for the probe of the source.
        job: what made the rows.
        seed: of the draws.
    """

    def __init__(self, workspace: Workspace, job: Job, seed: int) -> None:
        self._workspace, self._job, self._seed = workspace, job, seed
        self._tally, self._draw = Tally(), Draw(seed)
        self._generated: Counter[str] = Counter()  # accepted negatives of each query

    def add(self, outcomes: Sequence[Outcome], steps: Sequence[Step]) -> None:
        """Count a batch."""
        for outcome in outcomes:
            self._tally.add_outcome(outcome)
            self._generated[outcome.query_id] += outcome.accepted
        for step in steps:
            for failure in [step.failure] if step.failure else step.lost:
                self._tally.add_failure(failure)
            facets = {r.id: r.facet for r in step.analysis.requirements} if step.analysis else {}
            for negative in step.negatives:
                self._tally.add_negative(negative, facets.get(negative.requirement_id))
            self._tally.add_pair(step.negatives)
            self._draw.add(step)

    def write(
        self, seconds: float | None, procedure: Procedure | None, capability: Capability | None, report: Reporter
    ) -> GenerationReport:
        """Write report and card, print the table, and return the report."""
        for row in self._workspace.read_rows("mined", Mined):
            self._tally.add_mined(row)
        settings, lineage = self._job.settings, self._job.lineage
        mode, judge = (procedure.mode, procedure.judge) if procedure else (settings.mode, settings.judge)
        reasons = capability.reasons() if capability else {}
        result = self._tally.report(
            model=lineage.model,
            model_fingerprint=lineage.model_fingerprint,
            prompt_version=lineage.prompt_version,
            profile=lineage.profile,
            sampling={"temperature": lineage.temperature, "max_tokens": lineage.max_tokens, "seed": lineage.seed},
            mode=mode,
            mode_reason=reasons.get("mode", "") if settings.mode == "auto" else "set by the settings",
            judge=judge,
            judge_reason=reasons.get("judge", "") if settings.judge == "auto" else "set by the settings",
            seconds=seconds,
            leakage=self._leakage(report),
            examples=self._examples(procedure),
        )
        name = self._workspace.root.rsplit("/", 1)[-1]
        self._workspace.write_bytes(f"{REPORT}.json", result.model_dump_json(indent=1).encode())
        self._workspace.write_bytes(f"{REPORT}.html", page(result).encode())
        self._workspace.write_bytes(CARD, card(result, settings.licence, name).encode())
        report.table("What generate made", ["what", "value"], summary(result))
        return result

    def _examples(self, procedure: Procedure | None) -> list[Example]:
        drawn = self._draw.cases(procedure)
        positives = self._workspace.passages({c.negative.positive_id for c in drawn})
        wanted = {c.negative.query_id for c in drawn}
        queries = {q.id: q.text for q in self._workspace.read_rows("queries", Query) if q.id in wanted}
        gates = self._job.settings.gates
        return [example(queries[c.negative.query_id], positives[c.negative.positive_id], c, gates) for c in drawn]

    def _mined(self, queries: set[str]) -> dict[str, list[str]]:
        """Return the ids of the passages that were mined for some queries."""
        found: dict[str, list[str]] = defaultdict(list)
        for query_id, passage_id in accepted(self._workspace, "mined", Mined, "query_id", "passage_id"):
            if query_id in queries:
                found[query_id].append(passage_id)
        return found

    def _leakage(self, report: Reporter) -> LeakageReport | None:
        """Probe a draw of the accepted negatives, beside mined ones of the same queries and their positives."""
        queries = set(draw_queries(self._generated, _PROBED, self._seed))
        if not queries:
            return None
        texts: list[SourcedText] = []
        positives: dict[str, str] = {}
        for batch in self._workspace.read_batches("negatives", Negative):
            kept = batch.filter(pc.equal(batch.column("verdict"), "accepted"))
            for negative in from_table(Negative, kept):
                if negative.query_id in queries:
                    texts.append(SourcedText.of_negative(negative))
                    positives[negative.positive_id] = negative.query_id
        drawn = draw_mined({q: self._generated[q] for q in queries}, self._mined(queries), self._seed)
        passages = self._workspace.passages({p for _, p in drawn} | positives.keys())
        texts += [SourcedText.of_passage(query_id, passages[p], "mined") for query_id, p in drawn]
        texts += [SourcedText.of_passage(q, passages[p], "positive") for p, q in positives.items()]
        report.line("generate: probing whether the source of a negative shows", style="dim")
        vectors = encode(load_encoder(self._job.encoder), [t.text for t in texts], "passage")
        return leakage(texts, vectors, self._seed)
