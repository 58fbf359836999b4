"""The generate stage: streams pairs through LLM engines and gates with Ray Data."""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from causalneg.config import Config, GenerateSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.generation.draft import Drafter
from causalneg.generation.prompts import prompts_version
from causalneg.generation.rows import Draft, Pair
from causalneg.generation.select import select
from causalneg.generation.verify import encoder_scores
from causalneg.models import ResolvedModel, resolve
from causalneg.records import (
    Analysis,
    Failure,
    Lineage,
    Mined,
    Negative,
    Outcome,
    Passage,
    Query,
    content_id,
)
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Manifest, StageRun, Workspace

_REFERENCES = 15  # mined negatives whose texts a pair carries
_ENGINE_OVERHEAD_GIB = 2.0  # of vLLM beside weights and cache: libraries, activations
_DRAFTS = TypeAdapter(list[Draft])


def train_pairs(workspace: Workspace) -> list[Pair]:
    """Return every train query with each of its positives, in the order of import."""
    positives = workspace.positives("train")
    mined: dict[str, list[Mined]] = {}
    for row in workspace.read_rows("mined", Mined):
        if row.verdict == "accepted":
            mined.setdefault(row.query_id, []).append(row)
    queries = {q.id: q for q in workspace.read_rows("queries", Query) if q.id in positives}
    wanted = {p for own in positives.values() for p in own}
    wanted |= {m.passage_id for rows in mined.values() for m in rows[:_REFERENCES]}
    passages: dict[str, Passage] = workspace.passages(wanted)
    return [
        Pair(
            id=content_id("pair", query_id, positive_id),
            query=queries[query_id],
            positive=passages[positive_id],
            other_positives=[passages[p] for p in own if p != positive_id],
            references=[passages[m.passage_id] for m in mined.get(query_id, [])[:_REFERENCES]],
            mined_scores=[m.dense_score for m in mined.get(query_id, [])],
        )
        for query_id, own in positives.items()
        for positive_id in own
    ]


class _Author:
    """Ray Data actor that holds an LLM engine: pairs in, drafts out."""

    def __init__(self, model: Path, settings: GenerateSettings, lineage: Lineage) -> None:
        from causalneg.generation.engines.vllm import VllmEngine

        self.drafter = Drafter(VllmEngine(model, settings.engine), settings, lineage)

    async def __call__(self, batch: dict[str, Any]) -> Any:  # noqa: ANN401 - an asynchronous generator of batches
        pairs = [Pair.model_validate_json(str(row)) for row in batch["pair"]]
        drafts = await asyncio.gather(*(self.drafter.draft(pair) for pair in pairs))
        yield {"drafts": [_DRAFTS.dump_json(list(drafts)).decode()]}


class _Editor:
    """Ray Data actor that scores drafts with the base encoder, selects, and writes a batch's rows."""

    def __init__(self, root: str, encoder: ResolvedModel, settings: GenerateSettings) -> None:
        self.workspace, self.settings = Workspace(root), settings
        self.encoder = load_encoder(encoder, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes = [o for text in batch["drafts"] for o in self._write(_DRAFTS.validate_json(str(text)))]
        return {"outcome": [o.model_dump_json() for o in outcomes]}

    def _write(self, drafts: list[Draft]) -> list[Outcome]:
        """Write a batch. `outcomes` comes last and marks it as done; the name is that of its pairs."""
        negatives = self._decide(drafts)
        outcomes = [
            _outcome(d, [n for n in negatives if d.analysis and n.analysis_id == d.analysis.id]) for d in drafts
        ]
        name = "part-" + content_id([d.pair.id for d in drafts])
        self.workspace.write_rows("analyses", name, Analysis, [d.analysis for d in drafts if d.analysis])
        self.workspace.write_rows("negatives", name, Negative, negatives)
        self.workspace.write_rows("failures", name, Failure, [d.failure for d in drafts if d.failure])
        self.workspace.write_rows("outcomes", name, Outcome, outcomes)
        return outcomes

    def _decide(self, drafts: list[Draft]) -> list[Negative]:
        written = [d for d in drafts if d.negatives]
        if not written:
            return []
        queries = encode(self.encoder, [d.pair.query.text for d in written], "query")
        texts = [p for d in written for p in (d.pair.positive.full_text, *(n.full_text for n in d.negatives))]
        vectors = iter(encode(self.encoder, texts, "passage"))
        decided: list[Negative] = []
        for draft, query in zip(written, queries, strict=True):
            positive_score = float(next(vectors) @ query)
            scored = []
            for negative in draft.negatives:
                scores = encoder_scores(float(next(vectors) @ query), positive_score, draft.pair.mined_scores)
                scored.append(negative.model_copy(update={"scores": negative.scores | scores}))
            decided += select(scored, self.settings.gates, self.settings.negatives_per_query)
        return decided


def _outcome(draft: Draft, negatives: list[Negative]) -> Outcome:
    accepted = sum(n.verdict == "accepted" for n in negatives)
    return Outcome(
        input_id=draft.pair.id,
        query_id=draft.pair.query.id,
        positive_id=draft.pair.positive.id,
        status="failed" if draft.failure else "accepted" if accepted else "rejected",
        accepted=accepted,
        rejected=len(negatives) - accepted,
        prompt_tokens=draft.prompt_tokens,
        generated_tokens=draft.generated_tokens,
    )


def _drop_unfinished(workspace: Workspace) -> None:
    """Remove what a killed run wrote of a batch without its outcomes: the batch is done again."""
    done = {Path(n).name for n in workspace.list_files(["outcomes"], ".parquet")}
    for name in workspace.list_files(["analyses", "negatives", "failures"], ".parquet"):
        if Path(name).name not in done:
            workspace.remove(name)


def _check_memory(model: ResolvedModel, settings: GenerateSettings) -> None:
    """Refuse to start an engine on this machine that its memory cannot hold.

    Raises:
        UserError: too little memory is free.
    """
    weights = sum(f.stat().st_size for f in model.path.rglob("*.safetensors")) / 1024**3
    needed = settings.engine.replicas * (weights + settings.engine.kv_cache_gib + _ENGINE_OVERHEAD_GIB)
    free = psutil.virtual_memory().available / 1024**3
    if free < needed:
        raise UserError(
            f"The engine for {model.name} needs about {needed:.1f} GiB of memory and {free:.1f} GiB are free; "
            "close other programs, or set a smaller model or a smaller --engine.kv-cache-gib."
        )


def _stream(config: Config, workspace: Workspace, llm: ResolvedModel, encoder: ResolvedModel, pairs: list[Pair]) -> Any:  # noqa: ANN401
    """Return the Ray Data stream that drafts, scores and writes the pairs; its rows are outcomes."""
    import ray

    settings = config.generate
    engine = settings.engine
    lineage = Lineage(
        model=llm.name,
        model_fingerprint=llm.fingerprint,
        prompt_version=prompts_version(),
        seed=config.seed,
        temperature=settings.temperature,
    )
    blocks = -(-len(pairs) // engine.batch_pairs)
    dataset = ray.data.from_items([{"pair": p.model_dump_json()} for p in pairs], override_num_blocks=blocks)
    return dataset.map_batches(
        _Author,
        fn_constructor_args=(llm.path, settings, lineage),
        batch_size=engine.batch_pairs,
        num_cpus=engine.cpus,
        num_gpus=engine.gpus,
        compute=ray.data.ActorPoolStrategy(
            size=engine.replicas, max_tasks_in_flight_per_actor=engine.batches_in_flight
        ),
        max_concurrency=engine.batches_in_flight,
    ).map_batches(
        _Editor,
        fn_constructor_args=(workspace.root_url, encoder, settings),
        batch_size=1,
        num_cpus=0.5,
        concurrency=1,
    )


def _totals(workspace: Workspace) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Count, from the rows that were written: pairs by status, tokens by kind, negatives by verdict."""
    pairs: Counter[str] = Counter()
    tokens: Counter[str] = Counter(prompt=0, generated=0)
    for outcome in workspace.read_rows("outcomes", Outcome):
        pairs[outcome.status] += 1
        tokens.update(prompt=outcome.prompt_tokens, generated=outcome.generated_tokens)
    verdicts = Counter(n.rejected_by or "accepted" for n in workspace.read_rows("negatives", Negative))
    return pairs, tokens, verdicts


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Generate, check and select negatives for every train pair.

    Raises:
        UserError: mine is not done, a model does not exist, or the memory is too small.
    """
    for name in ("import", "mine"):
        workspace.require(name)
    llm, encoder = resolve(config.llm), resolve(config.encoder)
    determines = {
        "generate": config.generate.model_dump(mode="json", exclude={"engine"}),
        "seed": config.seed,
        "llm": llm.fingerprint,
        "encoder": encoder.fingerprint,
        "prompts": prompts_version(),
    }
    memory = partial(_check_memory, llm, config.generate)
    stage = workspace.begin("generate", determines, inputs=["import", "mine"], check=memory)
    if stage.done:
        report.line(f"generate: already done ({stage.done.details['negatives_accepted']} negatives)")
        return stage.done
    _drop_unfinished(workspace)
    pairs = train_pairs(workspace)
    finished = {o.input_id for o in workspace.read_rows("outcomes", Outcome)}
    left = [p for p in pairs if p.id not in finished]
    if finished:
        report.line(f"generate: going on after {len(finished)} of {len(pairs)} pairs")
    if left:
        report.line("generate: starting the LLM engine (about half a minute)", style="dim")
        with ray_session(), report.meter("generating", len(pairs), "pairs", len(finished)) as meter:
            statuses: Counter[str] = Counter()
            for row in _stream(config, workspace, llm, encoder, left).iter_rows():
                statuses[Outcome.model_validate_json(row["outcome"]).status] += 1
                meter.advance(note=_note(statuses))
    return _finish(stage, len(pairs), report)


def _note(statuses: Counter[str]) -> str:
    return f"{statuses['accepted'] / statuses.total():.0%} accepted, {statuses['failed']} failed"


def _finish(stage: StageRun, total: int, report: Reporter) -> Manifest:
    by_status, tokens, verdicts = _totals(stage.workspace)
    accepted = verdicts.pop("accepted", 0)
    counts = Counts(
        rows_in=total,
        accepted=by_status["accepted"],
        rejected=by_status["rejected"],
        failed=by_status["failed"],
    )
    report.line(
        f"generate: {accepted} negatives accepted for {counts.accepted} of {total} pairs, "
        f"{verdicts.total()} rejected, {counts.failed} pairs failed"
    )
    details = {"negatives_accepted": accepted, "negatives_rejected": dict(sorted(verdicts.items()))}
    return stage.finish(counts, tokens=tokens, details=details)
