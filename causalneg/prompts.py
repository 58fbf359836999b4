"""What an encoder puts before queries and passages, as its folder says it."""

import json

from causalneg.models import ResolvedModel

KINDS = ("query", "document")  # the prompts that `encode_query` and `encode_document` of sentence-transformers take


def saved_prompts(model: ResolvedModel) -> dict[str, str]:
    """Return the prompts that a model was saved with, by name."""
    file = model.path / "config_sentence_transformers.json"
    return dict(json.loads(file.read_text(encoding="utf-8")).get("prompts") or {}) if file.exists() else {}


def used_prompts(model: ResolvedModel) -> dict[str, str]:
    """Return what is put before queries and passages, under `query` and `document`; empty where there is nothing."""
    saved, start = saved_prompts(model), model.start
    put = {"query": start.query_prompt, "document": start.passage_prompt} if start else {}
    return {kind: (saved.get(kind) or "") if put.get(kind) is None else (put[kind] or "") for kind in KINDS}


def said_prompts(model: ResolvedModel) -> str:
    """Say what is put before queries and passages, and which prompts of the model never are."""
    query, passage = (repr(prompt) if prompt else "nothing" for prompt in used_prompts(model).values())
    others = [name for name, prompt in saved_prompts(model).items() if prompt and name not in KINDS]
    unused = f"; its prompts {', '.join(others)} are for other uses, and left out" if others else ""
    return f"the encoder puts {query} before queries and {passage} before passages{unused}"
