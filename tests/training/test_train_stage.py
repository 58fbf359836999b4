"""The train stage on a workspace."""

import io
import json

import numpy as np
import pytest
import yaml

from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.training.launcher import _note_start
from causalneg.training.run import run
from causalneg.workspace import HELD_OUT, Workspace


def _config(workspace: Workspace, **train: object) -> Config:
    fast = {
        "epochs": 2,
        "batch_size": 4,
        "encoder.query_length": 32,
        "encoder.passage_length": 32,
        "precision": "fp32",
        "threads": 1,
        "log_every": 1,
    }
    flags = {f"train.{name}": value for name, value in (fast | train).items()}
    return load_config(None, {"workspace": workspace.root_url, **flags})


def test_generated_negatives_need_generate(workspace: Workspace) -> None:
    with pytest.raises(UserError, match=r"causalneg generate.*train\.generated_per_query"):
        run(_config(workspace), workspace, Reporter(io.StringIO()))


def test_no_negative_at_all_is_the_users_to_mend(workspace: Workspace) -> None:
    workspace.remove("mined")
    with pytest.raises(UserError, match="No train pair of"):
        run(_config(workspace, generated_per_query=0), workspace, Reporter(io.StringIO()))


def test_workers_that_die_again_and_again_at_one_step_are_given_up(workspace: Workspace) -> None:
    for step in (0, 0, 5, 0, 5, 5):
        (workspace.local_folder("checkpoints") / f"step-{step:08d}").mkdir(parents=True, exist_ok=True)
        if step == 0:
            workspace.remove("checkpoints/step-00000005")
        _note_start(workspace)
    with pytest.raises(UserError, match="died 3 times after step 5"):
        _note_start(workspace)


def _starts(workspace: Workspace) -> list[int]:
    """From which steps Ray started workers in a training that is not whole."""
    return list(json.loads(workspace.read_bytes("building/train/checkpoints/starts.json")))


@pytest.mark.ray
def test_two_workers_train_the_same_encoder_as_one(generated_workspace: Workspace) -> None:
    from sentence_transformers import SentenceTransformer

    from causalneg.runtime import ray_session

    workspace = generated_workspace
    texts = ["What of rivers?", "A passage on kings", "birds and bridges"]

    def vectors() -> np.ndarray:
        model = SentenceTransformer(str(workspace.local_folder("model")), device="cpu", local_files_only=True)
        return np.asarray(model.encode(texts, normalize_embeddings=True))

    with ray_session():
        with pytest.raises(UserError, match=r"train\.workers = 64"):
            run(_config(workspace, workers=64), workspace, Reporter(io.StringIO()))

        # What a worker finds is said in a sentence, too, and stops all of them.
        wrong = {"encoder.lora_rank": 2, "encoder.lora_targets": ["no_such_layer"], "workers": 2}
        with pytest.raises(UserError, match="no_such_layer"):
            run(_config(workspace, **wrong), workspace, Reporter(io.StringIO()))
        assert _starts(workspace) == [0], "Ray started no workers anew"

        broken = {"learning_rate": 1e30, "warmup": 0.0, "workers": 2}
        with pytest.raises(UserError, match=r"NaN or infinite at step 2: lower train\.learning_rate"):
            run(_config(workspace, **broken), workspace, Reporter(io.StringIO()))
        assert _starts(workspace) == [0]

        output = io.StringIO()
        one = run(_config(workspace), workspace, Reporter(output))
        of_one = vectors()
        assert "train: done" in output.getvalue()
        assert (one.counts.rows_in, one.counts.accepted, one.counts.rejected) == (7, 6, 1)
        assert (one.details["mined"], one.details["generated"], one.details["steps"]) == (18, 9, 4)
        assert one.details["precision"] == "fp32"
        assert not workspace.exists("building")
        assert one.details["dev"] == {}  # of six queries none are held out
        assert HELD_OUT in one.files
        assert workspace.read_table(HELD_OUT).to_pydict() == {"query_id": []}
        page = workspace.read_bytes("training/report.html").decode()
        assert "<svg" in page
        card = workspace.read_bytes("model/README.md").decode()
        assert "18" in card
        assert yaml.safe_load(workspace.read_bytes("model/causalneg.yaml"))["train"]["loss"]["entropy_weight"] == 0.05

        # The number of workers does not determine the result, so the stage is done.
        again = run(_config(workspace, workers=2), workspace, Reporter(io.StringIO()))
        assert again == one

        workspace.remove("model")
        two = run(_config(workspace, workers=2), workspace, Reporter(io.StringIO()))
        assert two.details["workers"] == 2
        np.testing.assert_allclose(vectors(), of_one, atol=1e-4)
        for a, b in zip(one.details["epochs"], two.details["epochs"], strict=True):
            assert a == pytest.approx(b, rel=1e-4)

        # With fewer machines than asked for it goes on with those that are there.
        workspace.remove("model")
        some = run(_config(workspace, workers=64, min_workers=1), workspace, Reporter(io.StringIO()))
        assert 1 <= some.details["workers"] < 64
        np.testing.assert_allclose(vectors(), of_one, atol=1e-4)
