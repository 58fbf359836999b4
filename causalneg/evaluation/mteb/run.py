"""The command `mteb`: an encoder on retrieval tasks of MTEB, one result per model and task, each paid for once."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.models import ResolvedModel, resolve
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    from mteb import TaskResult
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.models import ModelMeta

    from causalneg.evaluation.mteb.encoder import MtebEncoder

FOLDER = "mteb"
# Column of the table: MTEB's name of the measure.
_MEASURES = {"nDCG@10": "ndcg_at_10", "RR@10": "mrr_at_10", "R@10": "recall_at_10", "R@100": "recall_at_100"}


def _model(config: Config, workspace: Workspace) -> ResolvedModel:
    """Return the encoder that the settings name; unless they do, the trained one, or where there is none, `base`.

    `base` is the model that training starts from, with the prompts that it puts into it, as for `evaluate`.
    """
    from causalneg.evaluation.run import started_from
    from causalneg.starting import starting

    wanted = config.mteb.model
    trained = workspace.manifest("train") is not None
    if wanted == "trained" or (wanted is None and trained):
        workspace.require("train")
        return resolve(str(workspace.local_folder("model")))
    if wanted is not None and wanted != "base":
        return resolve(wanted)
    return started_from(workspace) if trained else starting(resolve(config.encoder), config.train.encoder)


def result_file(task: str, meta: "ModelMeta") -> str:
    """Return where a result lies in the workspace; MTEB's `ResultCache` of the folder `mteb` finds it there."""
    import mteb

    root = Path("/")
    path = mteb.ResultCache(root).get_task_result_path(task, meta)
    return f"{FOLDER}/{path.relative_to(root).as_posix()}"


def _stored(workspace: Workspace, task: "AbsTaskRetrieval", meta: "ModelMeta") -> "TaskResult | None":
    """Return a task's result for this very model and data, if there is one.

    Raises:
        UserError: the file is damaged.
    """
    import mteb
    from pydantic import ValidationError

    file = result_file(task.metadata.name, meta)
    if not workspace.exists(file):
        return None
    try:
        result = mteb.TaskResult.model_validate_json(workspace.read_bytes(file))
    except ValidationError as error:
        raise UserError(f"{workspace.path(file)} is damaged; remove it, and the task is evaluated again.") from error
    whole = not result.get_missing_evaluations(task)
    return result if whole and result.dataset_revision == task.metadata.revision else None


def _store(workspace: Workspace, result: "TaskResult", meta: "ModelMeta") -> None:
    file = result_file(result.task_name, meta)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        result.to_disk(path)
        content = path.read_bytes()
    described = json.dumps(meta.to_dict(), default=str, indent=4).encode()
    workspace.write_bytes(str(Path(file).with_name("model_meta.json")), described)
    workspace.write_bytes(file, content)


def _load(task: "AbsTaskRetrieval") -> int:
    """Load a task's data and return the number of its texts.

    Raises:
        UserError: MTEB cannot get them.
    """
    try:
        task.load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    except UserError:
        raise
    except Exception as error:  # downloads and the loaders of many hands: anything may be raised
        message = " ".join(str(error).split())[:200]
        raise UserError(
            f"MTEB cannot get the data of {task.metadata.name}, {task.metadata.dataset['path']} on the Hugging Face "
            f"hub ({type(error).__name__}: {message}); it needs a connection, or the hub's cache (HF_HOME) with them."
        ) from error
    subsets = (task.dataset[subset][split] for subset in task.hf_subsets for split in task.eval_splits)
    return sum(len(data["queries"]) + len(data["corpus"]) for data in subsets)


def _evaluate(encoder: "MtebEncoder", task: "AbsTaskRetrieval", report: Reporter) -> "TaskResult":
    import mteb

    name = task.metadata.name
    with report.meter(f"mteb: {name}", _load(task), "texts") as meter:
        encoder.advance = meter.advance
        results = mteb.evaluate(
            encoder,
            task,
            cache=None,
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"show_progress_bar": False},
        )
    task.unload_data()
    return results.task_results[0]


def figures(result: "TaskResult") -> list[float]:
    """Return a result's measures in the order of the table, each the mean over its splits and subsets."""
    scores = [subset for split in result.scores.values() for subset in split]
    return [sum(s[measure] for s in scores) / len(scores) for measure in _MEASURES.values()]


def table_rows(results: Sequence["TaskResult"]) -> list[list[str]]:
    """Return the table's rows, a task each, and their mean where there are several."""
    rows = [(result.task_name, figures(result)) for result in results]
    if len(rows) > 1:
        columns = zip(*(values for _, values in rows), strict=True)
        rows.append((f"mean of {len(rows)}", [sum(column) / len(rows) for column in columns]))
    return [[name, *(f"{value:.4f}" for value in values)] for name, values in rows]


def run(config: Config, workspace: Workspace, report: Reporter) -> list["TaskResult"]:
    """Evaluate an encoder on the tasks, print a table, and return the results; those that are there stay.

    Raises:
        UserError: the package `mteb`, a task, its data or the model is missing.
    """
    if importlib.util.find_spec("mteb") is None:
        raise UserError("`causalneg mteb` needs the package mteb; install it with `pip install 'causalneg[mteb]'`.")
    from causalneg.evaluation.mteb.encoder import MtebEncoder
    from causalneg.evaluation.mteb.tasks import find_tasks

    settings = config.mteb
    tasks = find_tasks(settings.tasks, settings.local, workspace, settings.split)
    model = _model(config, workspace)
    encoder = MtebEncoder(model, config.encode)
    meta = encoder.mteb_model_meta
    results = []
    for task in tasks:
        result = _stored(workspace, task, meta)
        if result is None:
            result = _evaluate(encoder, task, report)
            _store(workspace, result, meta)
            report.line(f"mteb: {task.metadata.name} took {result.evaluation_time:.0f} s")
        results.append(result)
    report.table(f"{model.name} ({meta.revision})", ["task", *_MEASURES], table_rows(results))
    report.line(f"mteb: {workspace.path(str(Path(result_file('', meta)).parent))}")
    return results
