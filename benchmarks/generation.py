"""What the pipeline costs: tokens per second against raw vLLM, queries per second against the published procedure.

    python -m benchmarks.generation --source squad.zip

(a) The pipeline, Ray and all, has the embedded LLM write free analyses; then plain `vllm.LLM` is given the very same
prompts and sampling in one call. Generated tokens per second, from the first request to the last answer.
(b) The published procedure makes two free-form calls for each query from four threads to a vLLM server: an analysis,
and a rewriting that gets the analysis and five mined negatives. It may generate 4,096 tokens per call; here each is cut
at 512, in its favour, since a small model writes up to any limit. Ours is the `edit` mode. Queries per second.
(c) Tokens spent per accepted negative, `edit` against `rewrite`, both with the embedded LLM. Where `rewrite` gets none
accepted, its figure is what it spent in all: at least so much.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import RESULTS, Row, publish
from benchmarks.experiment.given import given_lineage
from benchmarks.servers import vllm_server
from causalneg.config import load_config
from causalneg.console import Reporter, own_terminal
from causalneg.generation.batches import BatchWorker
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.engines import Completion, Engine, Likelihood
from causalneg.generation.engines.precision import engine_precision
from causalneg.generation.engines.vllm import DTYPES, engine_environment
from causalneg.generation.free.analysis import analysis_chat
from causalneg.generation.free.rewrite import Task, rewrite_chat
from causalneg.generation.job import Job, prepare, start_engine
from causalneg.generation.pairs import train_pairs
from causalneg.generation.profiles import load_profile
from causalneg.generation.rows import Pair
from causalneg.generation.run import prepare_pairs
from causalneg.generation.select import cases, select
from causalneg.generation.stream import run_batches
from causalneg.generation.worker import batch_worker
from causalneg.mining.run import run as mine
from causalneg.models import resolve
from causalneg.runtime import ray_session
from causalneg.sources.run import run as import_data
from causalneg.workspace import Workspace

_LLM = "embedded:smollm2-135m"
_LONGEST = 4096  # prompt and answer together, tokens, of what the LLM writes freely
_THREADS, _TEMPERATURE, _CANDIDATES = 4, 0.2, 5  # of the published procedure
_CHOICE = 64  # tokens; what is asked for less is a choice


@dataclass(frozen=True)
class Sizes:
    """How much is measured: queries of each part, rounds of the first, and the longest answers in tokens."""

    queries: int
    free_queries: int
    peer_queries: int
    rounds: int
    analysis_tokens: int
    peer_tokens: int


_FULL = Sizes(queries=32, free_queries=16, peer_queries=8, rounds=1, analysis_tokens=128, peer_tokens=512)
_QUICK = Sizes(queries=4, free_queries=4, peer_queries=1, rounds=1, analysis_tokens=64, peer_tokens=64)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="embedded:sample", help="data set, as for `causalneg import`")
    parser.add_argument("--workspace", type=Path, help="kept, so that import and mining are done once")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few queries and short answers: does it run")
    return parser.parse_args()


class Recorder:
    """An engine that writes down what it is asked and when it answers."""

    repeats = False

    def __init__(self, engine: Engine, file: Path) -> None:
        self._engine, self._file = engine, file

    def _write(self, started: float, asked: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"started": started, "ended": time.time()} | asked) + "\n")

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_probabilities: int = 0,
    ) -> Completion:
        """Hand a request on."""
        started = time.time()
        done = await self._engine.complete(chat, schema, max_tokens, temperature, seed, top_probabilities)
        asked = {"chat": chat, "schema": schema, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        # Which pairs it was asked for is not told; yes and no of the model's check come with probabilities.
        self._write(started, asked | {"generated": done.generated_tokens, "check": bool(top_probabilities)})
        return done

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Hand a text on."""
        started = time.time()
        done = await self._engine.likelihood(segments)
        self._write(started, {"generated": 0, "check": len(segments[-1].split()) == 1})
        return done

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()


def _recording(file: Path, job: Job) -> BatchWorker:
    return batch_worker(job, lambda job: Recorder(start_engine(job), file))


@dataclass(frozen=True)
class Measured:
    """A run of the pipeline.

    Attributes:
        asked: its requests, without those of the model's check.
        seconds: from the first request to the last answer.
        accepted: negatives that passed all gates.
        tokens: prompt and generated tokens of all requests.
    """

    asked: list[dict[str, Any]]
    seconds: float
    accepted: int
    tokens: int


def run_pipeline(workspace: Workspace, flags: dict[str, Any], queries: int, report: Reporter) -> Measured:
    """Generate for some queries through Ray; nothing is taken from an earlier run."""
    config = load_config(None, {"workspace": workspace.root_url, "llm": _LLM} | flags)
    job = prepare(config, workspace)
    workspace.remove(f"drafts/{job.key}")
    drafts = Drafts(workspace, job.key)
    prepare_pairs(drafts, job.settings, config.seed)
    batches = drafts.batches()[: -(-queries // job.settings.engine.batch_pairs)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requests.jsonl"
        with ray_session():
            outcomes = list(run_batches(job, batches, partial(_recording, file)))
        asked = [row for row in map(json.loads, file.read_text().splitlines()) if not row["check"]]
    seconds = max(row["ended"] for row in asked) - min(row["started"] for row in asked)
    last = [step for batch in batches for step in drafts.read_step(STEPS[-1], batch).values()]
    accepted = sum(n.verdict == "accepted" for s in last for n in select(cases(s, drafts.procedure()), job.settings))
    tokens = sum(o.prompt_tokens + o.generated_tokens for o in outcomes)
    report.line(
        f"{flags.get('generate.mode', 'edit')}: {len(outcomes)} pairs, {len(asked)} requests, {seconds:.1f} s, "
        f"{tokens:,} tokens, {accepted} negatives accepted"
    )
    return Measured(asked, seconds, accepted, tokens)


def run_raw(asked: Sequence[dict[str, Any]]) -> float:
    """Give plain vLLM the same prompts and sampling in one call; return generated tokens per second."""
    settings = load_config(flags={"generate.engine.max_model_len": _LONGEST}).generate.engine
    os.environ.update(engine_environment(settings))  # the same for both sides
    from vllm import LLM, SamplingParams
    from vllm.config import StructuredOutputsConfig
    from vllm.sampling_params import StructuredOutputsParams

    llm = LLM(
        model=str(resolve(_LLM).path),
        dtype=DTYPES[engine_precision(settings)],
        block_size=32,
        enforce_eager=True,
        kv_cache_memory_bytes=int(settings.kv_cache_gib * 1024**3),
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        enable_prefix_caching=True,
        structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    )
    sampling = [
        SamplingParams(
            max_tokens=row["max_tokens"],
            temperature=row["temperature"],
            structured_outputs=StructuredOutputsParams(json=row["schema"]),
        )
        for row in asked
    ]
    started = time.perf_counter()
    done = llm.chat([row["chat"] for row in asked], sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    del llm
    gc.collect()
    return sum(len(output.outputs[0].token_ids) for output in done) / seconds


def tokens_row(workspace: Workspace, sizes: Sizes, report: Reporter) -> tuple[Row, Measured]:
    """Measure (a): free analyses through the pipeline and through plain vLLM, in turn."""
    flags = {
        "generate.mode": "rewrite",
        "generate.judge": "likelihood",
        "generate.max_tokens": sizes.analysis_tokens,
        "generate.references": 2,
        "generate.engine.max_model_len": _LONGEST,
        "generate.engine.max_attempts": 1,
        "generate.engine.batches_in_flight": 8,
        "generate.engine.batch_pairs": 4,
    }
    ours, raw = [], []
    for _ in range(sizes.rounds):
        measured = run_pipeline(workspace, flags, sizes.free_queries, report)
        free = [row for row in measured.asked if row.get("max_tokens", 0) >= min(_CHOICE, sizes.analysis_tokens)]
        ours.append(sum(row["generated"] for row in free) / measured.seconds)
        raw.append(run_raw(free))
        report.line(f"pipeline {ours[-1]:.0f} tokens/s, raw vLLM {raw[-1]:.0f} tokens/s")
    a, b = statistics.median(ours), statistics.median(raw)
    return Row("tokens/s against raw vLLM", "tokens/s", a, "vllm.LLM, the same prompts", b, a / b, 0.85), measured


def _published(pair: Pair, client: httpx.Client, url: str, max_tokens: int) -> int:
    """Make the two calls of the published procedure for a pair; return the tokens generated."""
    profile = load_profile("generic")
    first = analysis_chat(pair, profile, [])
    generated = 0

    def call(chat: list[dict[str, str]]) -> str:
        nonlocal generated
        body = {"model": "small", "messages": chat, "max_tokens": max_tokens, "temperature": _TEMPERATURE}
        answer = client.post(f"{url}/chat/completions", json=body).raise_for_status().json()
        generated += answer["usage"]["completion_tokens"]
        return str(answer["choices"][0]["message"]["content"])

    analysis = call(first)
    candidates = "\n".join(f"<candidate>{p.full_text}</candidate>" for p in pair.references[:_CANDIDATES])
    system = _rewrite_instructions(pair)
    call(
        [
            {"role": "system", "content": system},
            {"role": "user", "content": f"{first[1]['content']}\n{analysis}\n{candidates}\nWrite three negatives."},
        ]
    )
    return generated


def _rewrite_instructions(pair: Pair) -> str:
    from causalneg.generation.capability import built_in

    row = built_in()[0]
    requirement = next(r for r in row.requirements if r.critical)
    tasks = [Task(requirement, requirement.violations[0])]
    analysis = row.analysis(given_lineage(""))
    return rewrite_chat(pair, analysis, tasks, 1, load_profile("generic"), pair.references[:5])[0]["content"]


def run_published(pairs: Sequence[Pair], max_tokens: int, report: Reporter) -> float:
    """Run the published procedure from four threads against vLLM's server; return queries per second."""
    options = {"served_model_name": "small", "max_model_len": 8192, "max_num_seqs": 64}
    with (
        vllm_server(resolve(_LLM).path, **options) as url,
        httpx.Client(timeout=600, trust_env=False) as client,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        started = time.perf_counter()
        generated = sum(threads.map(lambda pair: _published(pair, client, url, max_tokens), pairs))
        seconds = time.perf_counter() - started
    report.line(f"published procedure: {len(pairs)} queries, {seconds:.1f} s, {generated:,} tokens generated")
    return len(pairs) / seconds


def main() -> None:
    """Measure and publish the table."""
    arguments = _arguments()
    sizes = _QUICK if arguments.quick else _FULL
    folder = str(arguments.workspace or tempfile.mkdtemp(prefix="causalneg-generation-"))
    flags = {"workspace": folder, "import.source": arguments.source, "import.max_train_queries": 300}
    workspace = Workspace(folder)
    with own_terminal(Path(folder) / "logs" / "generation.log") as report:
        config = load_config(None, flags)
        import_data(config, workspace, report)
        mine(config, workspace, report)
        edit = run_pipeline(workspace, {"generate.mode": "edit"}, sizes.queries, report)
        published = run_published(list(islice(train_pairs(workspace), sizes.peer_queries)), sizes.peer_tokens, report)
        tokens, rewrite = tokens_row(workspace, sizes, report)
        ours = sizes.queries / edit.seconds
        spent, free = edit.tokens / max(1, edit.accepted), rewrite.tokens / max(1, rewrite.accepted)
        rows = [
            tokens,
            Row(
                "queries/s against the published procedure",
                "queries/s",
                ours,
                "two free-form calls per query",
                published,
                ours / published,
                3.0,
            ),
            Row("tokens per accepted", "tokens", spent, f"rewrite, {rewrite.accepted} accepted", free, free / spent),
        ]
        publish("generation", rows, report, arguments.results)


if __name__ == "__main__":
    main()
