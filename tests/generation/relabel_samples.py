"""A mined workspace, and an endpoint that judges candidates by a rule."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from row_samples import mined

from causalneg.records import Mined, Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace

QUERIES = 6
# Candidate number of a query -> what it says. The rule of the endpoint: «whole» answers, «half» does in part.
TEXTS = ("It says nothing.", "It tells the whole of it.", "It is of no use.", "It tells half of it.", "Nothing here.")
FALSE = {1: "answers", 3: "partly"}


def query_id(number: int) -> str:
    """Return the id of a query."""
    return f"q{number}"


def passage_id(query: int, candidate: int) -> str:
    """Return the id of a candidate of a query."""
    return f"m{query}-{candidate}"


def mined_workspace(folder: str) -> Workspace:
    """Write train queries with a positive and five mined negatives each, of which two are false."""
    workspace = Workspace(folder)
    stage = workspace.begin("import", {"import": {"source": "numbers"}}, [])
    passages = [Passage(id=f"p{n}", text=f"The positive {n}.") for n in range(QUERIES)]
    passages += [
        Passage(id=passage_id(n, c), text=f"Number {n}. {text}") for n in range(QUERIES) for c, text in enumerate(TEXTS)
    ]
    stage.workspace.write_rows("corpus", "part-0", Passage, passages)
    queries = [Query(id=query_id(n), text=f"What is number {n}?") for n in range(QUERIES)]
    stage.workspace.write_rows("queries", "part-0", Query, queries)
    qrels = [Qrel(query_id=query_id(n), passage_id=f"p{n}") for n in range(QUERIES)]
    stage.workspace.write_rows("qrels", "part-0", Qrel, qrels)
    stage.finish(Counts(rows_in=QUERIES, accepted=QUERIES))
    stage = workspace.begin("mine", {}, ["import"])
    rows = [mined(query_id(n), passage_id(n, c)) for n in range(QUERIES) for c in range(len(TEXTS))]
    rows.append(mined(query_id(0), "p1", "rejected"))
    stage.workspace.write_rows("mined", "part-0", Mined, rows)
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows) - 1, rejected=1))
    return workspace


def answer_to(prompt: str) -> dict[str, Any]:
    """Judge the candidates of a prompt by the rule."""
    verdicts = {
        number: "answers" if "whole" in text else "partly" if "half" in text else "no"
        for number, text in re.findall(r"<candidate_(\d+)>\n(.*?)\n</candidate_\1>", prompt, re.DOTALL)
    }
    reasons = [{"candidate": int(n), "reason": f"It is number {n}."} for n, v in verdicts.items() if v != "no"]
    return verdicts | {"reasons": reasons}


class Judge(ThreadingHTTPServer):
    """Speaks as an OpenAI-compatible server.

    Attributes:
        garbled: numbers of queries to which it answers without a reason.
        held: numbers of queries that wait until `let_go` is set.
        wrong: whether it finds every requirement of the check of judges unmet.
        asked: numbers of the queries it answered, in that order; -1 for other requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.garbled: set[int] = set()
        self.held: set[int] = set()
        self.wrong = False
        self.asked: list[int] = []
        self.let_go, self.lock = threading.Event(), threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Judge
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """List the one model."""
        self._send(200, {"data": [{"id": "judge", "owned_by": "test", "max_model_len": 8192}]})

    def do_POST(self) -> None:
        """Judge."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "messages" not in body:
            self._send(404, {"error": {"message": "no such path"}})
            return
        prompt = body["messages"][-1]["content"]
        found = re.search(r"What is number (\d+)\?", prompt)
        number = int(found[1]) if found else -1
        if number in self.server.held:
            self.server.let_go.wait()
        content = answer_to(prompt) if found else _check(body, self.server.wrong)
        if number in self.server.garbled:
            content |= {"reasons": []}
        with self.server.lock:
            self.server.asked.append(number)
        choice = {"message": {"content": json.dumps(content)}, "finish_reason": "stop"}
        self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})


def _check(body: dict[str, Any], wrong: bool) -> dict[str, str]:
    """Judge a built-in passage: rightly where it is a positive, which has a title, or else all unmet."""
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    met = not wrong and body["messages"][-1]["content"].startswith(POSITIVES)
    return dict.fromkeys(names, "yes" if met else "no")


def _positives() -> tuple[str, ...]:
    from causalneg.generation.capability import built_in
    from causalneg.records import full_text

    return tuple(f"<passage>\n{full_text(row.title, row.text)}" for row in built_in())


POSITIVES = _positives()


@contextmanager
def judging() -> Iterator[Judge]:
    """Have such a server."""
    server = Judge()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.let_go.set()
        server.shutdown()
        server.server_close()
