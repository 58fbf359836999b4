"""Profiles: the built-in ones load, a user's own is a file, and what is wrong is named."""

from pathlib import Path

import pytest
import yaml

from causalneg.errors import UserError
from causalneg.generation.profiles import Profile, load_profile, profile_names

NAMES = ["generic", "hotpotqa", "mmarco", "nq", "trivia"]
OWN: dict[object, object] = {
    "name": "recipes",
    "version": 1,
    "description": "Recipes.",
    "relevance": "The recipe can be cooked from it.",
    "style": "Steps.",
    "avoid": ["lists of shops"],
}


def written(folder: Path, content: object) -> str:
    path = folder / "own.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def problem(name_or_path: str) -> str:
    with pytest.raises(UserError) as caught:
        load_profile(name_or_path)
    message = str(caught.value)
    assert all(name in message for name in NAMES), "the built-in names are listed"
    return message


def test_the_built_in_profiles() -> None:
    assert profile_names() == NAMES
    profiles = [load_profile(name) for name in NAMES]
    assert [p.name for p in profiles] == NAMES
    assert len({p.relevance for p in profiles}) == len(NAMES)
    assert all(p.avoid for p in profiles)


def test_a_profile_of_the_users_own(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path, OWN)) == Profile.model_validate(OWN)


def test_a_file_may_have_the_name_of_a_built_in_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nq").write_text(yaml.safe_dump(OWN))
    assert load_profile("nq").name == "nq"
    assert load_profile("./nq").name == "recipes"


def test_the_key_follows_from_the_content(tmp_path: Path) -> None:
    own = load_profile(written(tmp_path, OWN))
    assert own.key.startswith("recipes-")
    assert load_profile(written(tmp_path, dict(reversed(OWN.items())))).key == own.key
    assert load_profile(written(tmp_path, "# a remark\n" + yaml.safe_dump(OWN))).key == own.key
    for field, value in [("style", "Prose."), ("version", 2), ("avoid", []), ("name", "cooking")]:
        assert load_profile(written(tmp_path, OWN | {field: value})).key != own.key


def test_an_unknown_name_or_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no profile 'nqq'" in problem("nqq")
    missing = str(tmp_path / "none.yaml")
    assert missing in problem(missing)


@pytest.mark.parametrize("field", list(OWN))
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = written(tmp_path, {name: value for name, value in OWN.items() if name != field})
    message = problem(path)
    assert path in message
    assert f"the field '{field}' is missing" in message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tone": "warm"}, "there is no field 'tone'; the fields are name, version"),
        ({"name": "My recipes"}, "the field 'name'"),
        ({"name": 7}, "the field 'name'"),
        ({"version": "1"}, "the field 'version'"),
        ({"version": 0}, "the field 'version'"),
        ({"style": " "}, "the field 'style'"),
        ({"style": "x" * 2001}, "the field 'style'"),
        ({"avoid": "shops"}, "the field 'avoid'"),
        ({"avoid": [""]}, "the field 'avoid.0'"),
        ({7: "x"}, "own.yaml"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[object, object], named: str) -> None:
    path = written(tmp_path, OWN | changes)
    message = problem(path)
    assert path in message
    assert named in message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("name: [1", "line 1, is not valid YAML"),
        ("name: x\n\tversion: 1", "line 2, is not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("[" * 10_000, "is not valid YAML"),
        ("version: 2026-13-45", "cannot be read"),
        ("", "must hold fields"),
        ("- name", "must hold fields"),
        ("just text", "must hold fields"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, content: str, named: str) -> None:
    path = written(tmp_path, content)
    message = problem(path)
    assert path in message
    assert named in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    assert "cannot be read" in problem(str(tmp_path / "latin.yaml"))
    assert "cannot be read" in problem(str(tmp_path))
    assert "cannot be read" in problem("a\0b")
