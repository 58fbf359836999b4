"""The keys of 0.1.0, which had the package's version and every setting in them: what is kept under them is found still.

Nothing new gets such a key. A manifest of then has no revision; its digest of then is worked out from it, and handed on
to the manifest that takes its place with the same result.
"""

from collections.abc import Mapping
from typing import Any

from causalneg.records import content_id
from causalneg.stages import determining

_VERSION = "0.1.0"
PROMPTS = "3e3946d9c907"  # those of edits are the same still

# The settings that there were. Later ones are left out of a key of then, where they are at their defaults.
_SETTINGS = {
    "import": """
        source fields topics qrels strict max_rejected_share max_characters duplicate_texts test_share
        max_train_queries
    """,
    "mine": """
        search.sources search.depth search.language search.cross_encoder search.shard_passages num_negatives range_min
        range_max min_score max_score absolute_margin relative_margin near_duplicate sampling
    """,
    "generate": """
        mode judge profile candidates alternatives references allow_negation temperature max_tokens cross_encoder
    """,
    "select": """
        mode judge profile negatives_per_query candidates alternatives references allow_negation selection
        max_violation_share temperature max_tokens cross_encoder licence gates.min_length_ratio gates.max_length_ratio
        gates.max_style_distance gates.max_overlap gates.max_query_copied gates.max_reference_copied
        gates.max_answer_left gates.max_candidates_left gates.max_details_left gates.min_likelihood_margin
        gates.min_replaced_margin gates.max_target_met gates.min_others_met gates.max_target_likely
        gates.min_others_likely gates.min_fluency gates.max_relative_score gates.max_cross_score gates.min_hardness
        gates.max_hardness gates.max_duplicate
    """,
    "train": """
        epochs batch_size mined_per_query generated_per_query learning_rate schedule weight_decay warmup max_grad_norm
        loss.candidates loss.share_generated loss.contrastive_weight loss.temperature loss.entropy_weight
        loss.entropy_temperature loss.false_negative_margin loss.false_negative_kind loss.exempt_generated loss.hardness
        loss.matryoshka_dims loss.matryoshka_weights loss.distillation loss.distillation_weight
        loss.distillation_temperature loss.distillation_scores weights encoder.pooling encoder.attention
        encoder.query_prompt encoder.passage_prompt encoder.query_length encoder.passage_length encoder.dropout
        encoder.lora_rank encoder.lora_alpha encoder.lora_targets encoder.gradient_checkpointing encoder.compile
        dev.split dev.share dev.min_queries dev.max_queries dev.max_passages dev.every dev.patience precision
        chunk_tokens
    """,
}
_KNOWN = {f"{group}.{name}" for group, names in _SETTINGS.items() for name in names.split()}


def _of_then(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Leave out the settings that there were not."""
    groups = {name.rsplit(".", 1)[0] for name in _KNOWN}
    found: dict[str, Any] = {}
    for name, value in values.items():
        dotted = prefix + name
        if dotted in groups and isinstance(value, dict):
            found[name] = _of_then(value, f"{dotted}.")
        elif dotted in _KNOWN:
            found[name] = value
    return found


def settings_of_then(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return settings as they were dumped for a key; None where they say what could not be said then.

    Args:
        config: settings by group, and whatever else determines the result.
    """
    groups = [name for name in config if name in _SETTINGS and isinstance(config[name], dict)]
    if any(name.split(".")[0] in groups and name not in _KNOWN for name in determining(config)):
        return None
    return {name: _of_then(value, f"{name}.") if name in groups else value for name, value in config.items()}


def stage_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str | None]) -> str | None:
    """Return the key of a stage's run; None where there was no such run.

    Args:
        stage: which stage.
        config: what determines its result.
        inputs: by stage, the former digest of its result, if it has one.
    """
    settings = settings_of_then(config)
    if settings is None or None in inputs.values():
        return None
    return content_id(stage, _VERSION, settings, inputs)


def drafts_key(config: Mapping[str, Any], inputs: Mapping[str, str | None]) -> str | None:
    """Return the key of generation's drafts, likewise."""
    settings = settings_of_then(config)
    return None if settings is None or None in inputs.values() else content_id(settings, inputs)


def candidates_key(imported: str | None, encoder: str, precision: str, search: Mapping[str, Any]) -> str | None:
    """Return the key of the candidates of mining.

    Args:
        imported: former digest of the import, if it has one.
        encoder: fingerprint.
        precision: of the vectors.
        search: the settings that determine them.
    """
    settings = settings_of_then({"mine": {"search": search}})
    if settings is None or imported is None:
        return None
    return content_id(imported, encoder, precision, settings["mine"]["search"])
