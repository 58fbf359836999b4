"""The form of prompts and answers: chats from prompt files, JSON schemas, and strict reading of what comes back."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from causalneg.generation.free import AnswerError
from causalneg.generation.profiles import Profile
from causalneg.generation.prompts import fill, prompt
from causalneg.generation.prompts.data import as_data
from causalneg.records import Passage

# Longest sentence of the LLM's own, characters. The prompts ask for half of it.
WORDS_LIMIT = 600
_BROKEN_OFF = re.compile(r"[\s(\[{]$")


class Answer(BaseModel):
    """An answer, or a part of one: exactly the declared members, each of exactly its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnAnswer = TypeVar("AnAnswer", bound=Answer)


def _whole(words: str) -> str:
    if not words.strip():
        raise ValueError("is empty")
    if len(words) >= WORDS_LIMIT or _BROKEN_OFF.search(words):
        raise ValueError("is broken off")
    return words.strip()


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text.strip()


# Where a schema bounds a string, xgrammar lets it hold no quotation mark, backslash or line break: the string simply
# ends there. So sentences of the LLM's own are bounded and refused where they seem to be broken off; text that is
# copied, or that becomes a passage, is bounded by the tokens of the answer alone.
Words = Annotated[str, AfterValidator(_whole)]
Text = Annotated[str, AfterValidator(_filled)]
WORDS_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": WORDS_LIMIT}
TEXT_SCHEMA: dict[str, Any] = {"type": "string"}


def object_schema(**members: Any) -> dict[str, Any]:
    """Return the schema of an object that has exactly these members, in this order."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def list_schema(items: dict[str, Any], at_least: int, at_most: int) -> dict[str, Any]:
    """Return the schema of a list with bounds on its length, both included."""
    return {"type": "array", "items": items, "minItems": at_least, "maxItems": at_most}


def read_answer(model: type[AnAnswer], text: str, kind: str) -> AnAnswer:
    """Read a JSON answer strictly: nothing before or after it, nothing repaired, converted or left out.

    Args:
        model: what the answer must be.
        text: the answer.
        kind: of the error where the text is JSON but not such an answer.

    Raises:
        AnswerError: `invalid_json` where it is no whole JSON, otherwise of the given kind.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] in ("json_invalid", "string_unicode"):
            raise AnswerError("invalid_json", f"the answer is no whole JSON: {first['msg']}") from error
        raise AnswerError(kind, f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}") from error


def chat(name: str, instructions: dict[str, str], content: dict[str, str]) -> list[dict[str, str]]:
    """Fill a prompt: its instructions are the system message, its content the user's.

    Args:
        name: of the prompt.
        instructions: values for the instructions; the same for all rows of a run.
        content: values for the content, safe to stand between tags.
    """
    before, after = prompt(name).split("\n===\n")
    return [
        {"role": "system", "content": fill(before, material=prompt("material"), **instructions)},
        {"role": "user", "content": fill(after, **content)},
    ]


def one_line(text: str) -> str:
    """Return a text as data on a single line."""
    return " ".join(as_data(text).split())


def passage_data(passage: Passage) -> str:
    """Return a passage as data: its title, if it has one, on a line of its own."""
    text = f"Text: {as_data(passage.text)}"
    return f"Title: {one_line(passage.title)}\n{text}" if passage.title.strip() else text


def candidates_data(references: Sequence[Passage]) -> str:
    """Return mined negatives as data, numbered from 1."""
    if not references:
        return "There are no candidates."
    return "\n".join(
        f"<candidate_{number}>\n{passage_data(reference)}\n</candidate_{number}>"
        for number, reference in enumerate(references, 1)
    )


def profile_text(profile: Profile) -> str:
    """Return what the instructions say of the data set."""
    avoid = "".join(f"\n- {one_line(entry)}" for entry in profile.avoid)
    return fill(
        prompt("profile"),
        description=one_line(profile.description),
        relevance=one_line(profile.relevance),
        style=one_line(profile.style),
        avoid=f"What a negative must not be there:{avoid}" if avoid else "",
    ).rstrip()


def violations_text(allow_negation: bool) -> str:
    """Return the list of the types of violation; with negation only where that is allowed."""
    return fill(prompt("violations"), negation=f"\n{prompt('negation')}" if allow_negation else "")
