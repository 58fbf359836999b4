"""The model card of a trained encoder: a README.md that says what it is, as the Hugging Face Hub reads it."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict

from causalneg.config import EncoderSettings
from causalneg.markdown import inline
from causalneg.training.log import flat

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelFacts(BaseModel):
    """What a model is after the settings were put into it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: int
    max_length: int | None
    pooling: str
    attention: str
    query_prompt: str
    passage_prompt: str
    dtype: str


class CardFacts(BaseModel):
    """What a model card states.

    Attributes:
        name: of the model: what a user would load.
        base_model: what was trained, as the user named it.
        model: what the saved model is.
        encoder: the settings of the encoder.
        train: all settings of training, by name; groups are mappings.
        source: where the data was imported from.
        pairs: pairs of a query and a positive that were trained on.
        mined: mined negatives of them.
        generated: generated negatives of them.
        figures: what was measured, by its name, as `dev nDCG@10 before`.
        precision: of the matrix products in training.
        steps: optimiser steps.
        versions: of the software, by its name.
        licence: of the model, as the Hub names it; the card asks for it when unset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base_model: str
    model: ModelFacts
    encoder: EncoderSettings
    train: dict[str, Any]
    source: str
    pairs: int
    mined: int
    generated: int
    figures: dict[str, float]
    precision: str
    steps: int
    versions: dict[str, str]
    licence: str | None = None


def model_facts(model: "SentenceTransformer") -> ModelFacts:
    """Read the facts off a model that is to be saved, such as `Encoder.model`."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    from causalneg.attention import measured
    from causalneg.starting import transformer_of

    modes = [module.pooling_mode for module in model if isinstance(module, Pooling)]
    return ModelFacts(
        dimension=int(model.get_embedding_dimension() or 0),
        max_length=model.max_seq_length,
        pooling=" and ".join(m if isinstance(m, str) else " + ".join(m) for m in modes) or "the model's own",
        attention=measured(transformer_of(model.eval())),
        query_prompt=model.prompts.get("query") or "",
        passage_prompt=model.prompts.get("document") or "",
        dtype=str(model.dtype).removeprefix("torch."),
    )


def is_hub_id(name: str) -> bool:
    """Whether a model's name is one of the Hugging Face Hub, with its owner, and no local folder."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).is_dir()


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return what the Hub reads of a card; what is not known is said to be unknown."""
    return {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "license": " ".join((facts.licence or "unknown").split()),
        **({"base_model": facts.base_model} if is_hub_id(facts.base_model) else {}),
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense-retrieval", "causalneg"],
    }


def render(facts: CardFacts) -> str:
    """Return the card of a trained encoder."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # All that is put in is escaped: as Markdown by `inline`, as JSON in blocks of code, or else as HTML.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "inline": lambda text: Markup(inline(str(text))),  # noqa: S704 - escaped by `inline`
        "code": lambda value: Markup(json.dumps(value, ensure_ascii=False)),  # noqa: S704 - one line in a block of code
        "count": "{:,}".format,
        "figure": "{:.4f}".format,
    }
    template = environment.from_string(files("causalneg.training.encoder").joinpath("card.md.j2").read_text("utf-8"))
    matter = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=1_000)
    train = {name: value for name, value in facts.train.items() if name != "encoder"}
    dotted = flat({"encoder": facts.encoder.model_dump(), **train}, ".")
    settings = [(name, json.dumps(value, ensure_ascii=False, default=str)) for name, value in dotted.items()]
    body = template.render(facts=facts, settings=settings, hub=is_hub_id(facts.base_model))
    return f"---\n{matter}---\n\n{body}"
