"""Which version answers: activated, rolled back, by several at once, and through damage."""

import json
import threading
from pathlib import Path

import pytest

from causalneg.errors import UserError
from causalneg.indexing.catalog import Catalog, Pointer
from causalneg.indexing.manifest import IndexManifest, IndexModel, Shard
from causalneg.manifest import FileEntry


def version(folder: Path, name: str, created: str = "2026-01-01T00:00:00Z") -> None:
    """Put a version there, as far as its manifest."""
    (folder / name).mkdir(parents=True)
    entry = FileEntry(bytes=0, sha256="")
    manifest = IndexManifest(
        version=name,
        kind="flat",
        dimension=2,
        rows=1,
        shards=[Shard(rows=1)],
        model=IndexModel(name="m", fingerprint="f"),
        files={"index-000.faiss": entry, "passages-000.arrow": entry},
        created=created,
    ).sealed()
    (folder / name / "manifest.json").write_text(manifest.model_dump_json())


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    folder = tmp_path / "index"
    for day, name in enumerate("abc", 1):
        version(folder, name, f"2026-01-0{day}T00:00:00Z")
    return Catalog(folder)


def test_the_newest_answers_until_another_is_activated(catalog: Catalog) -> None:
    assert [m.version for m in catalog.versions()] == ["c", "b", "a"]
    assert catalog.active() == Pointer(version="c")
    assert catalog.activate("b") == Pointer(version="b", previous="c", serial=1)
    assert catalog.activate("a") == Pointer(version="a", previous="b", serial=2)
    assert catalog.activate("a") == Pointer(version="a", previous="b", serial=2), "nothing changes"
    assert Catalog(catalog.folder).active() == Pointer(version="a", previous="b", serial=2)


def test_rolling_back_goes_to_and_fro(catalog: Catalog) -> None:
    with pytest.raises(UserError, match="No version answered before"):
        catalog.roll_back()
    catalog.activate("c")
    with pytest.raises(UserError, match="No version answered before"):
        catalog.roll_back()
    catalog.activate("a")
    assert [catalog.roll_back().version for _ in range(3)] == ["c", "a", "c"]
    active = catalog.active()
    assert active is not None
    assert active.serial == 5


def test_the_stamp_is_another_whenever_the_pointer_is(catalog: Catalog) -> None:
    stamps = [catalog.stamp()]
    version(catalog.folder, "d", "2026-02-01T00:00:00Z")
    for change in (lambda: None, lambda: catalog.activate("a"), lambda: catalog.activate("b"), catalog.roll_back):
        change()
        stamps.append(catalog.stamp())
        assert catalog.stamp() == stamps[-1]
    assert len(set(stamps)) == len(stamps)


def test_what_a_killed_writer_left_is_removed(catalog: Catalog) -> None:
    (catalog.folder / ".active.json.0123").write_text('{"vers')
    catalog.activate("a")
    assert list(catalog.folder.glob(".active.json.*")) == []


def test_without_versions_nothing_answers(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "index")
    assert (catalog.versions(), catalog.active(), catalog.stamp()) == ([], None, ())
    with pytest.raises(UserError, match="there is none"):
        catalog.activate("a")
    with pytest.raises(UserError, match="No version"):
        catalog.roll_back()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../index", "a/../b", "/etc", "a\0", "a\n", "x" * 101, "d", ".hidden", "ä", "changes.jsonl"]
)
def test_names_that_are_no_version_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(UserError, match=r"no index version.*there is c, b, a"):
        catalog.folder_of(name)
    with pytest.raises(UserError, match="no index version"):
        catalog.activate(name)
    assert catalog.active() == Pointer(version="c")


def test_a_damaged_version_is_not_activated(catalog: Catalog) -> None:
    (catalog.folder / "b" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        catalog.activate("b")
    assert [m.version for m in catalog.versions()] == ["c", "a"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": "a", "extra": 1}'])
def test_a_damaged_pointer_is_told_with_the_remedy(catalog: Catalog, content: str) -> None:
    pointer = catalog.folder / "active.json"
    pointer.write_text(content)
    with pytest.raises(UserError, match=r"active\.json is damaged; remove it.*c, b, a"):
        catalog.active()
    pointer.write_text(json.dumps({"version": "b"}))
    assert catalog.active() == Pointer(version="b"), "mended as the sentence says"


def test_many_at_once_lose_no_change(catalog: Catalog) -> None:
    catalog.activate("a")
    wrong: list[object] = []

    def swap(name: str) -> None:
        own = Catalog(catalog.folder)
        for _ in range(10):
            own.activate(name)
            own.activate("a")

    def read() -> None:
        for _ in range(300):
            active = Catalog(catalog.folder).active()
            if active is None or active.version not in "abc":
                wrong.append(active)

    threads = [threading.Thread(target=swap, args=(name,)) for name in "bc"] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    active = catalog.active()
    assert not wrong
    assert active is not None
    assert active.version == "a"
    assert not list(catalog.folder.glob("active.json.*")), "no file is left over"
