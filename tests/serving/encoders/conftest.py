"""Small models of several kinds with weights drawn by seed, and one cache for all of what is prepared of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from causalneg.models import ResolvedModel, resolve


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSALNEG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def minilm() -> ResolvedModel:
    return resolve("embedded:minilm-l6")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: ResolvedModel) -> ResolvedModel:
    """A BERT with everything around it: prompts, a dense layer, a normalising one, shortened vectors."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    folder = tmp_path_factory.mktemp("tiny")
    transformer = transformer_of(folder / "bert", minilm, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    modules = [transformer, Pooling(32, "cls"), Dense(32, 24), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "Query: ", "document": "", "title": "Title: "})
    model.truncate_dim = 16
    model.max_seq_length = 48
    model.save(str(folder / "model"))
    return resolve(str(folder / "model"))


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory, minilm: ResolvedModel) -> ResolvedModel:
    """A decoder whose texts are padded, and cut, on the left, and whose last token is the text's vector."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

    folder = tmp_path_factory.mktemp("causal")
    seeded()
    config = Qwen2Config(
        vocab_size=30_522, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    Qwen2Model(config).save_pretrained(folder / "qwen")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(minilm.path / "tokenizer.json"), pad_token="[PAD]", padding_side="left",  # noqa: S106
        truncation_side="left",
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "qwen")
    model = SentenceTransformer(modules=[Transformer(str(folder / "qwen")), Pooling(32, "lasttoken")])
    model.max_seq_length = 40
    model.save(str(folder / "model"))
    return resolve(str(folder / "model"))


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory, minilm: ResolvedModel) -> ResolvedModel:
    """A table of vectors, one a token, without a transformer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("static")
    seeded()
    table = StaticEmbedding(Tokenizer.from_file(str(minilm.path / "tokenizer.json")), embedding_dim=16)
    SentenceTransformer(modules=[table]).save(str(folder))
    return resolve(str(folder))


@pytest.fixture(scope="session")
def instructed(tmp_path_factory: pytest.TempPathFactory, minilm: ResolvedModel) -> ResolvedModel:
    """A model whose vectors leave out the prompt: token ids alone do not say where a text begins."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = tmp_path_factory.mktemp("instructed")
    transformer = transformer_of(folder / "bert", minilm, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    pooling = Pooling(32, "mean", include_prompt=False)
    prompts = {"query": "Represent this question in few words for searching: ", "document": "Represent this: "}
    SentenceTransformer(modules=[transformer, pooling], prompts=prompts).save(str(folder / "model"))
    return resolve(str(folder / "model"))


def seeded() -> None:
    import torch

    torch.manual_seed(0)


def transformer_of(folder: Path, base: ResolvedModel, **settings: int):  # noqa: ANN201 - sentence-transformers' module
    """Write a BERT of one layer with the base's tokenizer, and load it as a module."""
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    seeded()
    AutoModel.from_config(AutoConfig.from_pretrained(base.path, num_hidden_layers=1, **settings)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(base.path).save_pretrained(folder)
    return Transformer(str(folder))


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make packages look as if they were not installed."""
    import importlib.util

    from causalneg.serving.encoders import runtimes

    def hide(*packages: str) -> None:
        found = importlib.util.find_spec
        monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name in packages else found(name))

    return hide
