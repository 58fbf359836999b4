"""A tiny encoder, a tiny decoder, and a workspace of random words for them."""

from pathlib import Path

import torch
from row_samples import mined, negative
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from causalneg.config import TrainSettings
from causalneg.records import Mined, Negative, Passage, Qrel, Query
from causalneg.training.data.prepare import prepare
from causalneg.training.data.store import Data
from causalneg.training.encoder.encoder import Encoder
from causalneg.workspace import Counts, Workspace

WORDS = [f"w{i}" for i in range(40)]


def tiny_encoder(folder: Path, dropout: float = 0.0, spread: float = 0.02) -> Path:
    """Write a BERT of two small layers, mean pooling, 32 tokens at most, in sentence-transformers layout.

    Args:
        folder: gets `plain`, the model alone, and `model`, which is returned.
        dropout: of all its layers.
        spread: standard deviation of the random weights; the larger, the more texts differ.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=45,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=spread,
    )
    BertModel(config).save_pretrained(folder / "plain")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder / "plain")
    transformer = Transformer(str(folder / "plain"), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def decoder_tokenizer(side: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words that pads on a side."""
    words = {word: number for number, word in enumerate(["<unk>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = Whitespace()
    # It has a chat template and no padding token, as many decoders.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        padding_side=side,
        chat_template="{% for m in messages %}w0 w1 {{ m.content }} w2{% endfor %}",
    )


DECODER = {
    "vocab_size": 42,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "initializer_range": 0.5,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def tiny_llama(folder: Path) -> Path:
    """Write a llama of two small layers as a plain Hugging Face folder, in bf16 with tied weights."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**DECODER, tie_word_embeddings=True)).bfloat16().save_pretrained(folder)
    decoder_tokenizer("right").save_pretrained(folder)
    return folder


def tiny_settings(**fields: object) -> TrainSettings:
    """Return settings for the tiny encoder; dotted names reach the groups."""
    values: dict[str, object] = {
        "epochs": 3,
        "batch_size": 4,
        "precision": "fp32",
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "log_every": 1,
        "threads": 1,
        "encoder": {"query_length": 16, "passage_length": 16},
        "dev": {"min_queries": 2, "share": 0.2, "max_passages": 20},
    }
    for name, value in fields.items():
        group, _, inner = name.partition("__")
        values[group] = {**values.get(group, {}), inner: value} if inner else value  # type: ignore[dict-item]
    return TrainSettings.model_validate(values)


def words(generator: torch.Generator, least: int = 2) -> str:
    """Draw a text."""
    length = int(torch.randint(least, 12, (1,), generator=generator))
    return " ".join(WORDS[i] for i in torch.randint(0, 40, (length,), generator=generator).tolist())


def random_workspace(folder: Path, rows: int = 12, seed: int = 1, marker: str = "") -> Workspace:
    """Write a workspace of random words; every third pair has no generated negative.

    Args:
        folder: of the workspace.
        rows: train pairs.
        seed: of the words.
        marker: put before every generated negative: a shortcut to tell the source by.
    """
    workspace = Workspace(str(folder))
    generator = torch.Generator().manual_seed(seed)
    stage = workspace.begin("import", {"import": {"source": "random words"}}, [])
    passages = [Passage(id=f"p{i}", text=words(generator)) for i in range(rows + 8)]
    stage.workspace.write_rows("corpus", "part-0", Passage, passages)
    stage.workspace.write_rows(
        "queries", "part-0", Query, [Query(id=f"q{i}", text=words(generator)) for i in range(rows)]
    )
    qrels = [Qrel(query_id=f"q{i}", passage_id=f"p{i}") for i in range(rows)]
    qrels.append(Qrel(query_id="q1", passage_id="p2", split="test"))
    stage.workspace.write_rows("qrels", "part-0", Qrel, qrels)
    stage.finish(Counts(rows_in=rows, accepted=rows))

    stage = workspace.begin("mine", {}, ["import"])
    candidates = [
        mined(f"q{i}", f"p{(i + 1 + k) % (rows + 8)}", dense_score=0.1 * k, cross_score=1.0 - 0.2 * k)
        for i in range(rows)
        for k in range(1, 2 + i % 4)
    ]
    positives = [
        mined(
            f"q{i}",
            f"p{i}",
            "rejected",
            relation="positive",
            dense_score=0.9,
            cross_score=3.0,
            rejected_by="known_positive",
        )
        for i in range(rows)
    ]
    stage.workspace.write_rows("mined", "part-0", Mined, [*positives, *candidates])
    stage.finish(Counts(rows_in=rows, accepted=rows))

    stage = workspace.begin("generate", {}, ["import", "mine"])
    generated = [
        negative(f"q{i}", f"p{i}", f"{marker} {words(generator)}".strip(), scores={"cosine": 0.8})
        for i in range(rows)
        for _ in range(i % 3)
    ]
    stage.workspace.write_rows("negatives", "part-0", Negative, generated)
    stage.finish(Counts(rows_in=rows, accepted=rows))
    return workspace


def prepared(workspace: Workspace, folder: Path, encoder: Encoder, settings: TrainSettings, seed: int = 5) -> Data:
    """Write the store of a workspace."""
    return prepare(workspace, folder, encoder, settings, seed, lambda done, total: None)
