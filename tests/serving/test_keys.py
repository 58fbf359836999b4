"""API keys: made, kept as hashes, read again, and refused."""

import hashlib
import hmac
import json
import logging
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from causalneg.cli import main
from causalneg.errors import UserError
from causalneg.serving.errors import ApiError
from causalneg.serving.keys import Keys, Role, add, remove, token_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _refused(keys: Keys, token: str | None, role: Role) -> tuple[int, str]:
    with pytest.raises(ApiError) as refused:
        keys.check(token, role)
    return refused.value.body.code, refused.value.body.type


def test_the_file_holds_the_hash_and_not_the_key(file: Path) -> None:
    token = add(file, "somebody", "write")
    assert re.fullmatch(r"cn_[A-Za-z0-9_-]{43}", token)
    (entry,) = json.loads(file.read_text())["keys"]
    assert entry.keys() == {"name", "role", "sha256", "created"}
    assert entry["sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_write_implies_read_and_not_the_other_way(file: Path) -> None:
    reader, writer = add(file, "r", "read"), add(file, "w", "write")
    keys = Keys.read(file)
    assert (keys.check(reader, "read"), keys.check(writer, "read"), keys.check(writer, "write")) == ("r", "w", "w")
    assert _refused(keys, reader, "write") == (403, "read_only_key")
    for wrong in (reader[:-1], reader + "x", reader.upper(), "", "é", "\ud800".encode("utf-8", "replace").decode()):
        assert _refused(keys, wrong, "read") == (401, "unknown_key")
    assert _refused(keys, None, "read") == (401, "no_key")
    hashed = json.loads(file.read_text())["keys"][0]["sha256"]
    assert _refused(keys, hashed, "read") == (401, "unknown_key")


def test_without_a_file_reading_is_open_and_writing_is_not() -> None:
    keys = Keys.read(None)
    assert not keys.required
    assert keys.check(None, "read") == ""
    assert _refused(keys, "anything", "write") == (403, "no_write_key")


def test_every_key_is_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [add(file, f"k{n}", "read") for n in range(3)]
    keys = Keys.read(file)
    compared, compare = [], hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert keys.check(tokens[0], "read") == "k0"
    assert compared == [hashlib.sha256(token.encode()).hexdigest() for token in tokens]


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"authorization": "Bearer a"}, "a"),
        ({"authorization": "bearer  a "}, "a"),
        ({"authorization": "Basic a"}, None),
        ({"authorization": "Bearer"}, None),
        ({"x-api-key": "b"}, "b"),
        ({"authorization": "Basic a", "x-api-key": "b"}, "b"),
        ({"authorization": "Bearer a", "x-api-key": "b"}, "a"),
    ],
)
def test_a_key_comes_in_either_header(headers: dict[str, str], token: str | None) -> None:
    assert token_of(headers) == token


def test_a_changed_file_is_read_again(file: Path) -> None:
    first = add(file, "first", "read")
    keys = Keys(file, look_every=0)
    second = add(file, "second", "read")
    assert keys.check(second, "read") == "second"
    assert remove(file, "first") == 1
    assert _refused(keys, first, "read") == (401, "unknown_key")


def test_the_file_is_not_looked_at_for_every_request(file: Path) -> None:
    add(file, "first", "read")
    keys = Keys(file, look_every=3600)
    second = add(file, "second", "read")
    assert _refused(keys, second, "read") == (401, "unknown_key")


@pytest.mark.parametrize("damage", ["gone", "torn", "not ours"])
def test_a_file_that_breaks_later_leaves_the_keys_as_they_were(
    file: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = add(file, "first", "read")
    keys = Keys(file, look_every=0)
    if damage == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text()[:-20] if damage == "torn" else '{"keys": 1}')
    with caplog.at_level(logging.INFO, logger="causalneg.serving"):
        for _ in range(3):
            assert keys.check(token, "read") == "first"
    assert len(caplog.records) == 1  # said once
    assert "stay as they were" in caplog.text
    new = add(file.with_name("other.json"), "new", "read")
    file.with_name("other.json").replace(file)
    assert keys.check(new, "read") == "new"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "does not exist; make a key with `causalneg keys"),
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"keys": [{"name": "a", "role": "admin", "sha256": "' + "0" * 64 + '", "created": ""}]}', r"keys\.0\.role"),
        ('{"keys": [{"name": "a", "role": "read", "sha256": "plain", "created": ""}]}', r"keys\.0\.sha256"),
    ],
)
def test_a_file_broken_at_the_start_is_a_mistake(file: Path, content: str | None, text: str) -> None:
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=text) as refused:
        Keys.read(file)
    assert "plain" not in str(refused.value)


def test_keys_added_at_once_are_all_there(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: add(file, f"k{n}", "read"), range(16)))
    keys = Keys.read(file)
    assert [keys.check(token, "read") for token in tokens] == [f"k{n}" for n in range(16)]


def test_the_command_prints_the_key_and_nothing_else(file: Path) -> None:
    command = [sys.executable, "-m", "causalneg.cli", "keys", "--name", "me", "--role", "write", "--file", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=file.parent)
    (token,) = run.stdout.splitlines()
    assert Keys.read(file).check(token, "write") == "me"
    assert "'me'" in run.stderr
    assert token not in run.stderr
    assert list(file.parent.iterdir()) == [file]  # no workspace, no log


def test_the_command_removes_keys_by_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = [add(file, name, "read") for name in ("a", "b", "a")]
    assert main(["keys", "--name", "a", "--file", str(file), "--remove", "true"]) == 0
    keys = Keys.read(file)
    assert keys.check(tokens[1], "read") == "b"
    for removed in (tokens[0], tokens[2]):
        assert _refused(keys, removed, "read") == (401, "unknown_key")
    assert capsys.readouterr().out == ""
    assert main(["keys", "--name", "a", "--file", str(file), "--remove", "true"]) == 2
    assert "no key of the name 'a'; there are 'b'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--name", " "], "keys.name is empty"),
        (["--role", "admin"], "keys.role"),
        (["--file", "no/such/folder/keys.json"], "cannot be written"),
        (["--file", "absent.json", "--remove", "true"], "does not exist"),
        (["--file", "."], "cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", *arguments]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert text in line
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_the_file_stays_a_link(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = file.with_name("link.json")
    link.symlink_to(file)
    assert main(["keys", "--file", str(link)]) == 0
    assert link.is_symlink()
    Keys.read(file).check(capsys.readouterr().out.strip(), "read")
