"""Writes negatives in `edit` mode: finds the evidence and what may take its place, and lets the LLM choose."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker, Lost, settled
from causalneg.generation.edit.evidence import (
    closed,
    evidence_of,
    grafts,
    harmless,
    telling_spans,
    without_details,
    word_overlap,
)
from causalneg.generation.edit.operations import (
    Alternative,
    Edited,
    alternatives,
    drop,
    gap,
    graft,
    replace_constraints,
    sentence_gap,
)
from causalneg.generation.edit.requirements import (
    NEED_ID,
    Constraint,
    constraints,
    groups,
    requirements,
    shared_details,
)
from causalneg.generation.engines import EngineError
from causalneg.generation.prompts import query_segments
from causalneg.generation.rows import Mode, Pair
from causalneg.generation.text import Kind, common_words, find, sentences
from causalneg.records import Analysis, Lineage, Negative, Passage, ViolationType, content_id, full_text

Encode = Callable[[Sequence[str], str], np.ndarray]  # texts and «query» or «passage» to vectors of length 1

_GRAFT_MARGIN = 0.1  # least distance in cosine between the evidence and what takes its place
_GRAFTS = 2  # negatives made by grafting
_REPLACEMENTS = 3  # negatives made by replacing
_LOOKED_AT = 30  # names looked at for one to replace
# Least cosine of two names: below it a person gives way to a place, or a song to a town.
_ALIKE = 0.42


@dataclass(frozen=True)
class _Made:
    """An edit, or why there is none: its name among those of its analysis, what it breaks, and how."""

    part: str
    requirement: int
    kind: ViolationType
    edited: Edited | EngineError


class EditAuthor:
    """Takes a positive apart and edits it.

    Args:
        encode: the base encoder.
        settings: how many alternatives and candidates.
        lineage: what is written into every row.
        by_likelihood: whether the engine tells likelihoods; otherwise it is asked for the evidence's number.
    """

    mode: Mode = "edit"

    def __init__(self, encode: Encode, settings: GenerateSettings, lineage: Lineage, by_likelihood: bool) -> None:
        self._encode, self._settings, self._lineage = encode, settings, lineage
        self._by_likelihood = by_likelihood

    async def decompose(self, pair: Pair, asker: Asker) -> Analysis:
        """Find the evidence and write the requirements. The LLM judges or chooses; all else follows from the texts."""
        query, positive = pair.query.text, pair.positive
        parts = sentences(positive.text)
        evidence = [parts[at] for at in await self._evidence(pair, parts, asker)]
        shared, _ = await asyncio.to_thread(self._shared, pair)
        return Analysis(
            id=content_id("analysis", pair.id, self._lineage.model_dump()),
            query_id=pair.query.id,
            positive_id=positive.id,
            core_need=query,
            how_positive_answers="\n".join(evidence),
            answer_boundary="A passage answers only if it meets every critical requirement.",
            requirements=requirements(query, positive, evidence[0], shared),
            lineage=self._lineage,
        )

    async def perturb(
        self, pair: Pair, analysis: Analysis, asker: Asker, parts: Collection[str] | None = None
    ) -> list[Negative | Lost]:
        """Edit the positive: without the evidence, with another sentence in its place, with other constraints.

        Or only those parts that are asked for.
        """
        whole = sentences(pair.positive.text)
        evidence = analysis.how_positive_answers.split("\n")
        chosen = [at for at, s in enumerate(whole) if s in evidence]
        places = closed(whole, chosen, pair.query.text, pair.positive.title)
        grafted, replaced = await asyncio.gather(
            self._graft(pair, places, asker, parts), self._replace(pair, analysis, asker, parts)
        )
        dropped = drop(pair.positive, places) if parts is None else None
        edits = [
            *grafted[:1],
            *replaced,
            *([_Made("drop", NEED_ID, ViolationType.INTENT_DRIFT, dropped)] if dropped else []),
            *grafted[1:],
        ][: self._settings.candidates]
        return [
            Lost(made.part, made.edited)
            if isinstance(made.edited, EngineError)
            else self._negative(pair, analysis, made.requirement, made.kind, made.edited)
            for made in edits
        ]

    async def _evidence(self, pair: Pair, parts: list[str], asker: Asker) -> list[int]:
        if len(parts) == 1:
            return [0]
        titled = [full_text(pair.positive.title, s) for s in parts]
        cosines = await asyncio.to_thread(self._cosines, pair.query.text, titled)
        overlaps = word_overlap(pair.query.text, parts)
        asked = await asyncio.to_thread(self._asked_for, pair, parts, titled)
        if not self._by_likelihood:
            chosen = await asker.choose("choose_evidence", parts, "evidence", query=pair.query.text)
            return list(dict.fromkeys([chosen, *evidence_of([], cosines, overlaps), *asked]))
        logprobs = await asyncio.gather(*(asker.likelihood(query_segments(t, pair.query.text)) for t in titled))
        return list(dict.fromkeys([*evidence_of([values[-1] for values in logprobs], cosines, overlaps), *asked]))

    def _asked_for(self, pair: Pair, parts: list[str], titled: list[str]) -> list[int]:
        """Return the sentences nearest to what a query asks for, where it describes its subject by details.

        All voters fall for the sentence with the details; what is asked for may be told in another.
        """
        details = shared_details(pair.query.text, pair.positive.text)
        rest = without_details(pair.query.text, details)
        if not details or not rest:
            return []
        return evidence_of([], self._cosines(rest, titled), word_overlap(rest, parts))

    def _cosines(self, query: str, texts: list[str]) -> list[float]:
        return (self._encode(texts, "passage") @ self._encode([query], "query")[0]).tolist()

    def _shared(self, pair: Pair) -> tuple[list[list[Constraint]], dict[Constraint, list[Alternative]]]:
        """Return the groups of constraints that are broken together, and what can be put in each one's place."""
        query, limit = pair.query.text, self._settings.alternatives
        common = common_words(p.text for p in (pair.positive, *pair.references))
        found = {
            constraint: self._alike(
                constraint, alternatives(constraint, query, pair.positive, pair.references, _LOOKED_AT, common)
            )[:limit]
            for constraint in constraints(query, pair.positive, common)
        }
        options = {constraint: choices for constraint, choices in found.items() if choices}
        return groups(query, pair.positive, list(options))[:_REPLACEMENTS], options

    def _alike(self, constraint: Constraint, options: list[Alternative]) -> list[Alternative]:
        """Keep of the names that may replace one those that the encoder finds to be of its kind, the nearest first."""
        if constraint.span.kind is not Kind.NAME or not options:
            return options
        own, *others = self._encode([constraint.span.text, *(o.text for o in options)], "passage")
        cosines = [float(own @ other) for other in others]
        order = sorted(range(len(options)), key=lambda at: -cosines[at])
        return [options[at] for at in order if cosines[at] >= _ALIKE]

    async def _replace(
        self, pair: Pair, analysis: Analysis, asker: Asker, parts: Collection[str] | None
    ) -> list[_Made]:
        shared, options = await asyncio.to_thread(self._shared, pair)
        wanted = {n: group for n, group in enumerate(shared, NEED_ID + 1) if parts is None or f"replace {n}" in parts}
        used = list(dict.fromkeys(constraint for group in wanted.values() for constraint in group))
        picked = await settled(self._pick(pair, c, options[c], asker) for c in used)
        alternative = dict(zip(used, picked, strict=True))
        kinds = {r.id: r.violations[0].type for r in analysis.requirements if r.critical}
        return [
            _Made(f"replace {number}", number, kinds[number], _replaced(pair.positive, group, alternative))
            for number, group in wanted.items()
        ]

    async def _pick(self, pair: Pair, constraint: Constraint, options: list[Alternative], asker: Asker) -> Alternative:
        context, texts = gap(pair.positive, constraint), [option.text for option in options]
        return options[await asker.choose("choose_replacement", texts, constraint.span.text, context=context)]

    async def _graft(
        self, pair: Pair, places: Sequence[int], asker: Asker, parts: Collection[str] | None
    ) -> list[_Made]:
        """Put other sentences in the evidence's place, one after the other, since none is taken twice."""
        names = [f"graft {number}" for number in range(_GRAFTS)]
        if parts is not None and not any(name in parts for name in names):
            return []
        made = await self._grafts(pair, places, asker)
        rows = [_Made(n, NEED_ID, ViolationType.ATTRIBUTE_SHIFT, e) for n, e in zip(names, made, strict=False)]
        return [row for row in rows if parts is None or row.part in parts]

    async def _grafts(self, pair: Pair, places: Sequence[int], asker: Asker) -> list[Edited | EngineError]:
        options = await asyncio.to_thread(self._harmless, pair, places)
        made: list[Edited | EngineError] = []
        while options and len(made) < _GRAFTS:
            context = sentence_gap(pair.positive, places)
            shown = options[: self._settings.alternatives]
            try:
                chosen = shown[await asker.choose("choose_sentence", shown, f"graft {len(made)}", context=context)]
            except EngineError as error:
                return [*made, error]
            options.remove(chosen)
            used = [chosen, *options[: len(places) - 1]]
            options = [o for o in options if o not in used]
            made.append(graft(pair.positive, places, used))
        return made

    def _harmless(self, pair: Pair, places: Sequence[int]) -> list[str]:
        """Return sentences of the references that may stand where the evidence stood."""
        parts, title = sentences(pair.positive.text), pair.positive.title
        telling = telling_spans([parts[at] for at in places], pair.query.text, title)
        found = [g for g in grafts(pair.positive, pair.references) if not any(find(s, g.text) for s in telling)]
        if not found:
            return []
        query = self._encode([pair.query.text], "query")[0]
        evidence = self._encode([full_text(title, parts[at]) for at in places], "passage")
        options = self._encode([full_text(title, p.text) for p in found], "passage")
        near = harmless(query, evidence, options, _GRAFT_MARGIN, _GRAFTS * self._settings.alternatives)
        return [found[at].text for at in near]

    def _negative(self, pair: Pair, analysis: Analysis, number: int, kind: ViolationType, edited: Edited) -> Negative:
        requirement = next(r for r in analysis.requirements if r.id == number)
        why = next(v.why_not_answer for v in requirement.violations if v.type == kind)
        return Negative(
            id=content_id("negative", analysis.id, requirement.id, edited.title, edited.text),
            query_id=pair.query.id,
            positive_id=pair.positive.id,
            analysis_id=analysis.id,
            title=edited.title,
            text=edited.text,
            requirement_id=requirement.id,
            requirement=requirement.content,
            violation=kind,
            mode="edit",
            origin="edited_positive",
            explanation=why,
            edit=edited.edit,
            lineage=self._lineage,
        )


def _replaced(
    positive: Passage, group: Sequence[Constraint], alternative: Mapping[Constraint, Alternative | EngineError]
) -> Edited | EngineError:
    """Replace a group of constraints; where an alternative was not to be had, return why."""
    chosen = [(constraint, alternative[constraint]) for constraint in group]
    for _, other in chosen:
        if isinstance(other, EngineError):
            return other
    return replace_constraints(positive, [(c, other) for c, other in chosen if not isinstance(other, EngineError)])
