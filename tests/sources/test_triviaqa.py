"""TriviaQA's own files become a corpus, questions, and judgements by its distant supervision."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from source_samples import imported, rows

from causalneg.errors import UserError
from causalneg.records import Rejected
from causalneg.sources.triviaqa import PASSAGE_WORDS, normalised
from causalneg.workspace import Workspace

FILLER = " ".join(f"word{n}" for n in range(PASSAGE_WORDS))
DOCUMENTS = {
    "wikipedia/Andrew_Lloyd_Webber.txt": f"Andrew Lloyd Webber writes.\n\n{FILLER}\nSunset Blvd. had its première.",
    "wikipedia/Café_Müller.txt": "Café Müller is a piece by Pina Bausch.",
    "wikipedia/Sunset.txt": "Sunset Boulevard is a street that nobody asked for.",
    "web/35/35_995.txt": "His musical Sunset Boulevard opened in 1993, and the sunset blvdx did not.",
}


def question(number: int, text: str, answer: list[str], pages: list[str], results: list[str] = ()) -> dict[str, Any]:  # type: ignore[assignment]
    """An entry of `Data`, with the fields that TriviaQA has."""
    return {
        "Answer": {
            "Aliases": answer,
            "NormalizedAliases": [a.lower() for a in answer],
            "NormalizedValue": answer[0].lower(),
            "Type": "WikipediaEntity",
            "Value": answer[0],
        },
        "EntityPages": [
            {"DocSource": "TagMe", "Filename": f"{page}.txt", "Title": page.replace("_", " ")} for page in pages
        ],
        "Question": text,
        "QuestionId": f"tc_{number}",
        "QuestionSource": "http://www.triviacountry.com/",
        "SearchResults": [{"Filename": result, "Rank": 0, "Title": "The official site"} for result in results],
    }


QUESTIONS = [
    question(33, "Which musical?", ["Sunset Boulevard", "Sunset Blvd."], ["Andrew_Lloyd_Webber"], ["35/35_995.txt"]),
    question(34, "Whose is Café Müller?", ["The Bausch"], ["Café_Müller", "Andrew_Lloyd_Webber"]),
    question(35, "Who else?", ["Nobody at all"], ["Café_Müller"]),
]


def write(folder: Path, data: list[Any], name: str = "qa/wikipedia-dev.json", **first: Any) -> Path:
    for file, text in DOCUMENTS.items():
        path = folder / "evidence" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = first | {"Data": data, "Domain": "Wikipedia", "VerifiedEval": False, "Version": 1.0}
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_passages_with_the_answer_in_the_questions_own_documents_are_relevant(
    workspace: Workspace, tmp_path: Path
) -> None:
    made = imported(workspace, write(tmp_path / "triviaqa-rc", QUESTIONS))
    passages, queries, qrels = rows(workspace)
    texts = {p.id: p for p in passages}
    assert list(texts) == [
        "wikipedia/Andrew_Lloyd_Webber#1",
        "wikipedia/Andrew_Lloyd_Webber#2",
        "web/35/35_995#1",
        "wikipedia/Café_Müller#1",
    ]  # each document once, and none that no question names
    assert len(texts["wikipedia/Andrew_Lloyd_Webber#1"].text.split()) == PASSAGE_WORDS
    assert texts["wikipedia/Andrew_Lloyd_Webber#1"].title == "Andrew Lloyd Webber"
    assert texts["web/35/35_995#1"].title == "The official site"
    assert [(q.id, q.text) for q in queries] == [("tc_33", "Which musical?"), ("tc_34", "Whose is Café Müller?")]
    assert [(q.query_id, q.passage_id, q.score, q.split) for q in qrels] == [
        ("tc_33", "wikipedia/Andrew_Lloyd_Webber#2", 1, "dev"),
        ("tc_33", "web/35/35_995#1", 1, "dev"),
        ("tc_34", "wikipedia/Café_Müller#1", 1, "dev"),
    ]
    assert made.details["outcomes"] == {"without_judgement": 1}
    assert made.details["splits"] == {"dev": 2}


def test_train_and_dev_of_wikipedia_and_any_single_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "triviaqa-rc", QUESTIONS[:1])
    write(folder, QUESTIONS[1:2], "qa/wikipedia-train.json")
    write(folder, QUESTIONS[1:], "qa/web-dev.json", Domain="Web")  # "Data" need not come first
    both = imported(Workspace(str(tmp_path / "both")), folder)
    assert both.details["splits"] == {"dev": 1, "train": 1}
    alone = imported(Workspace(str(tmp_path / "alone")), folder / "qa" / "web-dev.json")
    assert alone.details["splits"] == {"dev": 1}
    write(tmp_path / "triviaqa-unfiltered", QUESTIONS[:1], "unfiltered-web-train.json")
    unfiltered = tmp_path / "triviaqa-unfiltered"
    (unfiltered / "evidence").rename(unfiltered / "elsewhere")
    made = imported(Workspace(str(tmp_path / "unfiltered")), unfiltered / "unfiltered-web-train.json")
    assert made.details["splits"] == {"train": 1}


@pytest.mark.parametrize("whole", [True, False])
def test_questions_and_documents_may_be_compressed(tmp_path: Path, whole: bool) -> None:
    folder = write(tmp_path / "triviaqa-rc", QUESTIONS)
    plain = Workspace(str(tmp_path / "plain"))
    imported(plain, folder)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    other = Workspace(str(tmp_path / "packed"))
    imported(other, folder if whole else folder / "qa" / "wikipedia-dev.json.gz")
    assert rows(plain) == rows(other)


def test_files_of_questions_that_are_not_read_are_named(workspace: Workspace, tmp_path: Path) -> None:
    folder = write(tmp_path / "triviaqa-rc", QUESTIONS)
    (folder / "qa" / "web-dev.json").write_text("{}")
    (folder / "qa" / "._wikipedia-dev.json").write_text("x")
    assert imported(workspace, folder).details["files_not_read"] == ["qa/web-dev.json"]


def test_a_document_is_found_in_other_letters(workspace: Workspace, tmp_path: Path) -> None:
    data = [question(1, "Whose?", ["Bausch"], ["CAFE\N{COMBINING ACUTE ACCENT}_müller"])]
    imported(workspace, write(tmp_path / "triviaqa-rc", data))
    _, _, qrels = rows(workspace)
    assert len(qrels) == 1


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (QUESTIONS[0] | fields).items() if value is not None}


@pytest.mark.parametrize(
    ("entry", "kind", "reason"),
    [
        (changed(Question=None), "missing_field", "field 'Question' is missing"),
        (changed(QuestionId=7), "wrong_type", "field 'QuestionId' is no text but int"),
        (changed(Answer=None), "missing_field", "field 'Answer' is missing"),
        (changed(Answer={"Aliases": ["x"]}), "missing_field", "field 'Answer.Value' is missing"),
        (changed(Answer={"Value": "x", "Aliases": "x"}), "wrong_type", "field 'Answer.Aliases' is no list but str"),
        (changed(Answer={"Value": "The !"}), "empty_text", "field 'Answer' holds no word"),
        (changed(EntityPages={}), None, ""),
        (changed(EntityPages="x"), "wrong_type", "field 'EntityPages' is no list but str"),
        (changed(EntityPages=[1]), "wrong_type", "field 'EntityPages[0]' is no object but int"),
        (changed(SearchResults=[{}]), "missing_field", "field 'SearchResults[0].Filename' is missing"),
        (
            changed(EntityPages=[{"Filename": "../../x"}]),
            "wrong_type",
            "field 'EntityPages[0].Filename' is no path below",
        ),
        (changed(EntityPages=[{"Filename": "Absent.txt"}]), "missing_file", "field 'EntityPages[0].Filename' names "),
        ("no object", "wrong_type", "an object is needed, not str"),
    ],
)
def test_what_is_broken_is_named_by_file_entry_and_field(
    workspace: Workspace, tmp_path: Path, entry: object, kind: str | None, reason: str
) -> None:
    folder = write(tmp_path / "triviaqa-rc", [QUESTIONS[0], entry])
    imported(workspace, folder, import__max_rejected_share=0.9)
    rejected = list(workspace.read_rows("rejected", Rejected))
    broken = [r for r in rejected if r.kind not in ("duplicate_id", "without_judgement")]
    assert [r.kind for r in broken] == ([kind] if kind else [])
    for row in broken:
        assert (row.file, row.line) == (str(folder / "qa" / "wikipedia-dev.json"), 2)
        assert row.reason.startswith(reason)
    if kind:
        with pytest.raises(UserError, match=r"wikipedia-dev\.json, row 2: "):
            imported(Workspace(str(tmp_path / "strict")), folder, import__strict=True)


def test_empty_documents_and_other_encodings_are_told(workspace: Workspace, tmp_path: Path) -> None:
    data = [*QUESTIONS, question(36, "Which?", ["x"], ["Empty", "Latin"])]
    folder = write(tmp_path / "triviaqa-rc", data)
    (folder / "evidence/wikipedia/Empty.txt").write_text(" \n")
    (folder / "evidence/wikipedia/Latin.txt").write_bytes("Müller".encode("latin-1"))
    made = imported(workspace, folder, import__max_rejected_share=0.9)
    assert made.details["outcomes"]["empty_text"] == made.details["outcomes"]["not_utf8"] == 1


def test_missing_parts_are_one_sentence(workspace: Workspace, tmp_path: Path) -> None:
    folder = write(tmp_path / "triviaqa-rc", QUESTIONS, "qa/wikipedia-test-without-answers.json")
    with pytest.raises(UserError, match=r"holds no wikipedia-train\.json or wikipedia-dev\.json"):
        imported(workspace, folder)
    with pytest.raises(UserError, match="has no answers"):
        imported(workspace, folder / "qa" / "wikipedia-test-without-answers.json")
    with pytest.raises(UserError, match="are for your own files"):
        imported(workspace, folder, import__fields={"query": "Question"})
    file = write(folder, QUESTIONS) / "qa" / "wikipedia-dev.json"
    file.write_text(file.read_text()[:900])
    with pytest.raises(UserError, match=r"wikipedia-dev\.json, after row \d: not a valid JSON array"):
        imported(workspace, folder)
    file.write_text('{"Version": 1.0, "Domain": "Web"}')
    with pytest.raises(UserError, match="there is no 'Data'"):
        imported(workspace, folder)
    (folder / "evidence").rename(folder / "away")
    with pytest.raises(UserError, match="no folder `evidence` beside it"):
        imported(workspace, file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Beatles!", "beatles"),
        ("An A-Team", "team"),
        ("snake_case", "snake case"),
        ("O\N{RIGHT SINGLE QUOTATION MARK}Neill's", "o neill s"),
    ],
)
def test_answers_are_compared_as_triviaqa_does(text: str, words: str) -> None:
    assert normalised(text) == words
