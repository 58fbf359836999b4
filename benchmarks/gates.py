"""What the gates make of negatives whose worth is known: hand-written counterfactuals, and naive ones.

    python -m benchmarks.gates --data DIR

`squad-negatives.zip` (with `squad.zip`) holds both for 360 queries; `msmarco-llm-negatives.zip` holds what an 8B model
wrote when simply asked for hard negatives. A gate is right when it lets a counterfactual pass and stops a naive one:
recall is the share of counterfactuals that pass, precision the share of counterfactuals among what passes. The judge
of single requirements is measured by how well it ranks the requirement that a counterfactual breaks below those that it
keeps (AUC), once by the embedded LLM's likelihoods and once by the encoder alone.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Row, publish
from benchmarks.experiment.given import given_lineage, given_negative, json_rows
from causalneg.config import EngineSettings, GateSettings, GenerateSettings
from causalneg.console import Reporter, own_terminal
from causalneg.generation.author import Author
from causalneg.generation.capability import built_in
from causalneg.generation.drafts import STEPS
from causalneg.generation.edit.author import EditAuthor, Encode
from causalneg.generation.engines.vllm import VllmEngine
from causalneg.generation.gates.style import corpus_style
from causalneg.generation.rows import Pair, Procedure, Step
from causalneg.generation.select import GATES, Case, Gate, cases, rejection
from causalneg.generation.text import sentences
from causalneg.generation.worker import base_encoder
from causalneg.models import resolve
from causalneg.records import Analysis, Facet, Negative, Passage, Query, Requirement, ViolationType

_SEED = 0
_LINEAGE = given_lineage("by hand")
_REFERENCES = 3
_PROCEDURE = Procedure(mode="edit", judge="likelihood", likelihoods=True)


@dataclass(frozen=True)
class Known:
    """A pair with negatives of known worth.

    Attributes:
        good: counterfactuals, each with the requirement it breaks.
        naive: negatives that were simply asked for.
    """

    pair: Pair
    analysis: Analysis
    good: list[Negative]
    naive: list[Negative]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the zips; the built-in pairs when unset")
    parser.add_argument(
        "--limit",
        type=int,
        default=360,
        help="queries of squad-negatives, drawn by seed; of the other three times as many",
    )
    parser.add_argument("--workspace", type=Path, help="folder for the log")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="four built-in pairs")
    return parser.parse_args()


def _pair(number: object, query: str, positive: Passage, others: Sequence[Passage]) -> Pair:
    return Pair(
        id=str(number),
        query=Query(id=str(number), text=query),
        positive=positive,
        other_positives=[],
        references=list(others),
        mined_scores=[],
    )


def _analysis(pair: Pair, core_need: str, requirements: list[Requirement]) -> Analysis:
    return Analysis(
        id=pair.id,
        query_id=pair.query.id,
        positive_id=pair.positive.id,
        core_need=core_need,
        how_positive_answers="",
        answer_boundary="",
        requirements=requirements,
        lineage=_LINEAGE,
    )


def _negative(pair: Pair, number: int, text: str, requirement: int, kind: str = "intent_drift") -> Negative:
    facts = {"id": f"{pair.id}-{number}", "analysis_id": pair.id, "requirement_id": requirement, "verdict": "rejected"}
    return given_negative(pair.query.id, pair.positive, text, _LINEAGE.model, violation=ViolationType(kind), **facts)


def squad(folder: Path, limit: int) -> tuple[list[Known], list[str]]:
    """Return the hand-written negatives with their pairs, and the corpus's texts."""
    corpus = {row["_id"]: Passage(id=row["_id"], title=row["title"], text=row["text"])
              for row in json_rows(folder / "squad.zip", "corpus.jsonl")}  # fmt: skip
    rows = list(json_rows(folder / "squad-negatives.zip"))
    drawn = random.Random(_SEED).sample(rows, min(limit, len(rows)))  # noqa: S311
    known = []
    for number, row in enumerate(drawn):
        others = [corpus[drawn[(number + at) % len(drawn)]["positive_id"]] for at in range(1, _REFERENCES + 1)]
        pair = _pair(row["query_id"], row["query"], corpus[row["positive_id"]], others)
        requirements = [Requirement(**r) for r in row["analysis"]["requirements"]]
        good = [
            _negative(pair, at, c["text"], c["requirement"], c["violation"])
            for at, c in enumerate(row["counterfactual"])
        ]
        critical = next(r.id for r in requirements if r.critical)
        naive = [_negative(pair, 10 + at, text, critical) for at, text in enumerate(row["naive"])]
        known.append(Known(pair, _analysis(pair, row["analysis"]["core_need"], requirements), good, naive))
    return known, [p.text for p in corpus.values()]


def naive_only(folder: Path, limit: int) -> tuple[list[Known], list[str]]:
    """Return what an 8B model wrote for MS MARCO queries; there is no analysis of them."""
    rows = list(json_rows(folder / "msmarco-llm-negatives.zip"))
    drawn = random.Random(_SEED).sample(rows, min(limit, len(rows)))  # noqa: S311
    known = []
    for number, row in enumerate(drawn):
        other = Passage(id="other", text=drawn[(number + 1) % len(drawn)]["positive"])
        pair = _pair(number, row["query"], Passage(id=str(number), text=row["positive"]), [other])
        naive = [_negative(pair, 0, row["counterfactual"], 1)]
        # There is no analysis; what the positive says as a whole stands for the one requirement.
        need = Requirement(
            id=1, facet=Facet.OTHER, content="It answers the query.", evidence=row["positive"], critical=True
        )
        known.append(Known(pair, _analysis(pair, row["query"], [need]), [], naive))
    return known, [row["positive"] for row in rows]


def small(limit: int) -> tuple[list[Known], list[str]]:
    """Return the built-in pairs; other pairs' passages stand for naive negatives."""
    rows = built_in()[:limit]
    known = []
    for number, row in enumerate(rows):
        other = rows[(number + 1) % len(rows)]
        pair = row.pair([other])
        good = [_negative(pair, at, c.text, c.requirement) for at, c in enumerate(row.counterfactuals)]
        naive = [_negative(pair, 10, other.text, row.requirements[0].id)]
        known.append(Known(pair, _analysis(pair, row.core_need, row.requirements), good, naive))
    return known, [row.text for row in rows]


async def score(known: Sequence[Known], texts: Sequence[str], encoder: Encode, report: Reporter) -> list[Step]:
    """Score all negatives with the embedded LLM and the encoder, as generation does."""
    settings = GenerateSettings()
    engine = VllmEngine(resolve("embedded:smollm2-135m").path, EngineSettings())
    writer = EditAuthor(encoder, settings, _LINEAGE, by_likelihood=True)
    author = Author(
        engine, writer, _PROCEDURE.judge, encoder, corpus_style(texts, _SEED), settings, _PROCEDURE.likelihoods
    )
    slots = asyncio.Semaphore(16)
    with report.meter("scoring", len(known), "pairs") as meter:

        async def one(row: Known) -> Step:
            async with slots:
                before = Step(pair_id=row.pair.id, analysis=row.analysis, negatives=[*row.good, *row.naive])
                done = await author.step(STEPS[-1], row.pair, before)
                meter.advance()
                return done

        try:
            steps = await asyncio.gather(*(one(row) for row in known))
        finally:
            await engine.close()
    if failed := [f.message for s in steps for f in ([s.failure] if s.failure else s.lost)]:
        raise RuntimeError(f"{len(failed)} pairs or negatives could not be scored: {failed[0]}")
    return list(steps)


def auc(broken: Sequence[float], kept: Sequence[float]) -> float:
    """Return how often a kept requirement scores above a broken one; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata([*kept, *broken])
    return float((ranks[: len(kept)].sum() - len(kept) * (len(kept) + 1) / 2) / (len(kept) * len(broken)))


def by_encoder(passage: str, analysis: Analysis, encoder: Encode) -> list[float]:
    """Return how near each requirement's content comes to a sentence of a passage."""
    parts = encoder(sentences(passage), "passage")
    return [float((parts @ vector).max()) for vector in encoder([r.content for r in analysis.requirements], "passage")]


def judge_rows(known: Sequence[Known], steps: Sequence[Step], encoder: Encode) -> list[Row]:
    """Measure both judges on single requirements: the broken one against the other critical ones."""
    llm: dict[bool, list[float]] = {True: [], False: []}
    alone: dict[bool, list[float]] = {True: [], False: []}
    for row, step in zip(known, steps, strict=True):
        critical = {r.id for r in row.analysis.requirements if r.critical}
        before = by_encoder(row.pair.positive.full_text, row.analysis, encoder)
        for negative in step.negatives[: len(row.good)]:
            now = by_encoder(negative.full_text, row.analysis, encoder)
            for judgement, own, positive in zip(negative.judgements, now, before, strict=True):
                if judgement.requirement_id in critical:
                    broken = judgement.requirement_id == negative.requirement_id
                    llm[broken].append(judgement.score)
                    alone[broken].append(own - positive)
    ours, peer = auc(llm[True], llm[False]), auc(alone[True], alone[False])
    return [Row("AUC of judging single requirements", "AUC", ours, "the encoder alone", peer, ours / peer)]


def gate_rows(name: str, good: Sequence[Case], naive: Sequence[Case]) -> list[Row]:
    """Measure each gate alone, the gates that ask no LLM, and all together."""
    thresholds = GateSettings()

    def alone(gate: Gate) -> Any:  # noqa: ANN401 - a predicate
        return lambda case: gate.reason(case, thresholds) is None

    no_llm = [gate for gate in GATES if not gate.asks]
    told = set().union(*(case.negative.scores for case in naive))
    asked: dict[str, Any] = {gate.name: alone(gate) for gate in GATES if gate.score in told}
    asked["all that ask no LLM"] = lambda case: all(gate.reason(case, thresholds) is None for gate in no_llm)
    asked["all"] = lambda case: rejection(case, thresholds) is None
    rows = []
    for gate, passes in asked.items():
        kept, wrong = sum(map(passes, good)), sum(map(passes, naive))
        rejected = 1 - wrong / len(naive)
        if not good:
            rows.append(Row(f"{name}, {gate}: naive rejected", "share", rejected, "no gate", 0.0, 0.0))
            continue
        chance = len(good) / (len(good) + len(naive))
        precision = kept / max(1, kept + wrong)
        rows.append(Row(f"{name}, {gate}: recall", "share", kept / len(good), "no gate", 1.0, kept / len(good)))
        rows.append(Row(f"{name}, {gate}: precision", "share", precision, "no gate", chance, precision / chance))
        rows.append(Row(f"{name}, {gate}: naive rejected", "share", rejected, "no gate", 0.0, 0.0))
    return rows


def _measure(
    name: str, data: tuple[list[Known], list[str]], encoder: Encode, report: Reporter, folder: Path
) -> list[Row]:
    known, texts = data
    steps = asyncio.run(score(known, texts, encoder, report))
    _keep(name, known, steps, folder)
    good = [case for row, step in zip(known, steps, strict=True) for case in cases(step, _PROCEDURE)[: len(row.good)]]
    naive = [case for row, step in zip(known, steps, strict=True) for case in cases(step, _PROCEDURE)[len(row.good) :]]
    rows = gate_rows(name, good, naive)
    return rows + (judge_rows(known, steps, encoder) if good else [])


def _keep(name: str, known: Sequence[Known], steps: Sequence[Step], folder: Path) -> None:
    """Write every text with its scores and verdict beside the log, to be read by a person."""
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for row, step in zip(known, steps, strict=True):
            for at, case in enumerate(cases(step, _PROCEDURE)):
                negative = case.negative
                gate, reason = rejection(case, GateSettings()) or (None, None)
                line = {
                    "query": row.pair.query.text,
                    "positive": row.pair.positive.full_text,
                    "negative": negative.full_text,
                    "kind": "counterfactual" if at < len(row.good) else "naive",
                    "rejected_by": gate,
                    "reason": reason,
                    "scores": negative.scores,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure and publish the table."""
    arguments = _arguments()
    folder = arguments.workspace or arguments.results
    logs = Path(folder) / "logs"
    with own_terminal(logs / "gates.log") as report:
        encoder = base_encoder(resolve("embedded:minilm-l6"))
        if arguments.quick or not arguments.data:
            rows = _measure("built-in", small(4), encoder, report, logs)
        else:
            rows = _measure("squad-negatives", squad(arguments.data, arguments.limit), encoder, report, logs)
            rows += _measure(
                "msmarco-llm-negatives", naive_only(arguments.data, 3 * arguments.limit), encoder, report, logs
            )
        publish("gates", rows, report, arguments.results)


if __name__ == "__main__":
    main()
