"""Run files: what is written is ranked the same by every reader, and what is wrong in a file is named."""

import gzip
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.errors import UserError
from causalneg.evaluation.metrics import compute, ranked
from causalneg.evaluation.trec import decoded, encoded, falling, read_qrels, read_run, run_lines

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
# What is hard to keep apart: equal scores, neighbours, zeros, numbers that are no normal fp32.
scores = st.one_of(
    st.floats(-1, 1),
    st.sampled_from([0.0, -0.0, 0.5, float(np.nextafter(np.float32(0.5), np.float32(0))), 1e-40, -1e-40, 1e30]),
)


def _written(run: dict[str, dict[str, float]], folder: Path, tag: str = "t") -> Path:
    path = folder / "run.trec"
    path.write_text(run_lines(run, tag), encoding="utf-8", newline="")
    return path


def test_fields_are_in_the_order_of_trec() -> None:
    text = run_lines({"q 1": {"p\n1": 0.25, "p2": 0.5}}, "base")
    assert text == "q%201 Q0 p2 1 0.5 base\nq%201 Q0 p%0A1 2 0.25 base\n"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.from_regex(r"[%20 a\n]{1,8}", fullmatch=True))
def test_an_id_is_one_field_and_comes_back(text: str) -> None:
    field = encoded(text)
    assert field.split() == [field]
    assert decoded(field) == text


@pytest.mark.parametrize("text", ["doc-1", "100%", "http://a.org/?q=1&r=%", "ä"])
def test_common_ids_stay_as_they_are(text: str) -> None:
    assert encoded(text) == text


@given(st.lists(scores, max_size=30))
def test_equal_scores_fall_by_the_least_step(values: list[float]) -> None:
    values = sorted(values, reverse=True)
    steps = falling(values)
    assert (np.diff(steps) < 0).all()
    assert (np.abs(steps[steps != 0]) >= np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(steps, np.array(values, np.float32), rtol=1e-5, atol=1e-36)
    digits = [f"{step:.9g}" for step in steps.tolist()]
    assert [np.float32(d) for d in digits] == steps.tolist()  # for those who read fp32
    assert (np.diff([float(d) for d in digits]) < 0).all()  # and for those who read fp64


def test_falling_scores_stay_as_they_are() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=500).astype(np.float32))[::-1]
    np.testing.assert_array_equal(falling(values.tolist()), values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_scores_that_a_file_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite fp32"):
        falling([value, 0.0])


@given(st.dictionaries(ids, st.dictionaries(ids, scores, min_size=1, max_size=6), min_size=1, max_size=3))
def test_a_run_that_is_read_back_is_ranked_the_same(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, dict[str, float]]
) -> None:
    run = {q: {p: float(np.float32(s)) for p, s in hits.items()} for q, hits in run.items()}
    back = read_run(str(_written(run, tmp_path_factory.mktemp("run"))))
    assert {q: ranked(hits) for q, hits in back.items()} == {q: ranked(hits) for q, hits in run.items()}


def test_trec_eval_ranks_ties_as_we_do(tmp_path: Path) -> None:
    # trec_eval puts equal scores in the order of ids from the last: without steps it would find z first.
    run = {"q": dict.fromkeys("abcxyz", 0.25), "r": {"b": 0.5, "a": 0.5, "c": 0.75}}
    path = str(_written(run, tmp_path))
    for passage, rank in zip("abcxyz", range(1, 7), strict=True):
        qrels = {"q": {passage: 1}, "r": {"b": 1}}
        found = ir_measures.pytrec_eval.calc_aggregate([ir_measures.RR], qrels, list(ir_measures.read_trec_run(path)))
        assert found[ir_measures.RR] == pytest.approx((1 / rank + 1 / 3) / 2)
        assert compute(["RR"], qrels, run).mean["RR"] == pytest.approx((1 / rank + 1 / 3) / 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"q Q0 p 1 0.5 t\nq Q0 r 2 0.4\n", "line 2: a line of a run has 6 fields .* this one has 5"),
        (b"\xef\xbb\xbfq Q0 p 1 high t\n", "line 1: the score 'high' is no finite number"),
        (b"q Q0 p 1 nan t\n", "'nan' is no finite"),
        (b"\nq Q0 p 1 2 t\nq Q0 p 2 1 t\n", "line 3: the passage 'p' is there twice for the query 'q'"),
        (b"q Q0 \xff 1 2 t\n", "line 1: this is not UTF-8"),
        (b"\n \n", "is empty"),
    ],
)
def test_a_wrong_run_is_named_with_its_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.run"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message) as found:
        read_run(str(path))
    assert str(path) in str(found.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.trec does not exist"):
        read_run(str(tmp_path / "none.trec"))
    with pytest.raises(UserError, match="cannot be read"):
        read_run(str(tmp_path))
    packed = gzip.compress(b"q Q0 p 1 0.5 t\n" * 1)
    (tmp_path / "run.gz").write_bytes(packed)
    assert read_run(str(tmp_path / "run.gz")) == {"q": {"p": 0.5}}
    (tmp_path / "cut.gz").write_bytes(packed[:-12])
    with pytest.raises(UserError, match=r"cut\.gz cannot be read"):
        read_run(str(tmp_path / "cut.gz"))


def test_scores_decide_and_not_ranks(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("q Q0 p 1 -7 t\r\nq\tQ0\tr\t2\t1e-3\tt\r\n")
    assert ranked(read_run(str(path))["q"]) == ["r", "p"]


@pytest.mark.parametrize(
    "text",
    [
        "q%201 0 p 1\nq%201 0 r 0\n",
        "query-id\tcorpus-id\tscore\nq 1\tp\t1\nq 1\tr\t0\n",
        "q 1\tp\t1\r\nq 1\tr\t+0\r\nq 1\tr\t0\r\n",
        "docno\tscore\tQuery ID\np\t1.0\tq 1\t\nr\t0\tq 1\n",
        "qid,pid,rel\nq 1,p,1\nq 1,r,0\n",
    ],
)
def test_judgements_of_trec_and_beir_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(str(tmp_path / "qrels")) == {"q 1": {"p": 1, "r": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 p 1\nq p\n", "line 2: three columns are needed .* but here are 2"),
        ("q 0 p x\n", "line 1: a whole-number score is needed, not 'x'"),
        ("q 0 p 1\nq 0 p 2\n", "line 2: the passage 'p' was judged otherwise before for the query 'q'"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_wrong_judgements_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(UserError, match=message):
        read_qrels(str(tmp_path / "qrels"))
