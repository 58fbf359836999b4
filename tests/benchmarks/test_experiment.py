"""The comparison of arms is fair: the same pairs, as many negatives for each, and none that is held out."""

from pathlib import Path

import numpy as np
import pytest
from row_samples import negative

from benchmarks.experiment.arms import ARMS, COUNTERFACTUAL, MINED, NAIVE, make_workspace, negatives_of
from benchmarks.experiment.examples import Example, Examples, make_examples
from benchmarks.experiment.given import given_negative, json_rows
from benchmarks.experiment.kinds import KINDS, describe, kind_row
from benchmarks.experiment.measures import Measured, held_texts
from benchmarks.experiment.negatives import Negatives, written_negatives
from benchmarks.experiment.start import start_workspace
from benchmarks.experiment.subset import with_train_pairs
from benchmarks.experiment.table import PAIRS, PLANTED, printed, rows_of, summarise
from benchmarks.experiment.trial import BASE, Cost, Lab, Trial, base_trial
from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.examples import read_selection
from causalneg.mining.run import run as mine
from causalneg.records import Negative, Passage, Qrel, Source
from causalneg.sources.run import run as import_data
from causalneg.training.diagnostics.figures import Figures
from causalneg.workspace import Workspace

_FLAGS = {
    "import.max_train_queries": 12,
    "mine.search.sources": ["bm25"],
    "train.mined_per_query": 2,
    "train.generated_per_query": 2,
}


def _negative(query: str, positive: str, number: int) -> Negative:
    return negative(query, positive, f"A passage about {query}, the {number}th that was written.")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(flags=_FLAGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Workspace:
    workspace = Workspace(str(tmp_path_factory.mktemp("base")))
    import_data(config, workspace, Reporter())
    mine(config, workspace, Reporter())
    return workspace


@pytest.fixture(scope="module")
def kinds(base: Workspace) -> dict[str, Negatives]:
    """As many counterfactual negatives for a pair as its place, 0 to 3; naive ones for all but one pair."""
    pairs = [(q.query_id, q.passage_id) for q in base.read_rows("qrels", Qrel) if q.split == "train"]
    counterfactual = {pair: [_negative(*pair, n) for n in range(at % 4)] for at, pair in enumerate(pairs) if at % 4}
    naive = {pair: [_negative(*pair, 9), _negative(*pair, 10)] for pair in pairs[:-1]}
    return {COUNTERFACTUAL: counterfactual, NAIVE: naive}


@pytest.fixture(scope="module")
def examples(base: Workspace, config: Config, kinds: dict[str, Negatives]) -> Examples:
    return make_examples(base, config, kinds, wanted=4, held_out_share=0.25)


def test_every_example_has_negatives_of_each_kind_and_enough_mined_ones(examples: Examples) -> None:
    every = examples.train + examples.held_out
    assert len(every) > 4
    assert len({e.query_id for e in every}) == len(every)
    assert all(e.generated[COUNTERFACTUAL] and e.generated[NAIVE] and len(e.mined) >= 4 for e in every)
    assert len(examples.held_out) == round(len(every) / 4)


def test_what_is_held_out_does_not_depend_on_the_naive_negatives(
    base: Workspace, config: Config, kinds: dict[str, Negatives], examples: Examples
) -> None:
    alone = make_examples(base, config, {COUNTERFACTUAL: kinds[COUNTERFACTUAL]}, wanted=4, held_out_share=0.25)
    both = {e.query_id for e in examples.train}
    assert len(both & {e.query_id for e in alone.held_out}) <= 1  # there may be a pair more to draw from


@pytest.mark.parametrize("name", list(ARMS))
def test_all_arms_have_as_many_negatives_for_a_pair(name: str, examples: Examples, config: Config) -> None:
    for example in examples.train:
        mined, generated = negatives_of(ARMS[name], example, config)
        assert len(mined) + len(generated) == 4
        assert len(generated) <= {MINED: 0, "3 generated": 3, "1 generated": 1}.get(name, 2)
        assert mined == list(example.mined[: len(mined)])


def test_an_arm_trains_on_its_examples_alone(
    base: Workspace, config: Config, examples: Examples, tmp_path: Path
) -> None:
    arm = ARMS["mined + counterfactual"]
    workspace = make_workspace(base, tmp_path / "arm", arm, examples.train, config)
    rows = read_selection(workspace, 4, 2)
    assert [(r.query_id, r.positive_id) for r in rows.rows] == sorted(
        [(e.query_id, e.positive_id) for e in examples.train],
        key=[(q.query_id, q.passage_id) for q in base.read_rows("qrels", Qrel)].index,
    )
    assert rows.count(Source.MINED) + rows.count(Source.GENERATED) == 4 * len(examples.train)
    for row in rows.rows:
        (example,) = (e for e in examples.train if e.query_id == row.query_id)
        mined, generated = negatives_of(arm, example, config)
        assert row.mined == tuple(m.passage_id for m in mined)
        assert row.generated == tuple(n.id for n in generated)
    known = {(q.query_id, q.passage_id) for q in workspace.read_rows("qrels", Qrel)}
    assert known == {(q.query_id, q.passage_id) for q in base.read_rows("qrels", Qrel)}


def test_what_arms_start_from_is_trained_on_other_pairs_with_their_mined_negatives(
    base: Workspace, config: Config, kinds: dict[str, Negatives], tmp_path: Path
) -> None:
    some = {kind: dict(list(negatives.items())[:6]) for kind, negatives in kinds.items()}
    given = make_examples(base, config, some, wanted=2, held_out_share=0.25)
    queries = {e.query_id for part in given for e in part}
    rows = read_selection(start_workspace(config, base, given, tmp_path / "start"), 4, 0).rows
    assert queries
    assert [r for r in read_selection(base, 4, 0).rows if r.query_id not in queries] == rows
    assert not queries & {r.query_id for r in rows}


def test_a_part_of_the_train_pairs_is_chosen_and_no_judgement_is_lost(base: Workspace, tmp_path: Path) -> None:
    pairs = [(query, passage) for query, own in base.positives("train").items() for passage in own]
    part = with_train_pairs(base, tmp_path / "part", set(pairs[:3]), {"why": "a test"})
    assert [(query, passage) for query, own in part.positives("train").items() for passage in own] == pairs[:3]
    known, every = ([(q.query_id, q.passage_id) for q in w.read_rows("qrels", Qrel)] for w in (part, base))
    assert known == every
    assert part.column("corpus", "id") == base.column("corpus", "id")


def test_the_rules_of_choice_go_by_the_base_encoders_scores(examples: Examples, config: Config) -> None:
    example = max(examples.train, key=lambda e: len(e.generated[COUNTERFACTUAL]))
    scores = np.array([0.3, 0.6, 0.99])[: len(example.generated[COUNTERFACTUAL])]
    made = example._replace(
        generated={
            COUNTERFACTUAL: tuple(
                n.model_copy(update={"scores": {"cosine": float(s), "positive_cosine": 1.0}})
                for n, s in zip(example.generated[COUNTERFACTUAL], scores, strict=True)
            )
        }
    )

    def taken(name: str, example: Example) -> list[float]:
        return [n.scores["cosine"] for n in negatives_of(ARMS[name], example, config)[1]]

    assert taken("easiest", made) == [0.3, 0.6]
    assert taken("hardest", made) == [0.99, 0.6]
    assert taken("hardness band", made) == [0.6, 0.3]


def test_kinds_are_described_by_hardness_and_by_how_their_source_shows(
    base: Workspace, config: Config, examples: Examples
) -> None:
    def with_cosine(example: Example) -> Example:
        hard = {"cosine": 0.4, "positive_cosine": 0.5}, {"cosine": 0.6, "positive_cosine": 0.5}
        naive = tuple(
            n.model_copy(update={"scores": scores}) for n, scores in zip(example.generated[NAIVE], hard, strict=True)
        )
        return example._replace(generated={NAIVE: naive})

    every = [with_cosine(e) for e in examples.train]
    kinds = describe(base, config, every, 3)
    assert list(kinds) == ["mined", NAIVE]
    assert kinds["mined"].negatives == 3 * len(every)
    assert kinds["mined"].source is None
    assert kinds[NAIVE].negatives == 2 * len(every)
    assert kinds[NAIVE].hardness == pytest.approx([0.8, 1.0, 1.2])
    assert (kinds[NAIVE].above_band, kinds[NAIVE].above_positive) == (0.5, 0.5)
    source = kinds[NAIVE].source
    assert source is not None
    assert source.auc > 0.9  # sentences of a form, against passages
    assert source.generated == 2 * len(every)
    assert all(len(kind_row(name, kind)) == len(KINDS) for name, kind in kinds.items())


def test_written_negatives_are_read_with_what_they_break(shared_data: Path, tmp_path: Path) -> None:
    file, workspace = shared_data / "squad-negatives.zip", Workspace(str(tmp_path))
    import_data(load_config(flags={"import.source": str(shared_data / "squad.zip")}), workspace, Reporter())
    counterfactual, naive = (written_negatives(file, kind, workspace) for kind in (COUNTERFACTUAL, NAIVE))
    assert len(counterfactual) == len(naive) == 360
    assert {len(rows) for rows in counterfactual.values()} == {3}
    assert all(n.requirement and n.explanation for rows in counterfactual.values() for n in rows)
    assert {len(rows) for rows in naive.values()} == {2}
    titles = {p.id: p.title for p in workspace.read_rows("corpus", Passage)}
    titled = [n for rows in counterfactual.values() for n in rows if n.title]
    assert len(titled) == 884
    assert all(n.title == titles[n.positive_id] for n in titled)
    written = {c["text"] for row in json_rows(file) for c in row["counterfactual"]}
    assert {f"{n.title} {n.text}".strip() for rows in counterfactual.values() for n in rows} == written


def test_a_text_that_begins_with_the_title_is_joined_with_it_as_its_positive_is() -> None:
    positive = Passage(id="p", title="Dog", text="Dogs bark.")
    assert given_negative("q", positive, "Dog Cats purr.", "m").full_text == "Dog. Cats purr."
    assert given_negative("q", positive, "Dogs purr.", "m").full_text == "Dogs purr."
    assert given_negative("q", positive, "Dog Cats purr.", "m", title="Cat").full_text == "Cat. Dog Cats purr."
    assert given_negative("q", Passage(id="p", text=""), "Dogs purr.", "m").title == ""


def _trial(arm: str, seed: int, values: list[float], margins: list[float], planted: list[int]) -> Trial:
    return Trial(
        arm=arm,
        seed=seed,
        machine="this one",
        measured=Measured(
            retrieval={"nDCG@10": {f"q{n}": v for n, v in enumerate(values)}},
            contrast=margins,
            planted={f"h{n}": v for n, v in enumerate(planted)},
            figures=Figures(rows=2, generated_rows=2, mutual_information=0.1 * seed),
            seconds=1,
        ),
        cost=Cost(train_seconds=2),
    )


def test_a_summary_averages_seeds_and_compares_the_same_queries() -> None:
    better, worse = [1.0] * 20, [0.0] * 10 + [1.0] * 10
    trials = {
        BASE: [_trial(BASE, 0, [0.5] * 20, [0.1, -0.1], [1, 0])],
        MINED: [_trial(MINED, s, worse, [0.1, -0.1], [1, 0]) for s in (0, 1)],
        "mined + naive": [_trial("mined + naive", s, worse, [0.1, 0.0], [1, 2]) for s in (0, 1)],
        "mined + counterfactual": [_trial("c", s, better, [0.1, 0.2], [0, 0]) for s in (0, 1)],
    }
    by_arm = {s.arm: s for s in summarise(trials, np.array([0, 1]))}
    good, same = (by_arm[name].figures["nDCG@10"] for name in ("mined + counterfactual", "mined + naive"))
    assert (good.mean, good.seeds, good.difference, good.wins, good.ties) == (1.0, [1.0, 1.0], 0.5, 10, 10)
    assert good.low > 0
    assert good.p < 0.01
    assert (same.difference, same.p) == (0.0, 1.0)
    assert by_arm["mined + naive"].figures[PAIRS].mean == 0.75  # a tie counts half
    assert by_arm["mined + naive"].figures[PLANTED].mean == 1.0
    assert by_arm[MINED].diagnostics["mutual_information"] == pytest.approx(0.05)
    rows = {r.metric: r for r in rows_of(list(by_arm.values()), {("mined + counterfactual", "nDCG@10"): 1.0})}
    assert rows["nDCG@10, mined + counterfactual"].ratio == 2.0
    assert rows[f"{PLANTED}, mined + naive"].ratio == 0.5  # less is better
    assert rows["nDCG@10, mined only"].peer_name == BASE
    header, table = printed(list(by_arm.values()), ["nDCG@10", PLANTED])
    assert len(table) == 4
    assert all(len(row) == len(header) for row in table)


def test_a_trial_kept_before_its_machine_was_recorded_is_taken_and_a_damaged_one_named(
    base: Workspace, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(retrieval={}, contrast=[], planted={}, figures=Figures(rows=0, generated_rows=0), seconds=1.0)
    monkeypatch.setattr("benchmarks.experiment.trial.measure_encoder", lambda *given: measured)
    (tmp_path / "config.yaml").write_text("")
    held = held_texts(base, examples.held_out, 1)
    lab = Lab(tmp_path, base, tmp_path / "config.yaml", dict(_FLAGS), examples, held, [])
    made = base_trial(lab, Reporter())
    monkeypatch.delattr("benchmarks.experiment.trial.measure_encoder")  # nothing is measured from here on
    (file,) = (tmp_path / "trials").iterdir()
    file.write_text(made.model_dump_json(exclude={"machine"}))
    assert base_trial(lab, Reporter()) == made.model_copy(update={"machine": "not recorded"})
    file.write_text(made.model_dump_json()[:-9])
    with pytest.raises(SystemExit, match=rf"{file} is damaged; remove it"):
        base_trial(lab, Reporter())
