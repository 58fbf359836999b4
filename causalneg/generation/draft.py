"""Takes one pair through decompose, perturb and judge with an LLM engine."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from causalneg.config import GenerateSettings
from causalneg.generation.decompose import NEED_ID, Constraint, constraints, groups, requirements
from causalneg.generation.engines import Completion, Engine, EngineDeadError, EngineError
from causalneg.generation.perturb import Alternative, Edited, alternatives, drop_evidence, gap, replace_constraints
from causalneg.generation.prompts import fill, messages, prompt
from causalneg.generation.rows import Draft, Pair
from causalneg.generation.text import common_words, sentences
from causalneg.generation.verify import text_scores
from causalneg.records import Analysis, Failure, Lineage, Negative, Requirement, content_id

_CHOICE_TOKENS = 16  # room for {"choice":12}


class _Ledger:
    """Counts the tokens of a pair's requests."""

    def __init__(self) -> None:
        self.prompt = self.cached = self.generated = 0

    def add(self, completion: Completion) -> None:
        self.prompt += completion.prompt_tokens
        self.cached += completion.cached_tokens
        self.generated += completion.generated_tokens


def choice_model(options: int) -> type[BaseModel]:
    """Return the model of an answer that names one of `options` numbered options."""
    numbers: Any = Literal[tuple(range(1, options + 1))]
    return create_model("Choice", __config__=ConfigDict(extra="forbid"), choice=(numbers, ...))


def parse_choice(completion: Completion, model: type[BaseModel]) -> int:
    """Return the chosen number.

    Raises:
        EngineError: the answer was cut, or is not what the schema asks for. It is never repaired.
    """
    if completion.finish_reason != "stop":
        raise EngineError(completion.finish_reason, f"the answer was not finished: {completion.text!r}", retryable=True)
    try:
        answer = model.model_validate(json.loads(completion.text))
    except (json.JSONDecodeError, ValidationError) as error:
        raise EngineError(
            "invalid_json", f"the answer does not follow the schema: {completion.text!r}", True
        ) from error
    return int(answer.model_dump()["choice"])


class Drafter:
    """Drafts negatives of pairs in `edit` mode.

    Args:
        engine: answers the prompts.
        settings: how many alternatives, edits and attempts.
        lineage: what is written into every row.
    """

    def __init__(self, engine: Engine, settings: GenerateSettings, lineage: Lineage) -> None:
        self.engine, self.settings, self.lineage = engine, settings, lineage

    async def draft(self, pair: Pair) -> Draft:
        """Draft the negatives of a pair; what goes wrong becomes a failure, never an exception."""
        ledger = _Ledger()
        try:
            options = self._options(pair)
            shared = groups(pair.query.text, pair.positive, list(options))[: self.settings.max_edits - 1]
            analysis = await self._decompose(pair, shared, ledger)
            edits = await self._perturb(pair, analysis, shared, options, ledger)
            negatives = [self._negative(pair, analysis, requirement, edited) for requirement, edited in edits]
            negatives = await self._judge(pair, negatives, ledger)
        except EngineDeadError:
            raise
        except Exception as error:
            return self._failed(pair, error, ledger)
        return Draft(
            pair=pair,
            analysis=analysis,
            negatives=negatives,
            prompt_tokens=ledger.prompt,
            cached_tokens=ledger.cached,
            generated_tokens=ledger.generated,
        )

    def _failed(self, pair: Pair, error: Exception, ledger: _Ledger) -> Draft:
        """Make a failure row of what stopped a pair, so that one bad row never stops the others."""
        retryable = isinstance(error, EngineError) and error.retryable
        failure = Failure(
            stage="generate",
            input_id=pair.id,
            kind=error.kind if isinstance(error, EngineError) else type(error).__name__,
            retryable=retryable,
            attempts=self.settings.engine.max_attempts if retryable else 1,
            message=str(error),
        )
        return Draft(pair=pair, failure=failure, prompt_tokens=ledger.prompt, generated_tokens=ledger.generated)

    async def _choose(self, name: str, options: Sequence[str], key: str, ledger: _Ledger, **values: str) -> int:
        """Let the LLM choose among options and return the position of its choice.

        The options are shuffled by a seed of the row, since small models tend to take the first.
        """
        if len(options) == 1:
            return 0
        model = choice_model(len(options))
        error = EngineError("no_attempt", "no attempt was made", retryable=True)
        for attempt in range(self.settings.engine.max_attempts):
            seed = int(content_id(self.lineage.seed, key, attempt)[:8], 16)
            order = random.Random(seed).sample(range(len(options)), len(options))  # noqa: S311 - a shuffle, no secret
            listed = "\n".join(f"{number}. {options[at]}" for number, at in enumerate(order, 1))
            chat = messages(name, options=listed, **values)
            schema = model.model_json_schema()
            try:
                done = await self.engine.complete(chat, schema, _CHOICE_TOKENS, self.lineage.temperature, seed)
                ledger.add(done)
                return order[parse_choice(done, model) - 1]
            except EngineError as failed:
                error = failed
                if not failed.retryable:
                    break
        raise error

    def _options(self, pair: Pair) -> dict[Constraint, list[Alternative]]:
        """Return the constraints that something can be put in the place of, each with what can."""
        query, limit = pair.query.text, self.settings.alternatives
        common = common_words(p.text for p in (pair.positive, *pair.references))
        found = {
            constraint: alternatives(constraint, query, pair.positive, pair.references, limit, common)
            for constraint in constraints(query, pair.positive, common)
        }
        return {constraint: options for constraint, options in found.items() if options}

    async def _decompose(self, pair: Pair, shared: list[list[Constraint]], ledger: _Ledger) -> Analysis:
        query, positive = pair.query.text, pair.positive
        options = sentences(positive.text)
        chosen = await self._choose("choose_evidence", options, pair.id, ledger, query=query)
        return Analysis(
            id=content_id("analysis", pair.id, self.lineage.model_dump()),
            query_id=pair.query.id,
            positive_id=positive.id,
            core_need=query,
            how_positive_answers=options[chosen],
            answer_boundary="A passage answers only if it meets every critical requirement.",
            requirements=requirements(query, positive, options[chosen], shared),
            lineage=self.lineage,
        )

    async def _perturb(
        self,
        pair: Pair,
        analysis: Analysis,
        shared: list[list[Constraint]],
        options: dict[Constraint, list[Alternative]],
        ledger: _Ledger,
    ) -> list[tuple[Requirement, Edited]]:
        by_id = {r.id: r for r in analysis.requirements}
        used = list(dict.fromkeys(constraint for group in shared for constraint in group))
        picked = await asyncio.gather(*(self._pick(pair, c, options[c], ledger) for c in used))
        alternative = dict(zip(used, picked, strict=True))
        dropped = drop_evidence(pair.positive, by_id[NEED_ID].evidence)
        edits = [(by_id[NEED_ID], dropped)] if dropped else []
        for number, group in enumerate(shared, NEED_ID + 1):
            edited = replace_constraints(pair.positive, [(c, alternative[c]) for c in group])
            edits.append((by_id[number], edited))
        return edits

    async def _pick(
        self, pair: Pair, constraint: Constraint, options: list[Alternative], ledger: _Ledger
    ) -> Alternative:
        key = f"{pair.id} {constraint.span.text}"
        context = gap(pair.positive, constraint)
        texts = [option.text for option in options]
        return options[await self._choose("choose_replacement", texts, key, ledger, context=context)]

    def _negative(self, pair: Pair, analysis: Analysis, requirement: Requirement, edited: Edited) -> Negative:
        violation = requirement.violations[0]
        return Negative(
            id=content_id("negative", analysis.id, requirement.id, edited.title, edited.text),
            query_id=pair.query.id,
            positive_id=pair.positive.id,
            analysis_id=analysis.id,
            title=edited.title,
            text=edited.text,
            requirement_id=requirement.id,
            requirement=requirement.content,
            violation=violation.type,
            mode="edit",
            origin="edited_positive",
            explanation=violation.why_not_answer,
            edit=edited.edit,
            lineage=self.lineage,
        )

    async def _judge(self, pair: Pair, negatives: list[Negative], ledger: _Ledger) -> list[Negative]:
        """Add the text scores, and how much less likely each negative makes the query than the positive does."""
        texts = [pair.positive.full_text, *(n.full_text for n in negatives)]
        logprobs = await asyncio.gather(*(self._likelihood(text, pair.query.text, ledger) for text in texts))
        judged = []
        for negative, logprob in zip(negatives, logprobs[1:], strict=True):
            scores = text_scores(negative, pair)
            scores |= {"query_logprob": logprob, "likelihood_margin": logprobs[0] - logprob}
            judged.append(negative.model_copy(update={"scores": scores}))
        return judged

    async def _likelihood(self, passage: str, query: str, ledger: _Ledger) -> float:
        before, after = prompt("query_likelihood").split("{query}")
        prefix = fill(before, passage=passage).rstrip(" ")
        result = await self.engine.likelihood(prefix, f" {query}{after}")
        ledger.prompt += result.prompt_tokens
        return result.mean_logprob
