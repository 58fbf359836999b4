"""Generation from outside against an endpoint with faults: nothing lost, nothing twice, selection asks nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from causalneg.generation.drafts import Drafts
from causalneg.generation.pairs import train_pairs
from causalneg.records import Failure, Negative, Outcome
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

QUERIES = 16


class Endpoint(ThreadingHTTPServer):
    """Speaks as an OpenAI-compatible server whose model takes the first option, and finds likely what was said before.

    Attributes:
        faults: whether every few requests go wrong, each in another way, none more than four times.
        poison: words of a query at which it always fails.
        refusal: status and body of its answer to every chat, if it refuses.
        unusual: whether it lists no models, and takes neither a seed nor `max_tokens`.
        refused: the parameters that it refused as such.
        asked: bodies of the requests that were answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.poison = False, ""
        self.refusal: tuple[int, bytes] | None = None
        self.unusual = False
        self.refused: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.went_wrong: Counter[str] = Counter()
        self.setbacks: Counter[bytes] = Counter()
        self.number, self.lock = 0, threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fault(self, request: bytes) -> str | None:
        """Return what goes wrong with a request."""
        with self.lock:
            self.number += 1
            kinds = {9: "429", 13: "500", 17: "garbage", 23: "half"}
            faulty = self.faults and self.setbacks[request] < 4
            kind = next((k for n, k in kinds.items() if faulty and self.number % n == 0), None)
            if kind:
                self.went_wrong[kind] += 1
                self.setbacks[request] += 1
            return kind


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(length or len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        if length:
            self.wfile.flush()
            self.close_connection = True

    def do_GET(self) -> None:
        """List the one model."""
        if self.server.unusual:
            self.send(404, b"<html>Nothing here</html>")
            return
        card = {"id": "tiny", "owned_by": "test", "max_model_len": 2048}
        self.send(200, json.dumps({"data": [card]}).encode())

    def do_POST(self) -> None:
        """Answer a chat or echo a text."""
        request = self.rfile.read(int(self.headers["Content-Length"]))
        body, kind = json.loads(request), self.server.fault(request)
        if self.server.poison and self.server.poison in json.dumps(body):
            kind = "500"
        unknown = [name for name in ("max_tokens", "seed") if name in body]
        if self.server.unusual and "messages" in body and unknown:
            self.server.refused += unknown
            error = {"message": f"Unsupported parameter: '{unknown[0]}'", "code": "unsupported_parameter"}
            self.send(400, json.dumps({"error": error | {"param": unknown[0]}}).encode())
            return
        if self.server.refusal and "messages" in body:
            self.send(*self.server.refusal)
            return
        answer = json.dumps(chat(body) if "messages" in body else echo(body)).encode()
        if kind == "429":
            self.send(429, b"{}", Retry_After="0")
        elif kind == "500":
            self.send(500, b"{}")
        elif kind == "garbage":
            self.send(200, b"<html>no JSON</html>")
        elif kind == "half":
            self.send(200, answer[: len(answer) // 2], len(answer))
        else:
            with self.server.lock:
                self.server.asked.append(body)
            self.send(200, answer)


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """Take the first option of the schema."""
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    content = json.dumps({name: field["enum"][0] for name, field in properties.items()})
    return {
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}},
    }


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Find a word likelier where it stood before."""
    tokens = re.findall(r"\s*\S+|\s+$", body["prompt"])
    seen: set[str] = set()
    logprobs: list[float | None] = []
    for token in tokens:
        word = token.strip().strip(".,?").lower()
        logprobs.append(-0.5 if word in seen else -4.0)
        seen.add(word)
    logprobs[0] = None
    return {
        "choices": [
            {"text": body["prompt"], "logprobs": {"tokens": [*tokens, " x"], "token_logprobs": [*logprobs, -1.0]}}
        ],
        "usage": {"prompt_tokens": len(tokens), "completion_tokens": 1},
    }


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Have the endpoint in a thread."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def causalneg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "causalneg.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | environment)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint") / "ws"
    for command in (["import", "--max-train-queries", str(QUERIES)], ["mine", "--search.depth", "20"]):
        done = causalneg(*command, "--workspace", str(folder))
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def workspace(mined: Path, tmp_path: Path) -> Workspace:
    return Workspace(str(shutil.copytree(mined, tmp_path / "ws")))


def generate(workspace: Workspace, server: Endpoint, *more: str) -> subprocess.CompletedProcess[str]:
    where = ["--workspace", workspace.root, "--llm", "tiny", "--engine.url", server.url]
    return causalneg("generate", *where, "--engine.batch-pairs", "3", "--engine.cpus", "0.5", *more)


def check_counts(workspace: Workspace) -> list[Outcome]:
    """Every pair has one outcome, every negative one pair, and the manifest counts them."""
    outcomes = list(workspace.read_rows("outcomes", Outcome))
    assert Counter(o.input_id for o in outcomes) == Counter(p.id for p in train_pairs(workspace))
    negatives = list(workspace.read_rows("negatives", Negative))
    assert len({n.id for n in negatives}) == len(negatives)
    by_pair = Counter((n.query_id, n.positive_id) for n in negatives)
    assert all(by_pair[o.query_id, o.positive_id] == o.accepted + o.rejected for o in outcomes)
    failures = Counter(f.input_id for f in workspace.read_rows("failures", Failure))
    assert failures == Counter(o.input_id for o in outcomes if o.status == "failed")
    counts = workspace.require("generate").counts
    statuses = Counter(o.status for o in outcomes)
    assert (counts.rows_in, counts.accepted, counts.rejected, counts.failed) == (
        len(outcomes),
        statuses["accepted"],
        statuses["rejected"],
        statuses["failed"],
    )
    return outcomes


def test_an_endpoint_with_faults_loses_nothing_and_asks_nothing_twice(workspace: Workspace) -> None:
    with endpoint() as server:
        server.faults = True
        done = generate(workspace, server, "--engine.max-attempts", "6")
        assert done.returncode == 0, done.stderr
        assert set(server.went_wrong) == {"429", "500", "garbage", "half"}
        outcomes = check_counts(workspace)
        assert not [o for o in outcomes if o.status == "failed"]
        assert sum(o.accepted for o in outcomes) > 0
        asked = [json.dumps(body) for body in server.asked]
        assert len(set(asked)) == len(asked), "a request that had its answer was made again"

        # Another threshold decides anew and asks nothing.
        rows = {n.id: n.verdict for n in workspace.read_rows("negatives", Negative)}
        again = generate(workspace, server, "--reselect", "--gates.max-relative-score", "0.9")
        assert again.returncode == 0, again.stderr
        assert len(server.asked) == len(asked)
        decided = {n.id: n for n in workspace.read_rows("negatives", Negative)}
        assert decided.keys() == rows.keys()
        accepted = [n for n in decided.values() if n.verdict == "accepted"]
        assert all(n.scores["relative_score"] <= 0.9 for n in accepted)
        assert len(accepted) < sum(v == "accepted" for v in rows.values())
        check_counts(workspace)


def test_failed_pairs_are_tried_again_when_asked_and_no_others(workspace: Workspace) -> None:
    victim = next(train_pairs(workspace))
    with endpoint() as server:
        server.poison = victim.query.text
        done = generate(workspace, server, "--engine.max-attempts", "2")
        assert done.returncode == 0, done.stderr
        outcomes = check_counts(workspace)
        assert {o.input_id: o.failure for o in outcomes if o.failure} == {victim.id: "server_error"}
        (failure,) = workspace.read_rows("failures", Failure)
        assert failure.retryable

        server.poison = ""
        asked = len(server.asked)
        assert "already done" in generate(workspace, server).stderr
        assert len(server.asked) == asked
        done = generate(workspace, server, "--retry-failed")
        assert done.returncode == 0, done.stderr
        assert not [o for o in check_counts(workspace) if o.failure]
        bodies = [json.dumps(body) for body in server.asked]
        assert bodies[asked:]
        assert not set(bodies[asked:]) & set(bodies[:asked]), "a pair that was done was done again"


def test_reselecting_without_scores_is_refused_before_anything_is_lost(workspace: Workspace) -> None:
    with endpoint() as server:
        done = generate(workspace, server, "--reselect")
        assert done.returncode == 2
        assert "--reselect asks no LLM" in done.stderr
        assert "Traceback" not in done.stderr
        assert server.asked == []


@pytest.mark.parametrize("chosen", [[], ["--mode", "edit", "--judge", "yes_no"]], ids=["check", "pairs"])
def test_where_all_is_refused_nothing_is_decided_and_the_same_command_goes_on(
    workspace: Workspace, chosen: list[str]
) -> None:
    with endpoint() as server:
        server.refusal = (400, b'{"error": {"message": "Unsupported value: temperature"}}')
        done = generate(workspace, server, *chosen)
        assert done.returncode == 2, done.stderr
        assert "Unsupported value: temperature" in done.stderr
        assert "Traceback" not in done.stderr
        assert workspace.manifest("generate") is None
        stored = [name for name in workspace.list_files(["drafts"]) if "capability" in name]
        assert bool(stored) == bool(chosen)  # only that the endpoint tells likelihoods, where no more was asked
        server.refusal = None
        done = generate(workspace, server, *chosen)
        assert done.returncode == 0, done.stderr
        assert not [o for o in check_counts(workspace) if o.status == "failed"]
        manifest = workspace.require("generate")
        assert manifest.details["check"]["requests"] >= 1
        assert manifest.tokens["prompt"] > sum(o.prompt_tokens for o in workspace.read_rows("outcomes", Outcome))


def test_an_unusual_endpoint_is_understood_once_and_that_is_said(workspace: Workspace) -> None:
    with endpoint() as server:
        server.unusual = True
        done = generate(workspace, server, "--plan")
        assert done.returncode == 0, done.stderr
        assert "the endpoint lists no models" in done.stderr
        assert set(server.refused) == {"max_tokens", "seed"}
        found_out = len(server.refused)
        done = generate(workspace, server)
        assert done.returncode == 0, done.stderr
        assert "max_tokens is sent as max_completion_tokens; seed is left out" in " ".join(done.stderr.split())
        assert len(server.refused) == found_out  # the second process knew it
        assert not [o for o in check_counts(workspace) if o.status == "failed"]


def test_drafts_that_lack_a_score_of_the_llm_are_judged_again_and_not_written_again(workspace: Workspace) -> None:
    with endpoint() as server:
        assert generate(workspace, server).returncode == 0
        verdicts = {n.id: n.verdict for n in workspace.read_rows("negatives", Negative)}
        (folder,) = workspace.list_files(["drafts"], "procedure.json")
        drafts = Drafts(workspace, folder.split("/")[1])
        for batch, steps in drafts.steps("scored"):  # as if there had been no gate for it
            rows = [
                s.model_copy(
                    update={
                        "negatives": [
                            n.model_copy(update={"scores": {k: v for k, v in n.scores.items() if k != "fluency"}})
                            for n in s.negatives
                        ]
                    }
                )
                for s in steps
            ]
            drafts.write_step("scored", batch, rows)
        done = generate(workspace, server, "--reselect", "--gates.min-fluency", "-0.9")
        assert done.returncode == 2
        assert "--reselect asks no LLM" in done.stderr
        assert "lack its scores" in done.stderr
        asked = len(server.asked)
        done = generate(workspace, server, "--gates.min-fluency", "-0.9")
        assert done.returncode == 0, done.stderr
        again = server.asked[asked:]
        assert again
        assert not [body for body in again if "messages" in body]  # likelihoods alone
        check_counts(workspace)
        assert {n.id for n in workspace.read_rows("negatives", Negative)} == verdicts.keys()
        assert all("fluency" in n.scores for n in workspace.read_rows("negatives", Negative))


def test_a_plan_shows_rows_and_is_not_paid_twice(workspace: Workspace) -> None:
    with endpoint() as server:
        price = ["--engine.prompt-price", "1000", "--engine.generated-price", "1000"]
        done = generate(workspace, server, "--plan", *price)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("verdict      ") == 3  # as many as the batch has
        assert re.search(r"cost +│ +\d+\.\d\d", done.stderr)
        assert re.search(rf"pairs to do +│ +{QUERIES - 3} of {QUERIES}", done.stderr)
        assert workspace.manifest("generate") is None
        planned = [json.dumps(body) for body in server.asked]
        assert generate(workspace, server).returncode == 0
        check_counts(workspace)
        later = [json.dumps(body) for body in server.asked[len(planned) :]]
        assert not set(planned) & set(later)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--llm", "huge"], "has no model 'huge'"),
        (["--engine.url", "http://127.0.0.1:9/v1"], "127.0.0.1:9"),
        (["--profile", "unknown"], "profile"),
        (["--engine.cpus", "4000"], "CPUs"),
    ],
)
def test_a_users_mistake_is_a_sentence(workspace: Workspace, arguments: list[str], said: str) -> None:
    with endpoint() as server:
        where = ["--workspace", workspace.root, "--llm", "tiny", "--engine.url", server.url]
        done = causalneg("generate", *where, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
