"""The loss for sentence-transformers: equal to its own losses where these are the same, alone and over ranks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from training_samples import WORDS, tiny_encoder

from causalneg.config import LossSettings
from causalneg.errors import UserError
from causalneg.records import Source
from causalneg.training.objective.sentence_transformers import CausalNegLoss

SOURCES = [Source.MINED, Source.MINED, Source.GENERATED]
IN_BATCH = {"candidates": "in_batch", "share_generated": True, "entropy_weight": 0.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers with random weights and no dropout, in sentence-transformers layout."""
    return tiny_encoder(tmp_path_factory.mktemp("tiny"), spread=0.2)


def _model(path: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            "pooler" not in name
        )  # which has no part in the vectors, so that DDP would wait for it
    return model


def _trained(model: SentenceTransformer) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _columns(rows: int, negatives: int = 3, seed: int = 0) -> list[list[str]]:
    """Draw anchor, positive and negative columns."""
    generator = torch.Generator().manual_seed(seed)

    def text() -> str:
        length = int(torch.randint(2, 12, (1,), generator=generator))
        return " ".join(WORDS[i] for i in torch.randint(0, 40, (length,), generator=generator).tolist())

    return [[text() for _ in range(rows)] for _ in range(2 + negatives)]


def _features(model: SentenceTransformer, columns: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
    return [model.preprocess(list(column)) for column in columns]


def _vectors(rows: int, columns: int, dim: int = 8, seed: int = 0) -> list[Tensor]:
    """Draw embeddings, not of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(rows, dim, generator=generator) + 1.0).requires_grad_() for _ in range(columns)]


def _same(ours: Tensor, theirs: Tensor, leaves: Sequence[Tensor], scale: float = 1.0) -> None:
    """Assert that value and gradients are `scale` times the other's."""
    torch.testing.assert_close(ours, scale * theirs, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(a, scale * b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hardness", [0.0, 5.0])
@pytest.mark.parametrize("negatives", [0, 1, 3])
def test_in_batch_is_multiple_negatives_ranking(tiny: Path, negatives: int, hardness: float) -> None:
    model, vectors = _model(tiny), _vectors(6, 2 + negatives)
    ours = CausalNegLoss(model, LossSettings(**IN_BATCH, hardness=hardness), SOURCES[3 - negatives :])
    mode = {"hardness_mode": "all_negatives", "hardness_strength": hardness} if hardness else {}
    theirs = losses.MultipleNegativesRankingLoss(model, scale=20.0, **mode)
    found = ours.compute_loss_from_embeddings(vectors)
    _same(found, theirs.compute_loss_from_embeddings(vectors, None), vectors)


def test_the_same_through_the_model(tiny: Path) -> None:
    model, columns = _model(tiny), _columns(5)
    ours = CausalNegLoss(model, LossSettings(**IN_BATCH), SOURCES)(_features(model, columns))
    theirs = losses.MultipleNegativesRankingLoss(model)(_features(model, columns), None)
    _same(ours, theirs, _trained(model))


@pytest.mark.parametrize("candidates", ["in_batch", "global"])
def test_generated_negatives_are_shared_only_when_asked(tiny: Path, candidates: str) -> None:
    model, vectors = _model(tiny), _vectors(4, 5)
    settings = LossSettings(candidates=candidates)
    found = CausalNegLoss(model, settings, SOURCES).compute_loss_from_embeddings(vectors)
    q, p, *n = (normalize(v, dim=-1) for v in vectors)
    without = settings.model_copy(update={"entropy_weight": 0.0})
    found = CausalNegLoss(model, without, SOURCES).compute_loss_from_embeddings(vectors)
    expected = []
    for r in range(4):
        others = torch.cat([torch.cat([c[:r], c[r + 1 :]]) for c in (p, n[0], n[1])])
        logits = torch.cat([p[r : r + 1], n[0][r : r + 1], n[1][r : r + 1], n[2][r : r + 1], others]) @ q[r] / 0.05
        expected.append(torch.logsumexp(logits, 0) - logits[0])
    _same(found, torch.stack(expected).mean(), vectors)


def test_kl_is_that_of_distill_kl_div(tiny: Path) -> None:
    model, vectors = _model(tiny), _vectors(6, 5)
    teacher = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) * 5
    settings = LossSettings(
        contrastive_weight=0.0, entropy_weight=0.0, distillation="kl", temperature=0.1, distillation_temperature=2.0
    )
    ours = CausalNegLoss(model, settings, SOURCES).compute_loss_from_embeddings(vectors, teacher)
    theirs = losses.DistillKLDivLoss(model, student_temperature=0.1, teacher_temperature=2.0)
    unit = [normalize(v, dim=-1) for v in vectors]
    _same(ours, theirs.compute_loss_from_embeddings(unit, teacher), vectors, scale=1 / 0.1**2)


def test_margin_mse_is_that_of_theirs(tiny: Path) -> None:
    model, vectors = _model(tiny), _vectors(6, 5)
    teacher = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) * 5
    settings = LossSettings(
        contrastive_weight=0.0, entropy_weight=0.0, distillation="margin_mse", distillation_temperature=2.0
    )
    ours = CausalNegLoss(model, settings, SOURCES).compute_loss_from_embeddings(vectors, teacher)
    unit = [normalize(v, dim=-1) for v in vectors]
    _same(ours, losses.MarginMSELoss(model).compute_loss_from_embeddings(unit, teacher / 2.0), vectors)


def test_smaller_dimensions_are_those_of_matryoshka(tiny: Path) -> None:
    model, columns = _model(tiny), _columns(5)
    settings = LossSettings(**IN_BATCH, matryoshka_dims=[8, 4], matryoshka_weights=[0.5, 0.25])
    ours = CausalNegLoss(model, settings, SOURCES)(_features(model, columns))
    inner = losses.MultipleNegativesRankingLoss(model)
    theirs = losses.MatryoshkaLoss(model, inner, [16, 8, 4], [1.0, 0.5, 0.25])(_features(model, columns), None)
    _same(ours, theirs, _trained(model))


def test_own_candidates_are_one_batch_cut_in_any_way(tiny: Path) -> None:
    model, columns = _model(tiny), _columns(6)
    loss = CausalNegLoss(model, LossSettings(), SOURCES)
    whole = loss(_features(model, columns))
    halves = [loss(_features(model, [c[s] for c in columns])) for s in (slice(0, 3), slice(3, 6))]
    assert float(whole.detach()) == pytest.approx(sum(float(h.detach()) for h in halves) / 2, rel=1e-5)


def test_a_passage_like_the_positive_does_not_compete(tiny: Path) -> None:
    model, columns = _model(tiny), _columns(4)
    columns[1][2] = columns[1][0]  # the same positive twice
    columns[3][3] = columns[1][1]  # a mined negative of one row is the positive of another
    columns[2][3] = " ".join(WORDS[:20])  # makes its column wider, so that the same ids are padded differently
    loss = CausalNegLoss(model, LossSettings(**IN_BATCH), SOURCES)
    features = _features(model, columns)
    assert features[1]["input_ids"].shape != features[2]["input_ids"].shape
    found = float(loss(features).detach())

    vectors = [normalize(torch.as_tensor(model.encode(c)), dim=-1) for c in columns]
    everything = torch.cat(vectors[1:])  # column by column
    same = {(0, 2), (2, 0), (1, 2 * 4 + 3)}
    expected = 0.0
    for r in range(4):
        kept = [i for i in range(16) if (r, i) not in same]
        logits = everything[kept] @ vectors[0][r] / 0.05
        expected += float(torch.logsumexp(logits, 0) - everything[r] @ vectors[0][r] / 0.05) / 4
    assert found == pytest.approx(expected, rel=1e-5)


def test_padding_on_the_left_makes_no_other_text(tiny: Path) -> None:
    model, columns = _model(tiny), _columns(4)
    columns[1][2] = columns[1][0]
    columns[2][3] = " ".join(WORDS[:20])
    loss = CausalNegLoss(model, LossSettings(**IN_BATCH), SOURCES)
    expected = float(loss(_features(model, columns)).detach())
    features = _features(model, columns)
    prints = []
    for padding in (True, False):
        column = {key: value for key, value in features[1].items() if isinstance(value, Tensor)}
        if padding:
            column = {key: nn.functional.pad(value, (3, 0)) for key, value in column.items()}
        prints.append(_prints([column])[:, 0])
    assert torch.equal(prints[0], prints[1])
    assert prints[0][0] == prints[0][2]
    assert len(set(prints[0].tolist())) == 3
    assert float(loss(features).detach()) == expected


def _prints(features: Sequence[dict[str, Tensor]]) -> Tensor:
    from causalneg.training.objective.sentence_transformers import _fingerprints

    found = _fingerprints(features)
    assert found is not None
    return found


def test_texts_that_differ_have_other_fingerprints() -> None:
    ids = torch.cartesian_prod(*[torch.arange(12)] * 4)
    lengths = torch.arange(len(ids)) % 2 + 3  # some of them one shorter
    attended = torch.arange(4) < lengths[:, None]
    prints = _prints([{"input_ids": ids, "attention_mask": attended.long()}])[:, 0]
    texts = {tuple(row[:length]) for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)}
    assert len(set(prints.tolist())) == len(texts)


def test_columns_without_token_ids_are_taken(tiny: Path) -> None:
    from causalneg.training.objective.sentence_transformers import _fingerprints

    assert _fingerprints([{"pixel_values": torch.zeros(2, 3)}]) is None
    assert _fingerprints([{"input_ids": torch.zeros(5), "attention_mask": torch.zeros(5)}]) is None


@pytest.mark.parametrize("candidates", ["own", "in_batch"])
def test_codes_make_ragged_rows(tiny: Path, candidates: str) -> None:
    model, columns = _model(tiny), _columns(3)
    codes = torch.tensor([[1, 2, 0], [0, 0, 0], [2, 1, 1]])
    settings = LossSettings(candidates=candidates, share_generated=True, entropy_weight=1.0)
    loss = CausalNegLoss(model, settings, [])
    expected = float(loss(_features(model, columns), codes).detach())
    changed = [list(column) for column in columns]
    changed[4][0] = changed[2][1] = changed[3][1] = changed[4][1] = "anything else"
    assert float(loss(_features(model, changed), codes).detach()) == pytest.approx(expected, rel=1e-5)
    changed[2][0] = "w1 w2"
    assert float(loss(_features(model, changed), codes).detach()) != pytest.approx(expected, rel=1e-4)
    full = torch.tensor([[1, 1, 2]] * 3)
    by_sources = CausalNegLoss(model, settings, SOURCES)(_features(model, columns))
    assert float(loss(_features(model, columns), full).detach()) == float(by_sources.detach())


@pytest.mark.parametrize(
    ("settings", "sources", "labels", "message"),
    [
        ({}, SOURCES[:2], None, "3 negative columns and 2 sources"),
        ({}, SOURCES, torch.zeros(4, 2).long(), r"shape \(4, 3\), and have \(4, 2\)"),
        ({}, SOURCES, torch.zeros(4), r"shape \(4, 4\), and have \(4,\)"),
        ({"distillation": "kl"}, SOURCES, None, r"needs the teacher's scores as labels"),
        ({"distillation": "kl"}, SOURCES, torch.zeros(4, 3).long(), r"needs the teacher's scores as labels"),
        ({"matryoshka_dims": [9]}, SOURCES, None, "matryoshka_dims has 9"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny: Path, settings: dict[str, Any], sources: list[Source], labels: Tensor | None, message: str
) -> None:
    loss = CausalNegLoss(_model(tiny), LossSettings(**settings), sources)
    with pytest.raises(UserError, match=message):
        loss.compute_loss_from_embeddings(_vectors(4, 5), labels)


def test_an_anchor_alone_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="1 column"):
        CausalNegLoss(_model(tiny), LossSettings(), []).compute_loss_from_embeddings(_vectors(4, 1))


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({}, None),
        ({"candidates": "global", "false_negative_margin": 0.0, "matryoshka_dims": [8]}, [[1, 1, 2], [0, 2, 1]]),
        ({"candidates": "in_batch", "distillation": "kl"}, [[3.0, 1.0, 0.5, 0.1], [2.0, 1.0, float("nan"), 0.0]]),
    ],
)
def test_the_trainer_trains_with_it(
    tiny: Path, tmp_path: Path, settings: dict[str, Any], labels: list[list[float]] | None
) -> None:
    model = _model(tiny)
    names = ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
    rows = dict(zip(names, _columns(16), strict=True))
    if labels:
        rows["label"] = labels * 8
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        max_steps=12,
        learning_rate=5e-3,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=True,  # the loss itself stays in fp32
    )
    loss = CausalNegLoss(model, LossSettings(**settings), SOURCES)
    data = Dataset.from_dict(rows)
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, eval_dataset=data, loss=loss)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    model.save_pretrained(str(tmp_path / "saved"))
    text = (tmp_path / "saved" / "README.md").read_text()
    assert "CausalNegLoss" in text
    assert '"entropy_temperature": 0.1' in text


def test_the_config_can_be_written(tiny: Path) -> None:
    settings = LossSettings(candidates="in_batch")
    written = json.loads(json.dumps(CausalNegLoss(_model(tiny), settings, SOURCES).get_config_dict()))
    assert written.pop("sources") == ["mined", "mined", "generated"]
    assert LossSettings(**written) == settings


CASES: dict[str, dict[str, Any]] = {
    "own": {"candidates": "own", "entropy_weight": 2.0},
    "global": {"candidates": "global", "share_generated": True, "entropy_weight": 2.0, "hardness": 2.0},
    "teacher": {"candidates": "global", "distillation": "margin_mse", "matryoshka_dims": [8]},
}


def _labels(case: str, rows: int) -> Tensor:
    """The first rows have generated negatives, and teacher's scores, and the last hardly any."""
    if case == "teacher":
        scores = torch.rand(rows, 4, generator=torch.Generator().manual_seed(2))
        scores[rows // 2 + 1 :] = float("nan")
        return scores
    codes = torch.tensor([[1, 1, 2]]).repeat(rows, 1)
    codes[rows // 2 + 1 :, 2] = 0
    codes[0, 0] = 0
    return codes


def _gradient(path: Path, case: str, rows: slice, total: int, wrap: bool) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of some of the rows; data-parallel if `wrap`."""
    model = _model(path).train()
    loss = CausalNegLoss(model, LossSettings(**CASES[case]), SOURCES)
    if wrap:
        loss.model = DistributedDataParallel(model)
    columns = _columns(total)
    columns[1][total - 1] = columns[1][0]  # the same positive on both ranks
    value = loss(_features(model, [column[rows] for column in columns]), _labels(case, total)[rows])
    value.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(value.detach()), found


def _rank(rank: int, path: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    result = {}
    for case in CASES:
        cut = 3 if case == "own" else 4  # with global candidates ranks have as many rows
        result[case] = _gradient(path, case, slice(0, cut) if rank == 0 else slice(cut, 8), 8, wrap=True)
    torch.save(result, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two data-parallel processes computed, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, (tiny, folder), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_gradient_of_one(tiny: Path, ranks: list[dict[str, Any]], case: str) -> None:
    # The published code divides InfoNCE but not the entropy by the number of ranks: there λ depends on it.
    value, gradients = _gradient(tiny, case, slice(None), 8, wrap=False)
    assert (ranks[0][case][0] + ranks[1][case][0]) / 2 == pytest.approx(value, rel=1e-5)
    for rank in ranks:
        assert set(rank[case][1]) == set(gradients)
        for name, gradient in gradients.items():
            torch.testing.assert_close(rank[case][1][name], gradient, rtol=1e-5, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 0.01
