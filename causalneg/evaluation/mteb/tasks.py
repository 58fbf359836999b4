"""Finds the tasks that a user names: MTEB's own, its benchmarks, and those made of imported data."""

import re
from collections.abc import Mapping, Sequence

import mteb
from mteb.abstasks import AbsTask, AbsTaskRetrieval

from causalneg.errors import UserError
from causalneg.evaluation.mteb.local import workspace_task
from causalneg.names import nearest
from causalneg.workspace import Workspace

OWN = "workspace"
_NAME = re.compile(r"\w[\w.-]*")
# What the published evaluation of CausalNeg names and MTEB does not have, or has in another language.
_HINTS = {
    "triviaqa": "MTEB has none; import TriviaQA's own files (`causalneg import --source triviaqa-rc --workspace "
    "trivia`) and name that workspace: --local '{TriviaQA: trivia}'",
    "msmarcoretrieval": "the English MS MARCO is MSMARCO",
    "mmarcoretrieval": "it is Chinese; the English MS MARCO is MSMARCO",
    "hotpotqaretrieval": "it is HotpotQA",
    "nqretrieval": "it is NQ",
}


def _known() -> list[str]:
    everything = mteb.get_tasks(exclude_superseded=False, exclude_private=False)
    return [task.metadata.name for task in everything] + [benchmark.name for benchmark in mteb.get_benchmarks()]


def _of_mteb(name: str) -> list[AbsTask]:
    """Return MTEB's task of that name, or the tasks of its benchmark.

    Raises:
        UserError: there is neither; it names the nearest.
    """
    try:
        return [mteb.get_task(name)]
    except KeyError:
        pass
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError as error:
        hint = _HINTS.get(name.lower())
        hint = f": {hint}." if hint else nearest(name, [*_known(), OWN]) or "."
        raise UserError(f"mteb.tasks: there is no task or benchmark {name!r}{hint}") from error


def _checked(task: AbsTask) -> AbsTaskRetrieval:
    """Return a task if it is about retrieving texts.

    Raises:
        UserError: it is not.
    """
    name, metadata = task.metadata.name, task.metadata
    if not isinstance(task, AbsTaskRetrieval) or list(metadata.modalities) != ["text"]:
        raise UserError(f"mteb.tasks: {name} is no task of retrieving texts but of {metadata.type}; leave it out.")
    return task


def _of_workspace(name: str, workspace: Workspace, split: str | None) -> AbsTaskRetrieval:
    if not _NAME.fullmatch(name):
        raise UserError(f"mteb.local: {name!r} is no name for a task; take letters, digits, dots and hyphens.")
    try:
        mteb.get_task(name)
    except KeyError:
        return workspace_task(name, workspace, split)
    raise UserError(f"mteb.local: {name} is one of MTEB's own tasks; give yours another name.")


def find_tasks(
    names: Sequence[str], local: Mapping[str, str], workspace: Workspace, split: str | None
) -> list[AbsTaskRetrieval]:
    """Return the tasks of these names, each once, in the order of the names.

    Args:
        names: of tasks and benchmarks; `workspace` is the data of the workspace at hand.
        local: workspace of each task that is made of imported data.
        workspace: the workspace at hand.
        split: of the tasks made of imported data; unset, `test`, or `dev` where there is no `test`.

    Raises:
        UserError: there is no such task, or it is not about retrieving texts.
    """
    if unused := [name for name in local if name not in names]:
        raise UserError(f"mteb.local: {unused[0]!r} is not among mteb.tasks{nearest(unused[0], list(names)) or '.'}")
    found: dict[str, AbsTaskRetrieval] = {}
    for name in names:
        if name in local:
            tasks: list[AbsTask] = [_of_workspace(name, Workspace(local[name]), split)]
        else:
            tasks = [workspace_task(OWN, workspace, split)] if name == OWN else _of_mteb(name)
        for task in tasks:
            found.setdefault(task.metadata.name, _checked(task))
    if not found:
        raise UserError("mteb.tasks names no task; give at least one, such as NanoBEIR.")
    return list(found.values())
