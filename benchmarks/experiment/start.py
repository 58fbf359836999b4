"""An encoder that the arms start from, trained on the pairs that none of them is given."""

from pathlib import Path

from benchmarks.experiment.examples import Examples
from benchmarks.experiment.subset import with_train_pairs
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.files import link_files
from causalneg.training.run import run as train
from causalneg.workspace import Workspace


def start_workspace(config: Config, base: Workspace, examples: Examples, folder: Path) -> Workspace:
    """Make a workspace, imported and mined, whose train pairs are those of all queries that no arm is given."""
    given = {e.query_id for part in examples for e in part}
    positives = base.positives("train").items()
    chosen = {(query, passage) for query, own in positives if query not in given for passage in own}
    mined = base.require("mine")
    workspace = with_train_pairs(
        base, folder, chosen, {"import": config.import_, "base": base.require("import").digest}
    )
    stage = workspace.begin("mine", {"mine": mined.digest}, ["import"])
    if not stage.done:
        link_files(base.local_folder("mined"), stage.workspace.local_folder("mined"))
        stage.finish(mined.counts)
    return workspace


def trained_start(config: Config, base: Workspace, examples: Examples, folder: Path, report: Reporter) -> Path:
    """Train on the mined negatives of those pairs, as the config says; return the encoder's folder."""
    workspace = start_workspace(config, base, examples, folder)
    train(config, workspace, report)
    return workspace.local_folder("model")
