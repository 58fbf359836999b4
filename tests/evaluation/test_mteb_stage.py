"""The command `mteb`: the model's own prompts, our own figures, and every result paid for once."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from causalneg.config import EncoderSettings, EncodeSettings, TrainSettings, load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.mteb.encoder import MtebEncoder, model_name
from causalneg.evaluation.mteb.local import workspace_task
from causalneg.evaluation.mteb.run import figures, result_file, run
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Passage, Qrel, Query
from causalneg.starting import starting
from causalneg.workspace import Counts, Workspace

FP32 = EncodeSettings(precision="fp32")
PROMPTS = {"query": "Represent this question: ", "document": "Represent this passage: "}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with prompts, as `train` writes them."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(resolve("embedded:minilm-l6").path, folder)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"prompts": PROMPTS}))
    return folder


@pytest.fixture(scope="module")
def small(sample_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The sample with a few of its passages, not to be written: some test queries have no positive left."""
    workspace = Workspace(str(tmp_path_factory.mktemp("small") / "ws"))
    stage = workspace.begin("import", {}, [])
    passages = list(sample_workspace.read_rows("corpus", Passage))
    stage.workspace.write_rows("corpus", "000000", Passage, passages[:30])
    stage.workspace.write_rows("corpus", "000001", Passage, passages[30:60])
    stage.workspace.write_rows("queries", "000000", Query, sample_workspace.read_rows("queries", Query))
    stage.workspace.write_rows("qrels", "000000", Qrel, sample_workspace.read_rows("qrels", Qrel))
    stage.finish(Counts(rows_in=60, accepted=60))
    return workspace


class Recorder(MtebEncoder):
    """Keeps the vectors that MTEB is given, by the side they are of."""

    def __init__(self, model: ResolvedModel, settings: EncodeSettings) -> None:
        super().__init__(model, settings)
        self.vectors: dict[str, np.ndarray] = {}

    def encode(self, inputs: Iterable[Any], *, prompt_type: PromptType | None = None, **task: Any) -> np.ndarray:
        assert prompt_type is not None
        made = super().encode(inputs, prompt_type=prompt_type, **task)
        self.vectors[prompt_type.value] = made
        return made


def read(workspace: Workspace) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Return the test queries that can be answered, the passages, and the judgements, by their ids."""
    passages = {p.id: p.full_text for p in workspace.read_rows("corpus", Passage)}
    qrels: dict[str, dict[str, int]] = {}
    for qrel in workspace.read_rows("qrels", Qrel):
        if qrel.split == "test":
            qrels.setdefault(qrel.query_id, {})[qrel.passage_id] = qrel.score
    qrels = {q: judged for q, judged in qrels.items() if any(judged[p] > 0 for p in judged if p in passages)}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in qrels}
    return queries, passages, qrels


@pytest.mark.parametrize("settings", [FP32, EncodeSettings()])
def test_figures_are_ours_for_the_same_vectors(
    small: Workspace, prompted: Path, settings: EncodeSettings, tmp_path: Path
) -> None:
    encoder = Recorder(resolve(str(prompted)), settings)
    task = workspace_task("Own", small, None)
    done: list[int] = []
    encoder.advance = done.append
    results = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, prediction_folder=tmp_path)
    (theirs,) = results.task_results[0].scores["test"]
    queries, passages, qrels = read(small)
    assert len(queries) > 5
    assert sum(done) == len(queries) + len(passages)

    cosines = encoder.vectors["query"] @ encoder.vectors["document"].T
    hits = {q: dict(zip(passages, map(float, row), strict=True)) for q, row in zip(queries, cosines, strict=True)}
    names = {"nDCG@10": "ndcg_at_10", "RR@10": "mrr_at_10", "R@10": "recall_at_10", "R@100": "recall_at_100"}
    ours = compute(names, qrels, hits)
    for measure, name in names.items():
        assert theirs[name] == pytest.approx(ours.mean[measure], abs=5.1e-6)  # MTEB rounds to five digits
    assert 0.5 < theirs["ndcg_at_10"] < 1.0

    # Before it rounds: the same hits, and with them the same nDCG@10 to the last digits.
    found = json.loads((tmp_path / "Own_predictions.json").read_text())["default"]["test"]
    for query, scores in found.items():
        assert scores == pytest.approx({p: hits[query][p] for p in scores}, abs=1e-6)
    again = compute(names, qrels, found)
    assert again.mean["nDCG@10"] == pytest.approx(ours.mean["nDCG@10"], abs=1e-12)


def test_queries_and_passages_get_the_models_own_prompts(small: Workspace, prompted: Path) -> None:
    encoder = Recorder(resolve(str(prompted)), FP32)
    mteb.evaluate(encoder, workspace_task("Own", small, None), cache=None, co2_tracker=False)
    queries, passages, _ = read(small)
    plain = SentenceTransformer(str(resolve("embedded:minilm-l6").path), local_files_only=True)

    def by_hand(prompt: str, of: Sequence[str]) -> np.ndarray:
        return np.asarray(plain.encode([prompt + text for text in of], normalize_embeddings=True))

    for side, prompt, of in (("query", PROMPTS["query"], queries), ("document", PROMPTS["document"], passages)):
        some = list(of.values())[:20]
        given = encoder.vectors[side][:20]
        assert np.abs(given - by_hand(prompt, some)).max() < 1e-5
        assert np.abs(given - by_hand("", some)).max() > 1e-2
        assert np.allclose(np.linalg.norm(given, axis=1), 1, atol=1e-6)
    assert encoder.mteb_model_meta.use_instructions


def test_a_task_proposes_prompts_in_vain(prompted: Path) -> None:
    encoder = MtebEncoder(resolve(str(prompted)), FP32)
    task = mteb.get_task("HotpotQA")
    assert task.metadata.prompt["query"].startswith("Given a multi-hop question")
    made = encoder.encode(
        [{"text": ["Who was it?"]}, {"text": ["And who not?"]}],
        prompt_type=PromptType.query,
        task_metadata=task.metadata,
        hf_split="test",
        hf_subset="default",
    )
    assert np.array_equal(made, encode(encoder.model, ["Who was it?", "And who not?"], "query"))


def test_the_model_is_described(prompted: Path, tmp_path: Path) -> None:
    model = resolve(str(prompted))
    meta = MtebEncoder(model, FP32).mteb_model_meta
    assert isinstance(MtebEncoder(model, FP32), mteb.EncoderProtocol)
    assert (meta.name, meta.revision) == (f"{prompted.parent.name}/model", model.fingerprint)
    assert (meta.similarity_fn_name.value, meta.embed_dim, meta.max_tokens) == ("cosine", 384, 256)
    assert (meta.n_parameters, meta.experiment_kwargs) == (22_713_216, None)
    low = MtebEncoder(model, EncodeSettings(precision="bf16")).mteb_model_meta
    assert low.experiment_kwargs == {"passages": "bf16"}
    assert result_file("NQ", meta) == f"mteb/results/{prompted.parent.name}__model/{model.fingerprint}/NQ.json"
    assert result_file("NQ", low) != result_file("NQ", meta)
    assert model_name(resolve("embedded:minilm-l6")) == "embedded/minilm-l6"
    assert model_name(ResolvedModel("BAAI/bge-small-en", tmp_path, "0")) == "BAAI/bge-small-en"
    assert model_name(ResolvedModel("gtr", tmp_path, "0")) == "hub/gtr"


@pytest.fixture
def workspace(small: Workspace, tmp_path: Path) -> Workspace:
    """A copy that may be written."""
    shutil.copytree(small.root, tmp_path / "ws")
    return Workspace(str(tmp_path / "ws"))


def evaluated(workspace: Workspace, report: Reporter, **flags: object) -> tuple[list[Any], str]:
    """Run the command; return the results and what was printed meanwhile."""
    before = len(report.console.file.getvalue())  # type: ignore[attr-defined]
    settings = {f"mteb.{name}": value for name, value in ({"tasks": "workspace"} | flags).items()}
    results = run(load_config(flags=settings | {"workspace": workspace.root_url}), workspace, report)
    return results, report.console.file.getvalue()[before:]  # type: ignore[attr-defined]


def test_a_result_is_paid_for_once(workspace: Workspace, report: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,), said = evaluated(workspace, report)
    assert f"{first.scores['test'][0]['ndcg_at_10']:.4f}" in said
    (file,) = workspace.list_files(["mteb"], "workspace.json")
    revision = resolve("embedded:minilm-l6").fingerprint
    assert file.startswith(f"mteb/results/embedded__minilm-l6/{revision}/")
    meta = MtebEncoder(resolve("embedded:minilm-l6"), EncodeSettings()).mteb_model_meta
    kept = mteb.ResultCache(workspace.path("mteb")).load_task_result("workspace", meta)
    assert kept is not None  # MTEB's own tools find it
    assert kept.scores["test"][0]["ndcg_at_10"] == first.scores["test"][0]["ndcg_at_10"]

    encoded: list[int] = []
    plain = MtebEncoder.encode
    monkeypatch.setattr(
        MtebEncoder, "encode", lambda self, inputs, **task: encoded.append(1) or plain(self, inputs, **task)
    )
    (second,), _ = evaluated(workspace, report)
    assert not encoded
    assert figures(second) == pytest.approx(figures(first), abs=1e-6)  # six digits are kept

    stored = json.loads(workspace.read_bytes(file))
    workspace.write_bytes(file, json.dumps(stored | {"dataset_revision": "of other data"}).encode())
    (third,), _ = evaluated(workspace, report)
    assert encoded
    assert figures(third) == pytest.approx(figures(first), abs=1e-6)

    workspace.write_bytes(file, b"{}")
    with pytest.raises(UserError, match=r"workspace\.json is damaged; remove it"):
        evaluated(workspace, report)


def test_the_trained_model_is_taken_where_there_is_one(workspace: Workspace, prompted: Path, report: Reporter) -> None:
    with pytest.raises(UserError, match="run `causalneg train` first"):
        evaluated(workspace, report, model="trained")
    base = resolve("embedded:minilm-l6")
    settings = TrainSettings(encoder=EncoderSettings(query_prompt="query: "))
    made = {"train": settings, "encoder": {"name": base.name, "fingerprint": base.fingerprint}}
    stage = workspace.begin("train", made, ["import"])
    shutil.copytree(prompted, stage.workspace.local_folder("model"))
    stage.finish(Counts(rows_in=1, accepted=1))
    evaluated(workspace, report)
    evaluated(workspace, report, model="base", tasks=["workspace", "Other"], local={"Other": workspace.root_url})
    files = [name.split("/") for name in workspace.list_files(["mteb"], ".json") if "model_meta" not in name]
    started = starting(base, settings.encoder).fingerprint
    assert started != base.fingerprint
    assert [(parts[2], parts[3], parts[-1]) for parts in files] == [
        ("embedded__minilm-l6", started, "Other.json"),  # what training started from, with the prompts it put there
        ("embedded__minilm-l6", started, "workspace.json"),
        ("ws__model", resolve(workspace.path("model")).fingerprint, "workspace.json"),
    ]
    assert "mean of 2" in report.console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_connection_one_sentence_names_the_data(workspace: Workspace, report: Reporter) -> None:
    with pytest.raises(UserError, match=r"cannot get the data of NanoNQRetrieval, mteb/NanoNQRetrieval on the Hugging"):
        evaluated(workspace, report, tasks="NanoNQRetrieval")


def test_without_the_package_it_says_how_to_install_it(
    workspace: Workspace, report: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalneg.evaluation.mteb.run.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'causalneg\[mteb\]'"):
        evaluated(workspace, report)


def test_vectors_that_are_not_finite_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MtebEncoder(resolve("embedded:minilm-l6"), FP32)
    monkeypatch.setattr(encoder.model, "encode_query", lambda *given, **more: np.full((1, 4), np.nan, np.float32))
    with pytest.raises(UserError, match="NaN or infinity"):
        encoder.encode([{"text": ["x"]}], prompt_type=PromptType.query)
    assert load_encoder(resolve("embedded:minilm-l6")) is encoder.model
