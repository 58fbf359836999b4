"""Do generated negatives help? Arms at equal numbers of negatives and steps, against mining only.

    python -m benchmarks.quality --name squad --config configs/quality-squad.yaml --source squad.zip \
        --written squad-negatives.zip --contrast vitaminc.zip --workspace DIR
    python -m benchmarks.quality --name scifact --config configs/quality-scifact.yaml --source scifact.zip …
    python -m benchmarks.quality … --set train.gpu=true encode.gpus=1

All arms train on the same pairs in the same order with as many negatives for each: mined ones only, or some of them
replaced by naive or counterfactual ones. Where a pair lacks a generated negative, a mined one takes its place. Pairs
that no arm trains on are held out: their counterfactuals are planted, and the diagnostics are theirs. Each trial is
kept in the workspace, so that an interrupted run goes on. Naive negatives come from a file, or from the same LLM when
simply asked for them. Tests are paired over queries, on values averaged over seeds, and corrected for the arms.
With `--start`, the arms start from an encoder that was first trained on all other pairs, as that config says.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, publish
from benchmarks.experiment.arms import ARMS, COUNTERFACTUAL, GROUPS, MINED, NAIVE, Arm, numbers_of
from benchmarks.experiment.examples import Examples, make_examples
from benchmarks.experiment.kinds import KINDS, describe, kind_row
from benchmarks.experiment.measures import held_texts
from benchmarks.experiment.negatives import (
    Negatives,
    listed_negatives,
    listed_queries,
    naive_negatives,
    stage_negatives,
    written_negatives,
)
from benchmarks.experiment.start import trained_start
from benchmarks.experiment.subset import with_train_pairs
from benchmarks.experiment.table import PAIRS, PLANTED, draw, printed, rows_of, summarise
from benchmarks.experiment.trial import BASE, Lab, Trial, base_trial, run_trial
from causalneg.config import Config, flag_value, load_config
from causalneg.console import Reporter, own_terminal
from causalneg.errors import UserError
from causalneg.evaluation.contrast import ContrastPair, cluster_numbers, read_pairs
from causalneg.generation.run import run as generate
from causalneg.mining.run import run as mine
from causalneg.runtime import ray_session
from causalneg.sources.run import run as import_data
from causalneg.workspace import Workspace

_HELD_OUT, _HELD_MINED = 1 / 6, 15
_CONTRAST_PAIRS = 3000
_QUICK = {"import.max_train_queries": 12, "train.epochs": 1, "mine.search.depth": 20}
_BEST = "mined + counterfactual + entropy"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="sample", help="name of the result")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), help="all settings but the arms'")
    parser.add_argument("--source", help="data set, as for `causalneg import`; the config's when unset")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings in place of the config's")
    parser.add_argument("--start", type=Path, help="config of a training before the arms', on the pairs not given them")
    parser.add_argument("--written", type=Path, help="file of written negatives, both kinds; otherwise the LLM's")
    parser.add_argument("--naive", type=Path, help="file of naive negatives; otherwise the LLM's")
    parser.add_argument("--contrast", help="file of a contrast set, as for evaluate.contrast")
    parser.add_argument("--contrast-pairs", type=int, default=_CONTRAST_PAIRS, help="pairs of it that are measured")
    parser.add_argument("--arms", nargs="+", default=["main"], help=f"{', '.join(GROUPS)}, or: {', '.join(ARMS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workspace", help="kept, so that the run can be resumed; a temporary one when unset")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few queries, two arms, one seed: does it run")
    return parser.parse_args()


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Return the settings that are given as name=value, read as the commands' flags are."""
    if odd := [pair for pair in pairs if "=" not in pair]:
        raise SystemExit(f"--set takes name=value, and not {odd[0]!r}")
    try:
        return {name: flag_value(name, value) for name, value in (pair.split("=", 1) for pair in pairs)}
    except UserError as error:
        raise SystemExit(str(error)) from error


def _chosen(names: list[str]) -> list[Arm]:
    """Return the arms by their names or groups, mining only first."""
    found = {MINED: ARMS[MINED]}
    for name in names:
        if name not in GROUPS and name not in ARMS:
            raise SystemExit(f"there is no arm {name!r}; there are {', '.join([*GROUPS, *ARMS])}")
        found |= {arm.name: arm for arm in GROUPS.get(name, ()) or (ARMS[name],)}
    return list(found.values())


def _kinds(arguments: argparse.Namespace, config: Config, base: Workspace, report: Reporter) -> dict[str, Negatives]:
    """Return the generated negatives by kind, made where they are not there yet."""
    if arguments.written:
        return {kind: written_negatives(arguments.written, kind, base) for kind in (COUNTERFACTUAL, NAIVE)}
    generate(config, base, report)
    found = {COUNTERFACTUAL: stage_negatives(base)}
    if arguments.quick:  # one start of the engine is enough
        return found
    if arguments.naive:
        return found | {NAIVE: listed_negatives(arguments.naive, base)}
    number = config.train.generated_per_query
    return found | {NAIVE: naive_negatives(config, base, found[COUNTERFACTUAL], number)}


def _contrast(arguments: argparse.Namespace) -> list[ContrastPair]:
    """Return pairs of the contrast set, every so many-th of the file."""
    if not arguments.contrast:
        return []
    pairs = read_pairs(arguments.contrast)
    step = max(1, len(pairs) // arguments.contrast_pairs)
    return pairs[::step][: arguments.contrast_pairs]


def _imported(arguments: argparse.Namespace, flags: dict[str, Any], folder: Path, report: Reporter) -> Workspace:
    """Import; of the train queries those that have naive negatives, where these come from a file."""
    config = load_config(arguments.config, flags)
    if not arguments.naive:
        base = Workspace(str(folder / "base"))
        import_data(config, base, report)
        return base
    every = Workspace(str(folder / "imported"))
    import_data(load_config(arguments.config, flags | {"import.max_train_queries": None}), every, report)
    listed, positives = listed_queries(arguments.naive), every.positives("train")
    queries = [query for query in positives if query in listed][: config.import_.max_train_queries]
    chosen = {(query, passage) for query in queries for passage in positives[query]}
    return with_train_pairs(every, folder / "base", chosen, {"import": every.require("import").digest})


def _lab(arguments: argparse.Namespace, flags: dict[str, Any], folder: Path, report: Reporter) -> Lab:
    config = load_config(arguments.config, flags)
    base = _imported(arguments, flags, folder, report)
    mine(config, base, report)
    kinds = _kinds(arguments, config, base, report)
    wanted = config.train.mined_per_query + config.train.generated_per_query
    examples: Examples = make_examples(base, config, kinds, wanted, _HELD_OUT)
    report.line(f"{len(examples.train)} pairs to train on, {len(examples.held_out)} held out")
    held = held_texts(base, examples.held_out, _HELD_MINED)
    if arguments.start:
        mined_only = load_config(arguments.start, flags | {"train.generated_per_query": 0})
        start = trained_start(mined_only, base, examples, folder / "start", report)
        flags = flags | {"encoder": str(start)}
    return Lab(folder, base, arguments.config, flags, examples, held, _contrast(arguments))


def _generation(base: Workspace) -> dict[str, float]:
    """Return what generating the counterfactual negatives took; nothing where they come from a file."""
    manifest = base.manifest("generate")
    return {"seconds": manifest.seconds, **manifest.tokens} if manifest else {}


def _trials(lab: Lab, arms: list[Arm], seeds: list[int], report: Reporter) -> dict[str, list[Trial]]:
    trials = {BASE: [base_trial(lab, report)]}
    for number, seed in enumerate(seeds):
        for arm in arms:
            report.line(f"seed {seed} ({number + 1} of {len(seeds)}), {arm.name}", style="bold")
            trials.setdefault(arm.name, []).append(run_trial(lab, arm, seed, report))
    return trials


def _publish(
    arguments: argparse.Namespace, lab: Lab, trials: dict[str, list[Trial]], seeds: list[int], report: Reporter
) -> None:
    """Print the tables, and write the result and its picture."""
    config = lab.config(0)
    total, _ = numbers_of(ARMS[MINED], config)
    kinds = describe(lab.base, config, lab.examples.train, total)
    summaries = summarise(trials, cluster_numbers(lab.contrast))
    first = config.evaluate.measures[0]
    shown = [first, *([PAIRS] if lab.contrast else []), PLANTED]
    name, title = f"quality-{arguments.name}", f"{arguments.name}, {_counted(len(seeds), 'seed')}"
    report.table("the negatives", KINDS, [kind_row(kind, of) for kind, of in kinds.items()])
    header, table = printed(summaries, shown)
    report.table(f"{title}, against {MINED}", header, table)
    details = {
        "seeds": seeds,
        "trials_on": sorted({trial.machine for own in trials.values() for trial in own}),
        "train_pairs": len(lab.examples.train),
        "held_out_pairs": len(lab.examples.held_out),
        "contrast_pairs": len(lab.contrast),
        "negatives": {kind: of.model_dump() for kind, of in kinds.items()},
        "generation": _generation(lab.base),
        "config": config.model_dump(mode="json", include={"encoder", "llm", "train"}),
        "arms": [summary.model_dump() for summary in summaries],
    }
    publish(name, rows_of(summaries, {(_BEST, first): 1.0}), report, arguments.results, details)
    draw(summaries, shown, f"{title}: difference to {MINED}", arguments.results / f"{name}.svg")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def main() -> None:
    """Run the trials that are not there yet and publish the table."""
    arguments = _arguments()
    folder = Path(arguments.workspace or tempfile.mkdtemp(prefix="causalneg-quality-")).absolute()
    flags = {"train.dev.share": 0.0} | (_QUICK if arguments.quick else {}) | _settings(arguments.set)
    if arguments.source:
        flags["import.source"] = arguments.source
    arms, seeds = _chosen(arguments.arms), arguments.seeds
    if arguments.quick:
        arms, seeds = [ARMS[MINED], ARMS[_BEST]], seeds[:1]
    with own_terminal(folder / "logs" / "quality.log") as report, ray_session():
        lab = _lab(arguments, flags, folder, report)
        _publish(arguments, lab, _trials(lab, arms, seeds, report), seeds, report)


if __name__ == "__main__":
    main()
