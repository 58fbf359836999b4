"""Every setting, one pydantic model per stage, filled from defaults, then YAML, then command-line flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from causalneg.errors import UserError
from causalneg.names import nearest
from causalneg.records import ViolationType

_MEASURES = ["nDCG@10", "RR@10", "R@10", "R@100", "AP@100"]
_OF_MEASURES = "names of ir_measures, as P(rel=2)@5; each is the mean over queries"

IndexKind = Literal["auto", "flat", "sq8", "hnsw", "ivf_sq8", "ivf_pq", "ivf_rabitq"]


class Settings(BaseModel):
    """A group of settings: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class ImportSettings(Settings):
    """Where the data comes from."""

    source: str = Field(
        "embedded:sample",
        description="BEIR folder or zip; pairs in .jsonl, .ndjson, .json, .csv, .tsv or .parquet, also .gz and .zst; "
        "folder of save_to_disk; irds:NAME of ir_datasets, several by commas; corpus file with topics and qrels; "
        "TriviaQA's folder, or a file of its questions; embedded:sample",
    )
    fields: dict[str, str | int | list[str | int]] = Field(
        {},
        description="names of the fields where they are unusual, as {query: question, positive: [answer, context]}; "
        "columns by number, from 1, where there is no header",
    )
    topics: dict[str, str] = Field({}, description="TREC: the file of each split's queries, as {test: topics.tsv}")
    qrels: dict[str, str] = Field({}, description="TREC: the file of each split's judgements, as {test: qrels.txt}")
    strict: bool = Field(False, description="stop at the first broken row instead of writing it aside")
    max_rejected_share: float = Field(
        0.1, ge=0, le=1, description="stop when more than this share of a kind of rows is broken: the mapping is wrong"
    )
    max_characters: int = Field(100_000, ge=1, description="longer texts are cut there")
    duplicate_texts: Literal["keep", "merge"] = Field(
        "keep", description="what to do with a passage that has the text of another: keep both, or the first for both"
    )
    test_share: float = Field(
        0.1, ge=0, lt=1, description="share of the queries held out for test when a file of pairs names no splits"
    )
    max_train_queries: int | None = Field(None, ge=1, description="keep only so many train queries, drawn by seed")


class EncodeSettings(Settings):
    """How passages are encoded, in every stage that needs their vectors."""

    batch_size: int = Field(32, ge=1, description="texts per batch when encoding")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic for passages; auto takes bf16 where the processor has it"
    )
    workers: int = Field(1, ge=1, description="encoders, or searches, side by side on a cluster")
    gpus: float = Field(0, ge=0, description="GPUs of an encoder on a cluster")


class SearchSettings(Settings):
    """What is searched for candidates; a change of these searches anew, a change of the filters does not."""

    sources: list[Literal["bm25", "dense"]] = Field(
        ["bm25", "dense"], min_length=1, description="searches whose candidates are fused by reciprocal rank"
    )
    depth: int = Field(50, ge=1, description="candidates taken from each search")
    language: str = Field("english", description="language of the BM25 words: their stems and stop words; or none")
    cross_encoder: str | None = Field(None, description="cross-encoder that scores the candidates anew, if any")
    shard_passages: int = Field(200_000, ge=1, description="passages searched at a time; bounds the memory")


class MineSettings(Settings):
    """How negatives are mined from the corpus. All but `search` decides on stored scores."""

    search: SearchSettings = SearchSettings()
    num_negatives: int = Field(15, ge=1, description="negatives kept per query")
    range_min: int = Field(0, ge=0, description="leave out so many of the best candidates that the scores left")
    range_max: int | None = Field(None, ge=1, description="look at no more than so many of the best candidates")
    min_score: float | None = Field(None, description="keep a candidate only from this score on")
    max_score: float | None = Field(None, description="keep a candidate only up to this score")
    absolute_margin: float | None = Field(
        None, description="keep a candidate only when its score is at least this much below the positive's"
    )
    relative_margin: float | None = Field(
        0.05,
        lt=1,
        description="keep a candidate only when its score is at least this share of the positive's score below it "
        "(0.05: at most 95 %, NV-Retriever)",
    )
    near_duplicate: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="leave out candidates whose word shingles overlap (Jaccard) this much with a positive "
        "or with a better negative; null keeps them",
    )
    sampling: Literal["top", "random", "spread"] = Field(
        "top", description="which of the remaining are taken: the best, drawn by seed, or spread over the score range"
    )

    @model_validator(mode="after")
    def _range_holds_something(self) -> "MineSettings":
        if self.range_max is not None and self.range_min >= self.range_max:
            raise ValueError(f"range_min {self.range_min} must be below range_max {self.range_max}")
        return self


class EngineSettings(Settings):
    """The LLM engine: vLLM in this process, one per replica, or an OpenAI-compatible endpoint."""

    url: str | None = Field(
        None, description="OpenAI-compatible endpoint, as http://127.0.0.1:8001/v1; --llm then names its model"
    )
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the endpoint's key")
    requests_per_minute: int | None = Field(None, ge=1, description="most requests to the endpoint in a minute")
    tokens_per_minute: int | None = Field(None, ge=1, description="most tokens to and from the endpoint in a minute")
    extra_body: dict[str, Any] = Field(
        {},
        description="put into every chat request to the endpoint, as {reasoning_effort: low}; null leaves a parameter "
        "out",
    )
    reasoning_tokens: int = Field(
        0, ge=0, description="tokens that a model which reasons may think with, beside those of each answer"
    )
    judge_tokens: int = Field(128, ge=1, description="longest answer of a judgement, tokens, before a first retry")
    timeout_seconds: float = Field(
        120, gt=0, description="longest wait for one answer of an endpoint; an engine in this process has no limit"
    )
    wait_seconds: float = Field(0, ge=0, description="how long to wait for CPUs or GPUs that the cluster has not yet")
    replicas: int = Field(1, ge=1, description="engines running side by side")
    cpus: float = Field(1, gt=0, description="CPU cores that Ray sets aside for an engine")
    gpus: float = Field(0, ge=0, description="GPUs of an engine")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one engine's weights")
    threads: int | None = Field(None, ge=1, description="compute threads of an engine on CPU; all cores when unset")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of an engine in this process; auto takes bf16 where the processor is good at it, and "
        "else fp32, or fp16 on a GPU; another value goes on with the work that is there",
    )
    max_model_len: int = Field(2048, ge=256, description="longest prompt and answer together, tokens")
    max_num_seqs: int = Field(64, ge=1, description="requests an engine works on at once")
    kv_cache_gib: float = Field(1.0, gt=0, description="memory for the key-value cache on CPU, GiB")
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that an engine takes")
    batch_pairs: int = Field(8, ge=1, description="pairs per batch; each finished step of a batch is written at once")
    batches_in_flight: int = Field(4, ge=1, description="batches an engine holds at once")
    max_attempts: int = Field(3, ge=1, description="attempts per request before its pair is a failure")
    prompt_price: float | None = Field(None, ge=0, description="price of a million prompt tokens, for --plan")
    generated_price: float | None = Field(None, ge=0, description="price of a million generated tokens, for --plan")

    @model_validator(mode="after")
    def _parallel_fits(self) -> "EngineSettings":
        if self.url and self.replicas > 1:
            raise ValueError("an endpoint takes replicas 1: its limits hold for one; max_num_seqs sends more at once")
        if self.tensor_parallel > 1 and self.gpus != self.tensor_parallel:
            raise ValueError(f"tensor_parallel {self.tensor_parallel} needs gpus set to the same number")
        return self


class RelabelSettings(Settings):
    """How mined negatives are judged by an LLM, to find those that answer their query after all."""

    enabled: bool = Field(False, description="let `causalneg run` relabel, between mine and generate")
    judge_llm: str | None = Field(None, description="LLM that judges; the same as llm when unset")
    candidates: int = Field(15, ge=1, description="mined negatives judged per query, the best first, in one request")
    false_negatives: list[Literal["answers", "partly"]] = Field(
        ["answers", "partly"],
        description="verdicts that make a mined negative a false one; another choice asks no LLM",
    )
    min_score: float = Field(0.0, description="least log-odds that it answers, if only in part, of a false negative")
    max_tokens: int = Field(1024, ge=64, description="longest answer, tokens; a reasoning model needs more")
    check: bool = Field(True, description="refuse a model that fails the check of judges on the built-in pairs")
    retry_failed: bool = Field(False, description="try the queries again that failed and may be retried")
    plan: bool = Field(False, description="show what it would take, measured on a first batch, and stop")
    engine: EngineSettings = EngineSettings()


class GateSettings(Settings):
    """Thresholds that decide on the scores of generated negatives; changing them asks no LLM."""

    min_length_ratio: float = Field(0.4, ge=0, description="shortest negative, as a share of the positive's words")
    max_length_ratio: float = Field(2.0, gt=0, description="longest negative, as a share of the positive's words")
    max_style_distance: float = Field(
        3.0, gt=0, description="farthest from the corpus in length, punctuation or kinds of words, standard deviations"
    )
    max_overlap: float = Field(0.995, gt=0, description="largest token overlap with a known positive")
    max_query_copied: float = Field(
        0.5, ge=0, description="largest share of the query's runs of words that the negative has and the positive lacks"
    )
    max_reference_copied: float = Field(
        0.95, gt=0, description="largest share of runs of words that a rewritten passage takes from one mined passage"
    )
    max_answer_left: float = Field(0.0, ge=0, description="spans of the removed evidence that may stand elsewhere")
    max_candidates_left: float = Field(
        0.0,
        ge=0,
        description="spans that may be the answer where a subject was described by figures and a sentence went",
    )
    max_details_left: float = Field(
        0.34, ge=0, description="share of the dates, quantities and longer names of query and positive that may be left"
    )
    min_likelihood_margin: float = Field(
        0.2, description="least drop of the query's mean log-probability per token against the positive"
    )
    min_replaced_margin: float = Field(
        0.35, description="the same where a detail was replaced: a reader may take the answer in spite of another date"
    )
    max_target_met: float = Field(0.0, description="the judge's score of the broken requirement may be no higher")
    min_others_met: float = Field(0.0, description="the judge's lowest score of the other critical requirements")
    judge_margin: float = Field(
        1.0,
        ge=0,
        description="how sure a judge that is asked must be that the broken requirement is not met and that the query "
        "is not answered, not even in part: log-odds",
    )
    max_target_likely: float = Field(
        0.5, description="the same two where requirements are judged by likelihood, in nats; what is uncertain passes"
    )
    min_others_likely: float = Field(-0.6, description="the lowest of the other critical requirements, by likelihood")
    min_fluency: float = Field(
        -1.0, description="least change of the text's mean log-probability per token against the positive"
    )
    max_relative_score: float = Field(
        1.02,
        gt=0,
        description="keep a negative only below this share of the positive's score (base encoder); "
        "one changed detail barely moves a small encoder, so the filter of mined negatives would reject most edits",
    )
    max_judged_relative_score: float | None = Field(
        None, gt=0, description="the same where the LLM judged by yes or no: then the judge decides, unless this is set"
    )
    min_relative_score: float = Field(
        0.4, ge=0, description="keep a rewritten passage only above this share of the positive's score: it is too easy"
    )
    max_cross_score: float | None = Field(
        None, description="keep a negative only below this share of the positive's score by the cross-encoder"
    )
    min_hardness: float = Field(0.0, ge=0, le=1, description="least share of the mined negatives scoring below it")
    max_hardness: float = Field(1.0, ge=0, le=1, description="largest share of the mined negatives scoring below it")
    max_duplicate: float = Field(
        0.98, gt=0, description="largest overlap of word shingles with another accepted negative of the data set"
    )


class GenerateSettings(Settings):
    """How counterfactual negatives are generated, checked and selected."""

    mode: Literal["auto", "edit", "rewrite"] = Field(
        "auto",
        description="edit: change one thing in the positive, for any model; rewrite: the LLM writes the passage, for "
        "capable ones; auto: by a check of the model",
    )
    judge: Literal["auto", "yes_no", "likelihood"] = Field(
        "auto", description="how requirements are judged: asked yes or no, by likelihood, or by a check of the model"
    )
    judge_llm: str | None = Field(
        None,
        description="LLM that judges by yes or no, at an OpenAI-compatible endpoint; the one that writes when unset",
    )
    judge_url: str | None = Field(
        None, description="endpoint of the LLM that judges; engine.url when unset; other settings of the engine hold"
    )
    judge_api_key_env: str | None = Field(
        None,
        description="environment variable that holds the key of judge_url; OPENAI_API_KEY when unset, and that of the "
        "engine at its address",
    )
    profile: str = Field(
        "generic", description="what counts as relevant: generic, nq, trivia, hotpotqa, mmarco, or a profile file"
    )
    negatives_per_query: int = Field(3, ge=1, description="accepted negatives kept per query and positive")
    candidates: int = Field(6, ge=1, description="candidate negatives made per query and positive")
    alternatives: int = Field(4, ge=2, le=9, description="replacements the LLM chooses among")
    references: int = Field(5, ge=1, description="mined negatives shown to the LLM, or taken sentences from")
    allow_negation: bool = Field(False, description="let violations negate; a negated answer still answers")
    selection: Literal["spread", "hardest"] = Field(
        "spread", description="of those that pass: spread over the similarity to the query, or the most similar"
    )
    max_violation_share: float = Field(
        1.0, gt=0, le=1, description="largest share of the data set's accepted negatives with one kind of violation"
    )
    temperature: float = Field(0.2, ge=0, description="sampling temperature of free text; choices are taken at 0")
    max_tokens: int = Field(4096, ge=64, description="longest free answer, tokens; what fits into the model at most")
    cross_encoder: str | None = Field(None, description="cross-encoder that scores negatives, too, if any")
    licence: str | None = Field(None, description="licence of the data, for the card of the data set, as cc-by-4.0")
    retry_failed: bool = Field(False, description="try the pairs again that failed and may be retried")
    reselect: bool = Field(False, description="decide anew on the stored scores; stops if the LLM would be needed")
    plan: bool = Field(False, description="show what it would take, with five finished rows, and stop")
    engine: EngineSettings = EngineSettings()
    gates: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _gates_have_scores(self) -> "GenerateSettings":
        if self.gates.max_cross_score is not None and self.cross_encoder is None:
            raise ValueError("gates.max_cross_score needs cross_encoder, which gives that score")
        return self

    @model_validator(mode="after")
    def _judge_can_be_asked(self) -> "GenerateSettings":
        if self.judge_llm and not (self.judge_url or self.engine.url):
            raise ValueError("judge_llm is asked at an endpoint: set judge_url, or engine.url if the writer is there")
        if (self.judge_llm or self.judge_url) and self.judge == "likelihood":
            raise ValueError("judge likelihood asks no judge: leave out judge_llm and judge_url, or set judge yes_no")
        limits = (self.engine.requests_per_minute, self.engine.tokens_per_minute)
        if self.judge_url and self.engine.replicas > 1 and limits != (None, None):
            raise ValueError("limits per minute of judge_url hold for one engine: set engine.replicas 1, or no limits")
        return self


class LossSettings(Settings):
    """What training minimises. The defaults are the published ones."""

    candidates: Literal["own", "in_batch", "global"] = Field(
        "own",
        description="what a positive competes with: the query's own negatives; also the passages of the other queries "
        "of its worker; or of all workers",
    )
    share_generated: bool = Field(
        False, description="let generated negatives compete for the other queries of the batch, too"
    )
    contrastive_weight: float = Field(1.0, ge=0, description="weight of InfoNCE; 0 trains on the other parts alone")
    temperature: float = Field(0.05, gt=0, description="τ of InfoNCE")
    entropy_weight: float = Field(0.05, ge=0, description="λ, weight of the query-view entropy; 0 switches it off")
    entropy_temperature: float = Field(0.1, gt=0, description="τ_ent of the query-view entropy")
    false_negative_margin: float | None = Field(
        None,
        description="leave a candidate out of InfoNCE whose cosine is above the positive's less this margin; "
        "null leaves none out",
    )
    false_negative_kind: Literal["absolute", "relative"] = Field(
        "absolute", description="whether that margin is a cosine, or a share of the positive's"
    )
    exempt_generated: bool = Field(True, description="never take a generated negative for a false one")
    hardness: float = Field(
        0.0, ge=0, description="hardness weighting: a negative's logit rises by so many times its cosine; 0 is off"
    )
    matryoshka_dims: list[int] = Field(
        [],
        description="smaller dimensions that shall work, too: the loss is added for the first so many of each vector",
    )
    matryoshka_weights: list[float] | None = Field(
        None, description="weights of the losses of those dimensions; 1 each when unset"
    )
    distillation: Literal["none", "kl", "margin_mse"] = Field(
        "none", description="learn from a teacher's scores where they are there: their distribution, or their margins"
    )
    distillation_weight: float = Field(1.0, ge=0, description="weight of that part")
    distillation_temperature: float = Field(1.0, gt=0, description="the teacher's scores are divided by this")
    distillation_scores: Literal["dense", "cross"] = Field(
        "cross", description="the teacher: the cross-encoder of mine, or the encoder that it searched with"
    )

    @model_validator(mode="after")
    def _dimensions_have_weights(self) -> "LossSettings":
        if any(dim < 1 for dim in self.matryoshka_dims):
            raise ValueError(f"matryoshka_dims {self.matryoshka_dims} must be 1 or more")
        if self.matryoshka_weights is not None and len(self.matryoshka_weights) != len(self.matryoshka_dims):
            raise ValueError(
                f"matryoshka_weights has {len(self.matryoshka_weights)} values for "
                f"{len(self.matryoshka_dims)} matryoshka_dims"
            )
        return self


class WeightRule(Settings):
    """The weight of the negatives that meet every condition given: their logit is shifted by its logarithm.

    Where several rules hold for a negative, their weights are multiplied.
    """

    source: Literal["mined", "generated"] | None = Field(None, description="only negatives of this source")
    violation: ViolationType | None = Field(None, description="only generated ones that break in this way")
    score: str | None = Field(
        None,
        description="a stored score to compare: dense, cross or relative of a mined one, any gate's of a generated one",
    )
    at_least: float | None = Field(None, description="only where that score is at least this")
    below: float | None = Field(None, description="only where that score is below this")
    weight: float = Field(ge=0, description="the weight; 0 leaves the negative out")
    start: float | None = Field(None, ge=0, description="the weight at first, from which it goes to `weight` linearly")
    begin: float = Field(0.0, ge=0, le=1, description="share of training after which it begins to change")
    end: float = Field(1.0, ge=0, le=1, description="share of training after which it is there")

    @model_validator(mode="after")
    def _conditions_make_sense(self) -> "WeightRule":
        if (self.score is None) != (self.at_least is None and self.below is None):
            raise ValueError("a rule with `score` needs `at_least` or `below`, and these need `score`")
        if self.begin > self.end:
            raise ValueError(f"begin {self.begin} must not be above end {self.end}")
        return self


class EncoderSettings(Settings):
    """How the encoder that is trained embeds texts."""

    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="how token vectors become one; auto: as the model has it, mean for a plain model"
    )
    attention: Literal["auto", "causal", "bidirectional"] = Field(
        "auto", description="what a token of a decoder sees; auto: as the model has it"
    )
    query_prompt: str | None = Field(None, description="put before every query; the model's own when unset")
    passage_prompt: str | None = Field(None, description="put before every passage; the model's own when unset")
    query_length: int = Field(192, ge=4, description="longest query at training, tokens")
    passage_length: int = Field(192, ge=4, description="longest passage at training, tokens")
    dropout: bool = Field(False, description="use the model's dropout; its draws follow from seed and step")
    lora_rank: int = Field(0, ge=0, description="train low-rank adapters of this rank instead of all weights; 0 is off")
    lora_alpha: float = Field(32.0, gt=0, description="the adapters' scale")
    lora_targets: list[str] = Field([], description="layers that get adapters; every linear one when empty")
    gradient_checkpointing: bool = Field(False, description="keep less for the backward pass and compute it again")
    compile: bool = Field(False, description="compile the model with torch.compile; needs a C++ compiler on CPU")


class DevSettings(Settings):
    """How training is watched on queries that it does not train on."""

    split: str = Field("dev", description="split of the data to watch; where there is none, train queries are held out")
    share: float = Field(
        0.05, ge=0, lt=1, description="share of the train queries held out where there is no such split"
    )
    min_queries: int = Field(20, ge=1, description="with fewer queries than this nothing is held out")
    max_queries: int = Field(200, ge=1, description="queries watched, drawn by seed")
    max_passages: int = Field(
        4000, ge=10, description="passages searched: positives, candidates that mine found, then others drawn by seed"
    )
    every: int | None = Field(None, ge=1, description="optimiser steps between evaluations; once an epoch when unset")
    patience: int | None = Field(
        None, ge=1, description="stop after so many evaluations without a better nDCG@10; never when unset"
    )


class TrainSettings(Settings):
    """How the encoder is trained. The defaults are the published ones where a small encoder allows it."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(
        16, ge=1, description="queries per optimiser step, over all workers; memory does not bound it"
    )
    mined_per_query: int = Field(15, ge=0, description="mined negatives per query and step")
    generated_per_query: int = Field(
        3, ge=0, description="generated negatives per query and step; 0 trains on mined only"
    )
    false_negatives: Literal["keep", "remove"] = Field(
        "remove", description="mined passages that relabel or an analysis of generate found to answer the query"
    )
    learning_rate: float = Field(5e-5, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the rate falls after warm-up")
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with a rising learning rate")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm is clipped to this")
    loss: LossSettings = LossSettings()
    weights: list[WeightRule] = Field(
        [], description="weights of negatives, as [{source: generated, weight: 0.2}]; 1 for those no rule is about"
    )
    encoder: EncoderSettings = EncoderSettings()
    dev: DevSettings = DevSettings()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of the matrix products; auto takes bf16 where the processor has it"
    )
    chunk_tokens: int | None = Field(
        None, ge=1, description="padded tokens of one forward pass; by the device when unset"
    )
    held_gib: float | None = Field(
        None,
        gt=0,
        description="memory for activations, GiB; what a step has beyond is computed twice (GradCache); unset, it is "
        "2 on a processor and half of a GPU's memory",
    )
    workers: int = Field(1, ge=1, description="data-parallel workers")
    min_workers: int | None = Field(
        None, ge=1, description="go on with as few as this when machines are lost; the same as workers when unset"
    )
    threads: int | None = Field(None, ge=1, description="compute threads of a worker; cores / workers when unset")
    gpu: bool = Field(False, description="one GPU per worker")
    checkpoint_every: int = Field(20, ge=1, description="optimiser steps between checkpoints")
    log_every: int = Field(10, ge=1, description="optimiser steps between lines of the log")
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        [], description="where the log goes as well; each needs its package"
    )

    @model_validator(mode="after")
    def _fewest_workers(self) -> "TrainSettings":
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        return self


class ExportSettings(Settings):
    """Which training data is written for another tool, and how."""

    format: Literal["sentence-transformers", "triplets", "tevatron", "flagembedding", "chat", "parquet"] = Field(
        "sentence-transformers",
        description="sentence-transformers (anchor, positive, negative_1 to negative_n), triplets (anchor, positive, "
        "negative), tevatron, flagembedding, chat (messages, as ms-swift reads them), or parquet (every column)",
    )
    output: str = Field("export", description="folder or URL to write; it is made, or replaced if it is an export")
    file_type: Literal["parquet", "jsonl"] | None = Field(
        None, description="for sentence-transformers and triplets: parquet, or jsonl; the others have one type each"
    )
    mined_per_query: int = Field(15, ge=0, description="mined negatives per query, the best first")
    generated_per_query: int = Field(3, ge=0, description="generated negatives per pair; 0 leaves them out")
    false_negatives: Literal["keep", "remove", "promote"] = Field(
        "remove",
        description="mined passages that relabel or an analysis of generate found to answer the query: written as "
        "negatives, left out, or as positives in rows of their own where they answer it as a whole",
    )
    max_negatives: int | None = Field(
        None,
        ge=1,
        description="negatives per row at most; of the mined ones the last give way. sentence-transformers takes "
        "as many in every row, and leaves out rows with fewer; unset, it takes the number that keeps most negatives",
    )
    scores: Literal["dense", "cross"] | None = Field(
        None,
        description="write the encoder's or the cross-encoder's scores for distillation; rows that lack one are left "
        "out (parquet has all scores anyway)",
    )


class InspectSettings(Settings):
    """What is shown of a workspace."""

    rows: int = Field(3, ge=0, description="rows shown of each folder, drawn by seed")
    json_: bool = Field(False, alias="json", description="print everything as JSON on standard output")


class IndexSettings(Settings):
    """How the corpus is indexed."""

    kind: IndexKind = Field(
        "auto",
        description="auto (measures, and takes the cheapest that finds enough), flat (exact), sq8, hnsw, ivf_sq8, "
        "ivf_pq or ivf_rabitq",
    )
    recall: float = Field(0.95, gt=0, le=1, description="wanted share of the 10 nearest passages that are found")
    memory_gib: float | None = Field(None, gt=0, description="memory that auto may take for the vectors, GiB")
    tune_queries: int = Field(200, ge=10, description="held-out queries that recall is measured with")
    shards: int = Field(1, ge=1, description="parts of the index, searched side by side")
    gpu: bool = Field(False, description="train and fill the index on a GPU where FAISS has that kind there")
    lexical: bool = Field(False, description="a BM25 index beside the vectors, for hybrid search")
    language: str = Field("english", description="stems and stop words of the BM25 index, or none")
    merge: bool = Field(False, description="build the new version from the active one and its changes")
    activate: bool = Field(True, description="let the new version answer; a server that merges does so itself")


class ServeSettings(Settings):
    """How the retriever is served."""

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless set")
    port: int = Field(8000, ge=1, le=65535)
    proxy: Literal["ray", "haproxy"] = Field(
        "ray", description="what stands before the replicas; haproxy is faster, and opens two ports on all addresses"
    )
    replicas: int = Field(1, ge=1, description="replicas, or the fewest of them when max_replicas is set")
    max_replicas: int | None = Field(None, ge=1, description="scale up to as many by the requests in flight")
    requests_per_replica: int = Field(16, ge=1, description="requests in flight that a replica is scaled for")
    threads: int | None = Field(
        None,
        ge=1,
        description="compute threads, and cores, of a replica; unset, `serve` shares out the cores of a machine",
    )
    wait_seconds: float = Field(
        0, ge=0, description="how long to wait for cores that a Ray cluster has not yet, where an autoscaler adds nodes"
    )
    spread_shards: int = Field(
        0, ge=0, description="shards that lie in replicas of their own; 0 keeps all in every replica"
    )
    backend: Literal["auto", "torch-fp32", "torch-bf16", "onnx", "openvino"] = Field(
        "auto", description="what encodes queries; auto takes the fastest that agrees with torch-fp32"
    )
    max_queries: int = Field(128, ge=1, description="queries or passages in one request")
    max_inputs: int = Field(2048, ge=1, description="inputs in one request for vectors")
    max_limit: int = Field(1000, ge=1, description="largest offset + limit of a query")
    max_body_mb: float = Field(4, gt=0, description="largest body of a request, MB")
    batch_tokens: int = Field(4096, ge=1, description="tokens, padding included, that are encoded at once")
    max_waiting_tokens: int = Field(65_536, ge=1, description="tokens that may wait; beyond, requests get 429")
    timeout_ms: int = Field(
        10_000, ge=1, description="longest time that a request may take, or each part of one of more than batch_tokens"
    )
    keys: str | None = Field(None, description="file with the hashed API keys, as `causalneg keys` writes it")
    cors_origins: list[str] = Field([], description="web origins whose pages may ask; none unless set")
    reranker: str | None = Field(None, description="cross-encoder for `rerank`; embedded, local or hub")
    rerank_depth: int = Field(50, ge=1, description="hits that the cross-encoder scores anew")
    merge_at: int = Field(
        10_000, ge=0, description="changes after which they are merged into a new version; 0 leaves that to you"
    )

    @property
    def cores(self) -> int:
        """Compute threads of a replica; one where nothing was said."""
        return self.threads or 1

    @model_validator(mode="after")
    def _fewest_replicas(self) -> "ServeSettings":
        if self.max_replicas is not None and self.replicas > self.max_replicas:
            raise ValueError(f"replicas {self.replicas} is above max_replicas {self.max_replicas}")
        return self


class KeysSettings(Settings):
    """Which API key is made."""

    name: str = Field("key", description="whose key it is; said in the log of changes")
    role: Literal["read", "write"] = Field("read", description="write may do everything, read may search and embed")
    file: str = Field("keys.json", description="file that its hash is added to")
    remove: bool = Field(False, description="remove the keys of that name")


class EvaluateSettings(Settings):
    """What is measured, on which split."""

    split: str = "test"
    measures: list[str] = Field(_MEASURES, description=_OF_MEASURES)
    depth: int = Field(100, ge=1, description="hits per query in the run files")
    resamples: int = Field(10_000, ge=1, description="draws of the randomisation test and of the bootstrap intervals")
    shard_passages: int = Field(200_000, ge=1, description="passages searched at a time; bounds the memory")
    contrast: list[str] = Field(
        [], description="files of query, positive and counterfactual, as .jsonl, also .gz, .zst, or the one in a .zip"
    )
    contrast_group: list[str] = Field(
        ["violation", "meta.violation", "meta.cf_label"],
        description="fields of these files, the first that is there, by which they are reported apart; dots lead into "
        "objects",
    )
    contrast_cluster: list[str] = Field(
        ["cluster", "page", "meta.page"],
        description="likewise, fields that tell which pairs are drawn together for the intervals; else it is the query",
    )
    planted: bool = Field(
        True, description="add the accepted negatives of queries not trained on to the corpus, and see how they rank"
    )


class MtebSettings(Settings):
    """What is evaluated through MTEB."""

    tasks: list[str] = Field(
        ["NanoBEIR"],
        description="MTEB's retrieval tasks and benchmarks, as `[HotpotQA, MSMARCO, NQ]`; `workspace` is your own data",
    )
    local: dict[str, str] = Field(
        {}, description="tasks made of imported data, by the workspace of each, as `{TriviaQA: trivia}`"
    )
    model: str | None = Field(
        None, description="trained, base, or any encoder by name; unset, the trained one where there is one, else base"
    )
    split: str | None = Field(
        None, description="split of the tasks made of imported data; unset, test, or dev where there is no test"
    )

    @field_validator("tasks", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class CompareSettings(Settings):
    """Which runs are compared, on which judgements."""

    runs: list[str] = Field(
        [],
        description="run files in TREC format, or names of runs in the workspace (base, trained); the first is the "
        "one that the others are compared with",
    )
    qrels: str | None = Field(
        None, description="file of judgements, TREC's four columns or BEIR's three; the workspace's when unset"
    )
    split: str = Field("test", description="split of the workspace's judgements")
    measures: list[str] = Field(_MEASURES, description=_OF_MEASURES)
    resamples: int = Field(10_000, ge=1, description="draws of the randomisation test and of the bootstrap intervals")
    json_: bool = Field(False, alias="json", description="print everything as JSON on standard output")
    output: str | None = Field(None, description="HTML file to write, too")


class Config(Settings):
    """All settings of a run."""

    workspace: str = Field("workspace", description="folder or URL that holds everything of a run")
    seed: int = 0
    encoder: str = Field("embedded:minilm-l6", description="encoder that training starts from")
    miner: str | None = Field(None, description="encoder to mine and check with; the same as encoder when unset")
    llm: str = Field("embedded:smollm2-135m", description="LLM that generates")
    encode: EncodeSettings = EncodeSettings()
    import_: ImportSettings = Field(ImportSettings(), alias="import")
    mine: MineSettings = MineSettings()
    relabel: RelabelSettings = RelabelSettings()
    generate: GenerateSettings = GenerateSettings()
    train: TrainSettings = TrainSettings()
    export: ExportSettings = ExportSettings()
    inspect: InspectSettings = InspectSettings()
    index: IndexSettings = IndexSettings()
    serve: ServeSettings = ServeSettings()
    keys: KeysSettings = KeysSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    compare: CompareSettings = CompareSettings()

    @property
    def mining_encoder(self) -> str:
        """The encoder that mines and checks."""
        return self.miner or self.encoder

    mteb: MtebSettings = MtebSettings()


def settings_names(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return every setting's dotted name with its field, nested groups opened."""
    names: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        dotted = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= settings_names(field.annotation, dotted + ".")
        else:
            names[dotted] = field
    return names


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"The config file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The config file {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"The config file {path}{line} is not valid YAML.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"The config file {path} must hold settings as `name: value`, not a {type(loaded).__name__}.")
    return loaded


def _sentence(error: ValidationError, origin: str) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = list(settings_names(Config)) + [f.alias or n for n, f in Config.model_fields.items()]
        return f"{origin}: there is no setting {name!r}{nearest(name, known)}"
    return f"{origin}: {name} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."


def flag_value(name: str, text: str) -> Any:  # noqa: ANN401 - as many types as settings
    """Read a flag's text: as it is for a text setting, but for `null`; otherwise as YAML (numbers, lists, null).

    Raises:
        UserError: it is no YAML. That a name is unknown is left to `load_config`.
    """
    field = settings_names(Config).get(name)
    if field is not None and field.annotation is str:
        return text
    if field is not None and field.annotation == str | None:
        return None if text == "null" else text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"flags: {name} = {text!r} is not a value.") from error


def load_config(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """Fill the settings from defaults, a YAML file and flags, the later ones winning.

    Args:
        path: YAML file with the settings by stage.
        flags: dotted names and values.

    Raises:
        UserError: the file or a value is wrong, or a name is unknown.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _read_yaml(path)
        try:
            Config.model_validate(values)
        except ValidationError as error:
            raise UserError(_sentence(error, str(path))) from error
    for name, value in (flags or {}).items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, "flags")) from error
