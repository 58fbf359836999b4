"""The server's numbers, of one process and of several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics

WORKER = """
import os, sys
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import Timings
metrics = Metrics()
metrics.request("/v1/search", 200, 0.004)
metrics.answered(Timings(encode=2), [True, False])
metrics.waiting.set(5)
metrics.in_flight.inc()
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.render().decode())
sys.stdout.flush()
os._exit(0)  # as one that is killed: nothing is cleaned up
"""


def _numbers(text: str) -> dict[str, float]:
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.name + "".join(f"[{v}]" for k, v in s.labels.items() if k != "le"): s.value for s in samples}


@pytest.fixture
def client() -> TestClient:
    return TestClient(create_app(Echo(), ServeSettings(), Metrics(), Keys()))


def test_requests_texts_and_times_are_counted(client: TestClient) -> None:
    client.post("/v1/search", json={"queries": ["a", "b" * 100]})
    client.post("/v1/search", json={"query": ""})
    client.post("/embed", json={"inputs": ["a"]})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    numbers = _numbers(response.text)
    assert numbers["causalneg_requests_total[/v1/search][200]"] == 1
    assert numbers["causalneg_requests_total[/v1/search][400]"] == 1
    assert numbers["causalneg_queries_total"] == 3
    assert numbers["causalneg_truncated_total"] == 1
    assert numbers["causalneg_request_seconds_count[/v1/search]"] == 2
    assert numbers["causalneg_encode_seconds_count"] == 2
    assert numbers["causalneg_encode_seconds_sum"] == pytest.approx(0.002)
    assert numbers["causalneg_rerank_seconds_count"] == 0
    assert numbers["causalneg_index_info[v2]"] == 1
    assert numbers["causalneg_rows"] == 3
    assert numbers["causalneg_in_flight"] == 1  # the one that asks


def test_labels_are_bounded_whatever_is_asked(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/nope/{number}")
        client.get(f"/v1/passages/{number}")
        client.request("PUT", f"/v1/passages/{number}")
        client.request(f"ODD{number}", "/v1/search")
    numbers = _numbers(client.get("/metrics").text)
    counted = {name: value for name, value in numbers.items() if name.startswith("causalneg_requests_total")}
    assert counted == {
        "causalneg_requests_total[none][404]": 20,
        "causalneg_requests_total[/v1/passages/{passage_id}][404]": 20,
        "causalneg_requests_total[/v1/passages/{passage_id}][405]": 20,
        "causalneg_requests_total[/v1/search][405]": 20,
    }


def test_the_version_that_answered_before_is_forgotten() -> None:
    metrics, echo = Metrics(), Echo()
    metrics.index(echo.info())
    metrics.index(echo.info().model_copy(update={"index_version": "v3", "rows": 7, "change": 4}))
    numbers = _numbers(metrics.render().decode())
    assert {n: v for n, v in numbers.items() if "index_info" in n} == {"causalneg_index_info[v3]": 1}
    assert (numbers["causalneg_rows"], numbers["causalneg_changes"]) == (7, 4)


def test_processes_add_up_and_dead_ones_hold_no_gauge(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    rendered = []
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        rendered.append(_numbers(worker.communicate("\n", timeout=60)[0]))
    both, last = rendered
    for numbers in rendered:
        assert numbers["causalneg_requests_total[/v1/search][200]"] == 2
        assert numbers["causalneg_queries_total"] == 4
        assert numbers["causalneg_encode_seconds_count"] == 2
    assert (both["causalneg_waiting_tokens"], both["causalneg_in_flight"]) == (10, 2)
    assert (last["causalneg_waiting_tokens"], last["causalneg_in_flight"]) == (5, 1)
