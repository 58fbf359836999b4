"""Writes the store that workers read: train pairs joined with their negatives, every text tokenised once.

Everything is streamed: memory does not grow with the data set.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from causalneg.config import TrainSettings
from causalneg.examples import Join, not_there
from causalneg.files import whole_folder
from causalneg.margins import relative_score
from causalneg.records import Negative, Passage, Query, Source, ViolationType, full_text
from causalneg.training.data.store import ARRAYS, HELD_OUT_IDS, Data, Kind, is_whole, mapped, write_facts
from causalneg.training.objective.weights import matching
from causalneg.workspace import Workspace

_TEXTS = 1024  # texts tokenised at a time
_COUNTED = (
    "rows",
    "held_out",
    "without_negative",
    "mined",
    "generated",
    "same_as_positive",
    "dev_query",
    "dev_passage",
)


Progress = Callable[[int, int], None]
"""Called with the texts tokenised and all of them."""


class Tokenizer(Protocol):
    """What turns texts into tokens."""

    def tokenize(self, texts: list[str], kind: Kind) -> list[np.ndarray]:
        """Return the int32 tokens of each text."""


# Where other passages of a batch are candidates, a pair needs no negative of its own.
_USABLE = (
    "CREATE TABLE usable AS SELECT * FROM pairs WHERE getvariable('shared') OR pair IN (SELECT pair FROM negatives);"
)

# Dev queries: of a split of their own, or train queries held out. Drawn by a hash of seed and id.
_DEV = """
CREATE TABLE of_split AS SELECT query_id, passage_id FROM qrels WHERE split = getvariable('split') AND score > 0;
CREATE TABLE dev_pairs AS SELECT * FROM of_split WHERE query_id IN (
    SELECT query_id FROM of_split GROUP BY query_id
    ORDER BY md5(getvariable('seed') || query_id), query_id LIMIT getvariable('max_queries'));
CREATE TABLE held_out AS SELECT pair, query_id, positive_id FROM pairs WHERE query_id IN (
    SELECT query_id FROM usable GROUP BY query_id
    ORDER BY md5(getvariable('seed') || query_id), query_id LIMIT getvariable('held_out'));
INSERT INTO dev_pairs SELECT query_id, positive_id FROM held_out;
"""

# Twice as many as are wanted, since some will be there already.
_DRAWN = """
CREATE TABLE drawn AS SELECT id, row_number() OVER (ORDER BY md5(getvariable('seed') || id), id) AS place
    FROM (SELECT id FROM corpus ORDER BY md5(getvariable('seed') || id), id LIMIT getvariable('drawn'));
"""

_NUMBERS = """
CREATE TABLE rows AS
    SELECT pair, row_number() OVER (ORDER BY pair) - 1 AS number, query_id, positive_id
    FROM usable;
CREATE TABLE dev_passages AS
    SELECT passage_id AS id FROM dev_pairs
    UNION SELECT id FROM negatives JOIN held_out USING (pair) WHERE NOT generated;
INSERT INTO dev_passages SELECT id FROM drawn WHERE id NOT IN (SELECT id FROM dev_passages)
    ORDER BY place LIMIT greatest(0, getvariable('max_passages') - (SELECT count(*) FROM dev_passages));
CREATE TABLE query_numbers AS
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS number
    FROM (SELECT query_id AS id FROM rows UNION SELECT query_id FROM dev_pairs);
CREATE TABLE passage_numbers AS
    SELECT id, generated, row_number() OVER (ORDER BY generated, id) - 1 AS number FROM (
        SELECT positive_id AS id, false AS generated FROM rows UNION SELECT id, generated FROM negatives
        UNION SELECT id, false FROM dev_passages);
"""


def _columns(join: Join, query: str) -> Iterator[list[np.ndarray]]:
    """Stream a query's rows as numpy columns."""
    for batch in join.stream(query):
        yield [column.to_numpy(zero_copy_only=False) for column in batch.columns]


class _Writer:
    """Writes arrays as streams; those nothing is written to are there and empty."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, IO[bytes]] = {name: (folder / name).open("wb") for name in ARRAYS}

    def add(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(np.ascontiguousarray(values, ARRAYS[name]).tobytes())

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _choose_dev(join: Join, workspace: Workspace, settings: TrainSettings, seed: int) -> None:
    """Make the tables of the dev queries, and draw passages that are searched beside theirs."""
    dev = settings.dev
    of_split = join.database.execute(
        "SELECT count(*) FROM qrels WHERE split = ? AND score > 0", [dev.split]
    ).fetchall()[0][0]
    queries = join.number("SELECT count(DISTINCT query_id) FROM usable")
    held_out = min(dev.max_queries, round(dev.share * queries))
    if of_split or held_out < dev.min_queries:
        held_out = 0
    join.run(_DEV, split=dev.split, seed=f"{seed} ", max_queries=dev.max_queries, held_out=held_out)
    some = of_split or held_out
    join.load("corpus", workspace.read_batches("corpus", Passage) if some else iter(()), Passage, ["id"])
    join.run(_DRAWN, drawn=2 * dev.max_passages)


def _write_held_out(join: Join, folder: Path) -> None:
    """Write the ids of the queries held out, which later stages may want to know."""
    ids = [i for (i,) in join.database.execute("SELECT DISTINCT query_id FROM held_out ORDER BY query_id").fetchall()]
    pq.write_table(pa.table({"query_id": pa.array(ids, pa.string())}), folder / HELD_OUT_IDS)


def _tokens(writer: _Writer, kind: Kind, texts: list[str], tokenizer: Tokenizer, start: int) -> int:
    """Write the tokens of texts; return where the next ones start."""
    ids = tokenizer.tokenize(texts, kind)
    ends = start + np.cumsum([len(i) for i in ids])
    writer.add(f"{kind}.tokens", np.concatenate(ids))
    writer.add(f"{kind}.key", np.array([xxhash.xxh3_64_intdigest(i.tobytes()) for i in ids], np.uint64))
    writer.add(f"{kind}.start", ends)
    return int(ends[-1])


class _Texts(NamedTuple):
    """Texts of one folder.

    Attributes:
        kind: how they are tokenised.
        folder: of the workspace.
        record: of the folder's rows.
        numbers: the query that gives the ids that are used, with their numbers.
        name: what a text is called.
        command: that writes the folder.
    """

    kind: Kind
    folder: str
    record: type[Query | Passage | Negative]
    numbers: str
    name: str
    command: str


_TEXTS_OF = (
    _Texts("query", "queries", Query, "SELECT * FROM query_numbers", "query", "import"),
    _Texts("passage", "corpus", Passage, "SELECT * FROM passage_numbers WHERE NOT generated", "passage", "import"),
    _Texts(
        "passage",
        "negatives",
        Negative,
        "SELECT * FROM passage_numbers WHERE generated",
        "generated negative",
        "generate",
    ),
)


def _used(join: Join, workspace: Workspace, texts: _Texts) -> Iterator[list[str]]:
    """Stream the texts that are used, in the order of their numbers.

    Raises:
        UserError: a text is not there.
    """
    names = ["id", "text"] if texts.record is Query else ["id", "title", "text"]
    none = not join.number(f"SELECT count(*) FROM ({texts.numbers})")  # noqa: S608 - our own words
    batches = iter(()) if none else workspace.read_batches(texts.folder, texts.record)
    join.load("texts", batches, texts.record, names, f"id IN (SELECT id FROM ({texts.numbers}))")  # noqa: S608
    title = "''" if texts.record is Query else "title"
    query = f"SELECT id, {title}, text FROM ({texts.numbers}) LEFT JOIN texts USING (id) ORDER BY number"  # noqa: S608
    for batch in join.stream(query):
        ids, titles, found = (c.to_pylist() for c in batch.columns)
        if None in found:
            row_id = ids[found.index(None)]
            raise not_there(workspace, texts.name, row_id, texts.folder, texts.command)
        yield list(map(full_text, titles, found))
    join.database.execute("DROP TABLE texts")


def _write_texts(join: Join, workspace: Workspace, writer: _Writer, tokenizer: Tokenizer, progress: Progress) -> None:
    """Tokenise every text that is used, in the order of its number."""
    total = join.number("SELECT (SELECT count(*) FROM query_numbers) + (SELECT count(*) FROM passage_numbers)")
    start: dict[Kind, int] = {"query": 0, "passage": 0}
    for kind in start:
        writer.add(f"{kind}.start", np.zeros(1))
    done = 0
    for texts in _TEXTS_OF:
        for whole in _used(join, workspace, texts):
            for at in range(0, len(whole), _TEXTS):
                part = whole[at : at + _TEXTS]
                start[texts.kind] = _tokens(writer, texts.kind, part, tokenizer, start[texts.kind])
                done += len(part)
                progress(done, total)


_NEGATIVES = """
    SELECT r.number AS row, q.number AS query, p.number AS positive, t.{teacher} AS positive_teacher,
           n.pair IS NOT NULL AS there, coalesce(o.number, p.number) AS passage,
           coalesce(n.generated, false) AS generated, n.{teacher} AS teacher, n.violation, n.dense, n."cross",
           n.positive_score, n.scores
    FROM rows r LEFT JOIN negatives n USING (pair)
    JOIN query_numbers q ON q.id = r.query_id
    JOIN passage_numbers p ON p.id = r.positive_id AND NOT p.generated
    LEFT JOIN passage_numbers o ON o.id = n.id AND o.generated = n.generated
    LEFT JOIN (SELECT query_id, passage_id, any_value(dense_score) AS dense, any_value(cross_score) AS "cross"
               FROM mined WHERE relation = 'positive' GROUP BY ALL) t
        ON t.query_id = r.query_id AND t.passage_id = r.positive_id
    ORDER BY r.pair, n.generated, n.place
"""


def _rules(names: list[str], columns: list[list[Any]], settings: TrainSettings) -> np.ndarray:
    """Return which weight rules hold for each negative, uint32 `[negatives]`."""
    found = []
    for values in zip(*columns, strict=True):
        n = dict(zip(names, values, strict=True))
        known = {"dense": n["dense"], "cross": n["cross"]}
        if n["generated"]:
            known |= dict(n["scores"] or ())  # Arrow gives a map as pairs
        elif n["positive_score"] is not None:
            score = n["dense"] if n["cross"] is None else n["cross"]
            known["relative"] = relative_score(score, n["positive_score"])
        scores = {name: float(score) for name, score in known.items() if score is not None}
        violation = ViolationType(n["violation"]) if n["violation"] else None
        source = Source.GENERATED if n["generated"] else Source.MINED
        found.append(matching(settings.weights, source, violation, scores))
    return np.array(found, np.uint32)


def _write_rows(join: Join, writer: _Writer, keys: np.ndarray, settings: TrainSettings) -> Counter[str]:
    """Write rows and their negatives; one that has the very tokens of its positive is left out."""
    counts: Counter[str] = Counter()
    names = ["generated", "dense", "cross", "positive_score", "scores", "violation"]
    last, start = -1, 0
    for batch in join.stream(_NEGATIVES.format(teacher=settings.loss.distillation_scores.replace("cross", '"cross"'))):
        column = {n: batch.column(n).to_numpy(zero_copy_only=False) for n in batch.schema.names if n not in names}
        generated = batch.column("generated").to_numpy(zero_copy_only=False).astype(bool)
        there = column["there"].astype(bool)
        keep = there & (keys[column["passage"]] != keys[column["positive"]])
        rules = (
            _rules(names, [batch.column(n).to_pylist() for n in names], settings)
            if settings.weights
            else np.zeros(len(keep), np.uint32)
        )
        new = np.diff(column["row"], prepend=last) != 0
        last = int(column["row"][-1])
        positions = start + np.cumsum(keep) - keep  # how many negatives lie before each
        writer.add("row.start", positions[new])
        for name in ("query", "positive"):
            writer.add(f"row.{name}", column[name][new])
        writer.add("row.teacher", column["positive_teacher"][new].astype(np.float32))
        writer.add("negative.passage", column["passage"][keep])
        writer.add("negative.generated", generated[keep])
        writer.add("negative.rules", rules[keep])
        writer.add("negative.teacher", column["teacher"][keep].astype(np.float32))
        start += int(keep.sum())
        counts["mined"] += int((keep & ~generated).sum())
        counts["generated"] += int((keep & generated).sum())
        counts["same_as_positive"] += int((there & ~keep).sum())
    writer.add("row.start", np.array([start]))
    return counts


def _share_out(join: Join, writer: _Writer, start: np.ndarray, shared: bool) -> Counter[str]:
    """Write which rows are trained on and which are held out; one without a candidate is neither.

    Args:
        join: has the rows.
        writer: takes the numbers.
        start: where each row's negatives start, one more at the end.
        shared: whether the other passages of a batch are candidates as well.
    """
    counts: Counter[str] = Counter()
    query = "SELECT number, held_out.pair IS NOT NULL FROM rows LEFT JOIN held_out USING (pair) ORDER BY number"
    for numbers, flags in _columns(join, query):
        held_out = flags.astype(bool)
        used = start[numbers + 1] > start[numbers]
        used |= shared
        writer.add("rows.train", numbers[used & ~held_out])
        writer.add("rows.held_out", numbers[used & held_out])
        counts["rows"] += int(used.sum())
        counts["held_out"] += int((used & held_out).sum())
    return counts


def _write_known(join: Join, writer: _Writer) -> None:
    """Write the positives of every query, whatever their split, as far as they are among the passages."""
    writer.add("known.start", np.zeros(1))
    query = """
        SELECT q.number, coalesce(list(DISTINCT p.number ORDER BY p.number) FILTER (p.number IS NOT NULL), []) AS known
        FROM query_numbers q LEFT JOIN (SELECT * FROM qrels WHERE score > 0) r ON r.query_id = q.id
        LEFT JOIN passage_numbers p ON p.id = r.passage_id AND NOT p.generated
        GROUP BY q.number ORDER BY q.number
    """
    start = 0
    for batch in join.stream(query):
        known = batch.column("known")
        writer.add("known.passage", known.flatten().to_numpy(zero_copy_only=False))
        ends = start + np.cumsum(known.value_lengths().to_numpy(zero_copy_only=False))
        writer.add("known.start", ends)
        start = int(ends[-1])


def _write_dev(join: Join, writer: _Writer) -> Counter[str]:
    counts: Counter[str] = Counter()
    queries = "SELECT DISTINCT number FROM query_numbers JOIN dev_pairs ON id = query_id"
    passages = "SELECT DISTINCT number FROM passage_numbers JOIN dev_passages USING (id) WHERE NOT generated"
    for name, query in (("dev.query", queries), ("dev.passage", passages)):
        for (numbers,) in _columns(join, f"{query} ORDER BY number"):
            writer.add(name, numbers)
            counts[name.replace(".", "_")] += len(numbers)
    relevant = f"""
        SELECT DISTINCT q.place - 1, p.place - 1 FROM dev_pairs d
        JOIN query_numbers qn ON qn.id = d.query_id JOIN passage_numbers pn ON pn.id = d.passage_id AND NOT pn.generated
        JOIN (SELECT number, row_number() OVER (ORDER BY number) AS place FROM ({queries})) q ON q.number = qn.number
        JOIN (SELECT number, row_number() OVER (ORDER BY number) AS place FROM ({passages})) p ON p.number = pn.number
        ORDER BY 1, 2
    """  # noqa: S608 - our own words
    for pair in _columns(join, relevant):
        writer.add("dev.relevant", np.stack(pair, axis=1).ravel())
    return counts


def prepare(
    workspace: Workspace, folder: Path, tokenizer: Tokenizer, settings: TrainSettings, seed: int, progress: Progress
) -> Data:
    """Write the store of a workspace's train pairs, or open the one that is there.

    Args:
        workspace: imported, mined and, unless no generated negatives are asked for, generated.
        folder: where the store lies; it is there as a whole or not at all.
        tokenizer: of the encoder that is trained.
        settings: of the stage.
        seed: draws the dev queries.
        progress: called now and then.

    Returns:
        the store; its facts are `pairs` looked at, `rows` used, of these `held_out`, pairs `without_negative`, the
        `mined` and `generated` negatives, `false_negatives` left out since they answer their query, `same_as_positive`
        negatives left out since their tokens are the positive's, `dev_query` and `dev_passage`. Rows without a negative
        are used where candidates are shared.

    Raises:
        UserError: a text is not there.
    """
    if is_whole(folder):
        return Data(folder)
    with whole_folder(folder) as fresh:
        write_facts(fresh, _write(workspace, fresh, tokenizer, settings, seed, progress))
    return Data(folder)


def _write(
    workspace: Workspace, folder: Path, tokenizer: Tokenizer, settings: TrainSettings, seed: int, progress: Progress
) -> dict[str, int]:
    """Write every array and return the facts."""
    writer = _Writer(folder)
    try:
        with Join(workspace, settings.mined_per_query, settings.generated_per_query, settings.false_negatives) as join:
            shared = settings.loss.candidates != "own"
            join.run(_USABLE, shared=shared)
            _choose_dev(join, workspace, settings, seed)
            _write_held_out(join, folder)
            join.run(_NUMBERS, max_passages=settings.dev.max_passages)
            _write_texts(join, workspace, writer, tokenizer, progress)
            writer.flush()
            counts = _write_rows(join, writer, mapped(folder, "passage.key"), settings)
            writer.flush()
            start = mapped(folder, "row.start")
            counts += _share_out(join, writer, start, shared)
            counts["without_negative"] = join.pairs - int((np.diff(start) > 0).sum())
            _write_known(join, writer)
            counts += _write_dev(join, writer)
            facts = {"pairs": join.pairs, "false_negatives": join.left_out}
            return facts | {name: counts[name] for name in _COUNTED}
    finally:
        writer.close()
