"""Resolves what a run of relabel works with, and what determines its answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from causalneg.config import Config, RelabelSettings
from causalneg.generation.job import resolve_llm
from causalneg.generation.pairs import accepted_of, texts_of
from causalneg.generation.prompts import RELABEL, prompts_version
from causalneg.generation.relabel.rows import Shown
from causalneg.models import ResolvedModel
from causalneg.records import Mined, content_id
from causalneg.stages import determining, revision
from causalneg.workspace import Workspace

# Settings that say how the work is done, and those that decide on answers: another value makes no other answers.
_HOW = {"enabled", "judge_llm", "check", "retry_failed", "plan", "engine"}
_DECIDING = {"false_negatives", "min_score"}
_SLICE = 20_000  # queries joined at a time; bounds the memory, at the price of one look through the corpus for each


@dataclass(frozen=True)
class RelabelJob:
    """Everything a worker needs.

    Attributes:
        root: the workspace.
        key: of the drafts.
        llm: the judge's name.
        model: its files; None for an endpoint.
        fingerprint: of its files, or what an endpoint tells.
        notes: what is to be said of it.
    """

    root: str
    key: str
    settings: RelabelSettings
    llm: str
    model: ResolvedModel | None
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def check_file(self) -> str:
        """Where the check of the model is kept in the workspace: by all that it depends on."""
        return f"drafts/judge-{content_id(self.llm, self.fingerprint, prompts_version('judge', 'material'))}.json"


def determines(settings: RelabelSettings, fingerprint: str, seed: int, deciding: bool) -> dict[str, object]:
    """Return what determines the answers beside the stages before; and, if asked for, the verdicts."""
    return {
        "relabel": settings.model_dump(mode="json", exclude=_HOW if deciding else _HOW | _DECIDING),
        "llm": fingerprint,
        "prompts": prompts_version(*RELABEL),
        "seed": seed,
    }


def prepare(config: Config, workspace: Workspace) -> RelabelJob:
    """Resolve the model.

    Raises:
        UserError: it does not exist, an endpoint can't be reached, or mine is not done.
    """
    settings, llm = config.relabel, config.relabel.judge_llm or config.llm
    inputs = {name: workspace.require(name).digest for name in ("import", "mine")}
    found = resolve_llm(llm, settings.engine)
    if found.longest:  # a server refuses an answer that would not fit behind its prompt; half is left for each
        settings = settings.model_copy(update={"max_tokens": min(settings.max_tokens, found.longest // 2)})
    determined = determining(determines(settings, found.fingerprint, config.seed, deciding=False))
    key = content_id("relabel", revision("relabel/judged"), determined, inputs)
    return RelabelJob(workspace.root_url, key, settings, found.name, found.model, found.fingerprint, found.notes)


def shown_queries(workspace: Workspace, most: int) -> Iterator[Shown]:
    """Yield every train query that has mined negatives, with the first of them, in the order of import."""
    ids = iter(workspace.positives("train"))
    while part := list(islice(ids, _SLICE)):
        wanted = pa.array(sorted(part), pa.string())
        mined: dict[str, list[Mined]] = {}
        for row in accepted_of(workspace, wanted):
            if len(own := mined.setdefault(row.query_id, [])) < most:
                own.append(row)
        queries = texts_of(workspace, wanted)
        passages = workspace.passages({row.passage_id for rows in mined.values() for row in rows})
        for query_id in part:
            if rows := mined.get(query_id):
                yield Shown(id=query_id, query=queries[query_id], candidates=[passages[row.passage_id] for row in rows])
