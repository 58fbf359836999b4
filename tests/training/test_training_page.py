"""The page of a training: every chart that there is data for, and no other."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from causalneg.training.page import CHARTS, best_evaluation, page, weights

SUMMARY = {"encoder": "embedded:minilm-l6", "rows_per_second": 12.345678, "settings": {"loss": {"temperature": 0.05}}}


def _records(steps: int = 20, every: int = 5) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        common = {"step": step, "epoch": step / 10}
        records.append(
            {
                **common,
                "kind": "train",
                "loss/total": 2 / step,
                "loss/info_nce": 1.9 / step,
                "loss/entropy": 1.0,
                "loss/balance": 0.01,
                "loss/false_negatives": 0.5,
                "learning_rate": 1e-5,
                "weight/mined": 1.0,
                "weight/generated": step / steps,
            }
        )
        if step % every == 0:
            lines = [line for chart in CHARTS for line in chart.lines if line.field.startswith("diagnostics/")]
            measured: dict[str, float | None] = {line.field: 0.3 for line in lines}
            measured |= {end: 0.2 + 0.2 * at for line in lines for at, end in enumerate(line.band or ())}
            records.append({**common, "kind": "dev", "nDCG@10": 0.4 + 0.01 * (step % 15), **measured})
    return records


def _svgs(html: str) -> list[str]:
    return ["<svg" + part.split("</svg>")[0] + "</svg>" for part in html.split("<svg")[1:]]


def test_every_chart_is_there() -> None:
    html = page(_records(), SUMMARY)
    titles = [chart.title for chart in CHARTS]
    assert all(f"<h3>{title}</h3>" in html for title in titles)
    svgs = _svgs(html)
    assert len(svgs) == len(CHARTS) == html.count("<figcaption>")
    for svg in svgs:
        ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert "http" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    assert "<script" not in html


def test_ids_are_unique() -> None:
    ids = [part.split('"')[0] for part in page(_records(), SUMMARY).split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_same_input_same_page() -> None:
    assert page(_records(), SUMMARY) == page(_records(), SUMMARY)


def test_best_is_marked() -> None:
    records = _records()
    assert best_evaluation(records) == (10, 0.5)
    html = page(records, SUMMARY)
    assert "The best nDCG@10 on dev queries is 0.5000, at step 10." in html
    assert "best: 0.5000, step 10" in html


@pytest.mark.parametrize("tied", [0.5, 0.4])
def test_first_of_equals_is_best(tied: float) -> None:
    records = [{"step": s, "epoch": 1.0, "kind": "dev", "nDCG@10": v} for s, v in ((1, 0.4), (2, 0.5), (3, tied))]
    assert best_evaluation(records) == (2, 0.5)


def test_missing_series_are_left_out() -> None:
    records = [{k: v for k, v in r.items() if not k.startswith("diagnostics/")} for r in _records()]
    html = page(records, SUMMARY)
    assert "<h3>Loss</h3>" in html
    assert "Mutual information" not in html
    assert html.count("<svg") == 5


def test_missing_values_within_a_series() -> None:
    records = _records()
    for record in records[3:9]:
        record.update({name: None for name in record if "/" in name})
    assert page(records, {}).count("<svg") == len(CHARTS)


def test_interval_without_its_ends() -> None:
    records = [r | {"diagnostics/mutual_information_low": None} for r in _records()]
    assert "Mutual information" in page(records, {})


def test_nothing_logged_yet() -> None:
    html = page([], {})
    assert "The log holds nothing to draw yet." in html
    assert "No dev queries were watched." in html
    assert "<table>" not in html
    assert page([{"step": 0, "epoch": 0.0, "kind": "dev", "nDCG@10": 0.1}], {}).count("<svg") == 1


def test_train_records_are_drawn_where_dev_ones_lack_a_series() -> None:
    records = [{"step": s, "epoch": 1.0, "kind": "train", "diagnostics/auc": 0.6} for s in (1, 2)]
    assert "AUC of similarity" in page(records, {})


def test_only_lines_with_values_are_named() -> None:
    html = page(_records(), {})
    assert ">entropy<" in html
    assert ">distillation<" not in html


def test_weights_table() -> None:
    rows = weights(_records(steps=100))
    assert (rows[0][0], rows[-1]) == (1, (100, [1.0, 1.0]))
    assert len(rows) == 12
    assert [step for step, _ in weights(_records(steps=3))] == [1, 2, 3]
    only = [{"step": 1, "epoch": 0.1, "kind": "train", "weight/generated": 0.2}]
    assert weights(only) == [(1, [None, 0.2])]
    assert "Weights of negatives" in page(only, {})
    assert "Weights of negatives" not in page([{"step": 1, "epoch": 0.1, "kind": "train", "loss/total": 1.0}], {})


def test_long_lines_are_averaged() -> None:
    assert len(page(_records(steps=5000, every=500), {})) < 3 * len(page(_records(), {}))


def test_everything_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    records = [r | {f"loss/{evil}": 1.0, f"weight/{evil}": 1.0} for r in _records()]
    html = page(records, {evil: evil, "settings": {evil: [evil]}, f"{evil}group": {"a": 1}})
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_settings_and_figures() -> None:
    html = page(_records(), SUMMARY)
    assert "<th>encoder</th><td>embedded:minilm-l6</td>" in html
    assert "<th>rows_per_second</th><td>12.3457</td>" in html
    assert "<h3>settings</h3>" in html
    assert "<th>loss.temperature</th><td>0.05</td>" in html
