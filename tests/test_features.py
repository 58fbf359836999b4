"""Features of passages: computed once per text, handed out in the order of the corpus."""

import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.features import CorpusFeatures, corpus_features
from causalneg.runtime import ray_session
from causalneg.sources.run import run as import_data
from causalneg.workspace import Workspace


def lengths(log: Path | None, texts: list[str]) -> np.ndarray:
    """A feature that tells which text it is of: its length and its first character."""
    if log:
        with log.open("a") as file:
            file.writelines(t + "\n" for t in texts)
    return np.array([[len(t), ord(t[0])] for t in texts], np.float32)


class Make:
    """Builds the feature's function, in this process or in a worker's."""

    def __init__(self, log: Path | None = None) -> None:
        self.log = log

    def __call__(self) -> Callable[[list[str]], np.ndarray]:
        return partial(lengths, self.log)


def imported(root: Path, texts: list[str]) -> Workspace:
    workspace = Workspace(str(root / "ws"))
    source = root / "data"
    (source / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(texts)]
    (source / "corpus.jsonl").write_text("\n".join(rows))
    (source / "queries.jsonl").write_text('{"_id": "q", "text": "?"}')
    (source / "qrels" / "train.tsv").write_text("q\t0\t1\n")
    import_data(load_config(flags={"import.source": str(source)}), workspace, Reporter(io.StringIO()))
    return workspace


def features(workspace: Workspace, log: Path | None = None, only: np.ndarray | None = None) -> CorpusFeatures:
    return corpus_features(workspace, "features/test", Make(log), Reporter(io.StringIO()), "counting", only)


TEXTS = [chr(97 + n % 26) * (n + 1) for n in range(30)] + ["again", "again"]


def test_rows_are_in_the_order_of_the_corpus_and_computed_once(tmp_path: Path) -> None:
    workspace, log = imported(tmp_path, TEXTS), tmp_path / "log"
    found = features(workspace, log)
    np.testing.assert_array_equal(np.concatenate(list(found)), lengths(None, TEXTS))
    np.testing.assert_array_equal(found.take(np.array([31, 3, 3, 0])), lengths(None, [TEXTS[n] for n in (31, 3, 3, 0)]))
    assert sorted(log.read_text().split()) == sorted(set(TEXTS))
    # Another corpus with some of the same texts, in another order: only the new ones are computed.
    log.unlink()
    changed = ["new", *TEXTS[10:][::-1]]
    workspace = imported(tmp_path, changed)
    np.testing.assert_array_equal(np.concatenate(list(features(workspace, log))), lengths(None, changed))
    assert log.read_text().split() == ["new"]


def test_only_what_is_asked_for_is_computed(tmp_path: Path) -> None:
    workspace, log = imported(tmp_path, TEXTS), tmp_path / "log"
    found = features(workspace, log, np.array([4, 2, 4]))
    assert sorted(log.read_text().split()) == sorted([TEXTS[2], TEXTS[4]])
    np.testing.assert_array_equal(found.take(np.array([4, 2])), lengths(None, [TEXTS[4], TEXTS[2]]))


def test_a_block_whose_keys_were_not_written_is_computed_again(tmp_path: Path) -> None:
    workspace, log = imported(tmp_path, TEXTS), tmp_path / "log"
    features(workspace)
    (keys,) = (Path(workspace.root) / "features/test").glob("*.keys.npy")
    keys.unlink()
    np.testing.assert_array_equal(np.concatenate(list(features(workspace, log))), lengths(None, TEXTS))
    assert len(log.read_text().split()) == len(set(TEXTS))


@pytest.mark.ray
def test_workers_compute_the_same(tmp_path: Path) -> None:
    workspace = imported(tmp_path, TEXTS)
    with ray_session():
        found = corpus_features(
            workspace,
            "features/test",
            lambda: (
                lambda texts: np.array([[len(t), ord(t[0])] for t in texts], np.float32)
            ),  # workers lack this module
            Reporter(io.StringIO()),
            "counting",
            workers=2,
        )
    np.testing.assert_array_equal(np.concatenate(list(found)), lengths(None, TEXTS))


@pytest.mark.ray
def test_a_single_worker_of_this_machine_is_this_process(tmp_path: Path) -> None:
    """It would only load everything once more; on a cluster it may have what this process lacks."""
    workspace = imported(tmp_path, TEXTS)
    processes: list[int] = []

    def make() -> Callable[[list[str]], np.ndarray]:
        processes.append(os.getpid())
        return partial(lengths, None)

    with ray_session():
        corpus_features(workspace, "features/test", make, Reporter(io.StringIO()), "counting")
    assert processes == [os.getpid()]
