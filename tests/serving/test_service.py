"""The service behind the HTTP interface: searches, changes, swaps and merges, in this process and with real models."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ids_of, search, soon, with_service
from small_index import PASSAGES, QUESTIONS, build, small_workspace

from causalneg.errors import UserError
from causalneg.filters import Filter
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change
from causalneg.models import resolve
from causalneg.records import Passage
from causalneg.serving.deadline import Deadline
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import PassageBody, SearchRequest, SearchResponse
from causalneg.serving.service import LocalService
from causalneg.workspace import Workspace

CITIES = Filter.model_validate({"must": [{"key": "kind", "match": {"value": "city"}}]})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return small_workspace(tmp_path / "ws", lexical=True)


def test_each_query_finds_its_passage_alone_and_with_others(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        together = await search(service, queries=list(QUESTIONS), limit=1)
        assert [ids[0] for ids in ids_of(together)] == list(QUESTIONS.values())
        alone = await asyncio.gather(*(search(service, query=q, limit=1) for q in list(QUESTIONS) * 5))
        assert [ids_of(a)[0][0] for a in alone] == list(QUESTIONS.values()) * 5
        assert together.truncated == [False] * 4
        assert together.timings.total >= together.timings.encode > 0

    with_service(workspace, use)


def test_what_a_search_may_ask_for(workspace: Workspace) -> None:
    question = "What is the capital of Italy?"

    async def use(service: LocalService) -> None:
        everything = await search(service, query=question, limit=4)
        (ids,) = ids_of(everything)
        assert ids_of(await search(service, query=question, limit=2, offset=1)) == [ids[1:3]]
        assert ids_of(await search(service, query=question, limit=2, offset=10)) == [[]]
        assert sorted(ids_of(await search(service, query=question, filter=CITIES))[0]) == ["paris", "rome"]
        lowest = everything.results[0][1].score
        assert ids_of(await search(service, query=question, score_threshold=lowest)) == [ids[:2]]
        bare = await search(service, query=question, with_payload=False)
        assert bare.results[0][0].payload is None
        payload = everything.results[0][0].payload
        assert payload is not None
        assert payload.metadata == {"kind": "city"}
        hybrid = await search(service, query="orbits 27 days", hybrid=True, limit=1)
        assert ids_of(hybrid) == [["moon"]]
        long = await search(service, query="planet " * 2000, limit=1)
        assert (long.truncated, len(long.results[0])) == ([True], 1)
        with pytest.raises(ApiError) as refused:
            await search(service, query=question, rerank=True)
        assert refused.value.body.type == "no_reranker"

    with_service(workspace, use)


def test_hybrid_needs_a_bm25_index(tmp_path: Path) -> None:
    async def use(service: LocalService) -> None:
        with pytest.raises(ApiError) as refused:
            await search(service, query="a", hybrid=True)
        assert "--lexical" in refused.value.body.message

    with_service(small_workspace(tmp_path / "ws"), use)


def test_changes_are_known_to_the_next_search_and_to_other_processes(workspace: Workspace) -> None:
    berlin = PassageBody(id="berlin", title="Berlin", text="Berlin is the capital of Germany.", metadata={"n": 1})

    async def use(service: LocalService) -> None:
        answer = await service.upsert([berlin], soon())
        assert (answer.changed, answer.change) == (1, 1)
        found = await search(service, query="capital of Germany", limit=1)
        assert (ids_of(found), found.change) == ([["berlin"]], 1)
        assert found.results[0][0].payload is not None
        assert found.results[0][0].payload.metadata == {"n": 1}
        kept = await service.passage("berlin")
        assert kept is not None
        assert kept.text == berlin.text
        await service.delete(["rome", "was never there"])
        assert "rome" not in ids_of(await search(service, query="What is the capital of Italy?"))[0]
        assert await service.passage("rome") is None

        # Another process writes to the same log.
        log = Catalog(workspace.local_folder("index")).changes
        vector = np.eye(1, 384, dtype=np.float32)[0]
        log.append([Change.upsert(Passage(id="other", text="x"), resolve("embedded:minilm-l6").fingerprint, vector)])
        assert "other" in ids_of(await search(service, query="anything", limit=100))[0]

    with_service(workspace, use)
    # They are there after a restart, and for a version that was built before them.
    with_service(workspace, lambda service: _finds(service, "capital of Germany", "berlin"))


async def _finds(service: LocalService, query: str, wanted: str) -> None:
    assert ids_of(await search(service, query=query, limit=1)) == [[wanted]]


def test_a_log_that_is_damaged_meanwhile_stops_nosearch(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        await service.upsert([PassageBody(id="berlin", text="Berlin is the capital of Germany.")], soon())
        with (workspace.local_folder("index") / "changes.jsonl").open("a") as log:
            log.write('{"changes":[],"checksum":"0000000000000000"}\n')
        answer = await search(service, query="capital of Germany", limit=1)
        assert (ids_of(answer), answer.change) == ([["berlin"]], 1)
        problem = (await service.versions()).problem
        assert problem is not None
        assert "changes.jsonl" in problem

    with_service(workspace, use)


def test_versions_are_swapped_and_rolled_back(workspace: Workspace) -> None:
    build(workspace, "v2", PASSAGES[:2])

    async def use(service: LocalService) -> None:
        swapped = await service.activate("v2")
        assert (swapped.active, swapped.previous, swapped.replicas) == ("v2", "v1", 1)
        assert (await search(service, query="a", limit=100)).index_version == "v2"
        listed = await service.versions()
        assert (listed.active, listed.previous, listed.replicas) == ("v2", "v1", {"v2": 1})
        assert {v.version for v in listed.versions} == {"v1", "v2"}
        assert (await service.roll_back()).active == "v1"
        assert len(ids_of(await search(service, query="a", limit=100))[0]) == 4
        for name in ("v3", "../v2", "/etc", "http://host/v2", ""):
            with pytest.raises(ApiError) as refused:
                await service.activate(name)
            assert refused.value.body.type == "no_such_version"

    with_service(workspace, use)


def test_one_swap_at_a_time(workspace: Workspace) -> None:
    build(workspace, "v2", PASSAGES[:2])

    async def use(service: LocalService) -> None:
        answers = await asyncio.gather(*(service.activate("v2") for _ in range(3)), return_exceptions=True)
        refused = [a for a in answers if isinstance(a, ApiError)]
        assert {a.body.type for a in refused} <= {"swap_running"}
        assert len(refused) < 3
        assert (await service.versions()).active == "v2"

    with_service(workspace, use)


def test_a_pointer_that_another_process_moved_is_followed(workspace: Workspace) -> None:
    build(workspace, "v2", PASSAGES[:2])

    async def use(service: LocalService) -> None:
        Catalog(workspace.local_folder("index")).activate("v2")
        for _ in range(200):
            answer = await search(service, query="a", limit=100)
            assert len(answer.results[0]) == (4 if answer.index_version == "v1" else 2)
            if answer.index_version == "v2":
                return
            await asyncio.sleep(0.05)
        pytest.fail("the pointer was not followed")

    with_service(workspace, use)


@pytest.mark.parametrize("file", ["index-000.faiss", "passages-000.arrow", "manifest.json"])
def test_a_damaged_version_is_refused_and_the_old_one_goes_on(workspace: Workspace, file: str) -> None:
    build(workspace, "v2", PASSAGES[:2])
    path = workspace.local_folder("index/v2") / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    async def use(service: LocalService) -> None:
        with pytest.raises(ApiError) as refused:
            await service.activate("v2")
        assert refused.value.body.code == 409
        assert "damaged" in refused.value.body.message
        answer = await search(service, query="What is the capital of Italy?", limit=1)
        assert (answer.index_version, ids_of(answer)) == ("v1", [["rome"]])
        pointer = Catalog(workspace.local_folder("index")).active()
        assert pointer is not None
        assert pointer.version == "v1"

    with_service(workspace, use)


def test_a_version_that_does_not_find_its_canaries_is_refused(workspace: Workspace) -> None:
    build(workspace, "v2", PASSAGES[:2])
    folder = workspace.local_folder("index/v2")
    from causalneg.indexing.manifest import read_manifest

    manifest = read_manifest(folder)
    wrong = [canary.model_copy(update={"id": "gone", "text": "something else"}) for canary in manifest.canaries]
    assert wrong
    (folder / "manifest.json").write_text(manifest.model_copy(update={"canaries": wrong}).sealed().model_dump_json())

    async def use(service: LocalService) -> None:
        with pytest.raises(ApiError, match="does not find its passage"):
            await service.activate("v2")

    with_service(workspace, use)


def test_a_merge_holds_the_changes_and_answers_the_same(workspace: Workspace) -> None:
    berlin = PassageBody(id="berlin", title="Berlin", text="Berlin is the capital of Germany.")

    async def use(service: LocalService) -> None:
        await service.upsert([berlin], soon())
        await service.delete(["rome"])
        before = await search(service, query="a capital", limit=100)
        assert (await service.merge()).state == "started"
        assert (await service.merge()).state == "running"
        for _ in range(600):
            after = await search(service, query="a capital", limit=100)
            if after.index_version != "v1":
                break
            await asyncio.sleep(0.1)
        assert after.index_version != "v1"
        assert ids_of(after) == ids_of(before)
        assert [h.score for h in after.results[0]] == pytest.approx([h.score for h in before.results[0]], abs=2e-3)
        merged = next(v for v in (await service.versions()).versions if v.version == after.index_version)
        assert (merged.change, merged.rows) == (2, 4)
        # Whatever version answers, the passages are the same.
        await service.roll_back()
        assert ids_of(await search(service, query="a capital", limit=100)) == ids_of(before)

    with_service(workspace, use)


def test_too_many_changes_start_a_merge(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        await service.upsert([PassageBody(id=f"p{n}", text=f"Passage number {n}.") for n in range(3)], soon())
        assert (await service.merge()).state == "running"

    with_service(workspace, use, merge_at=3)


def test_overload_is_refused_with_a_time_to_come_back(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        one, many = [SearchRequest(query="a"), SearchRequest(queries=["a", "b"] * 8)]
        asked = [service.search(request, soon()) for request in [one, many] * 40]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [a for a in answers if isinstance(a, ApiError)]
        assert refused
        assert {(a.body.code, a.body.type) for a in refused} == {(429, "overloaded")}
        assert all(int(a.headers["Retry-After"]) >= 1 for a in refused)
        answered = [a for a in answers if isinstance(a, SearchResponse)]
        assert len(answered) + len(refused) == 80
        assert answered
        assert service.waiting == 0

    with_service(workspace, use, max_waiting_tokens=100)


class Counted(Deadline):
    """Counts the parts after the first."""

    parts = 0

    def begin_part(self) -> None:
        self.parts += 1
        super().begin_part()


def test_a_large_batch_is_worked_on_in_parts(workspace: Workspace) -> None:
    texts = [f"{'word ' * (number % 9)}{number}" for number in range(60)]

    async def use(service: LocalService) -> None:
        deadline = Counted(60)
        together = await service.embed(texts, None, deadline, dimensions=None, normalise=True, cut=None)
        assert deadline.parts > 10
        assert len(together.vectors) == 60
        alone = [await service.embed([t], None, soon(), dimensions=None, normalise=True, cut=None) for t in texts[::7]]
        assert together.vectors[::7] == pytest.approx(np.concatenate([a.vectors for a in alone]), abs=1e-5)
        assert [tokens for a in alone for tokens in a.tokens] == together.tokens[::7]
        found = await search(service, queries=texts, limit=1)
        assert ids_of(found)[::7] == [ids_of(await search(service, query=t, limit=1))[0] for t in texts[::7]]

    with_service(workspace, use, batch_tokens=32)


def test_a_batch_that_has_begun_is_not_refused_for_overload(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        large = asyncio.create_task(search(service, queries=["a b c"] * 60, limit=1))
        await asyncio.sleep(0)
        small = [search(service, query="a", limit=1) for _ in range(80)]
        answers = await asyncio.gather(large, *small, return_exceptions=True)
        assert isinstance(answers[0], SearchResponse)
        assert {a.body.code for a in answers if isinstance(a, ApiError)} == {429}

    with_service(workspace, use, batch_tokens=32, max_waiting_tokens=100)


def test_an_upsert_says_what_was_cut(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        long, short = PassageBody(id="long", text="planet " * 2000), PassageBody(id="short", text="A planet.")
        assert (await service.upsert([short, long], soon())).truncated == ["long"]
        assert (await service.upsert([short], soon())).truncated == []
        assert (await service.delete(["long"])).truncated == []

    with_service(workspace, use)


def test_a_deadline_that_has_passed_is_not_worked_for(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        with pytest.raises(ApiError) as late:
            await service.search(SearchRequest(query="a"), Deadline(-1))
        assert late.value.body.code == 504

    with_service(workspace, use)


def test_a_server_that_shuts_down_answers_what_it_took(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        taken = [asyncio.create_task(search(service, query=q, limit=1)) for q in list(QUESTIONS) * 4]
        await asyncio.sleep(0.01)
        await service.drain()
        assert service.ready() is not None
        answers = await asyncio.gather(*taken, return_exceptions=True)
        assert {a.body.code for a in answers if isinstance(a, ApiError)} <= {503}
        assert any(isinstance(a, SearchResponse) for a in answers)
        with pytest.raises(ApiError, match="shutting down"):
            await search(service, query="a")

    with_service(workspace, use)


def test_texts_are_encoded(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        async def embed(inputs: list[Any], **options: Any) -> np.ndarray:
            asked = {"dimensions": None, "normalise": True, "cut": None, **options}
            name = asked.pop("prompt_name", None)
            return (await service.embed(inputs, name, soon(), **asked)).vectors

        text = "Rome is the capital of Italy."
        (vector,) = await embed([text])
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        short = (await embed([text], dimensions=16))[0]
        assert short == pytest.approx(vector[:16] / np.linalg.norm(vector[:16]), abs=1e-5)
        assert (await embed([text], prompt_name="query"))[0] == pytest.approx(vector, abs=1e-5)
        for inputs, options, status in (
            ([text], {"dimensions": 385}, 422),
            ([text], {"prompt_name": "no such"}, 422),
            (["long " * 1000], {}, 413),
        ):
            with pytest.raises(ApiError) as refused:
                await embed(inputs, **options)
            assert refused.value.body.code == status
        assert (await embed(["long " * 1000], cut="right")).shape == (1, 384)

    with_service(workspace, use)


def test_the_model_of_an_old_version_is_kept_when_another_is_trained(workspace: Workspace) -> None:
    """Covers `find_model`: the copy beside the index is taken before the model folder, which has changed."""
    catalog = Catalog(workspace.local_folder("index"))
    model = resolve("embedded:minilm-l6")
    folder = workspace.local_folder("index/v1")
    from causalneg.indexing.manifest import read_manifest

    manifest = read_manifest(folder)
    trained = manifest.model.model_copy(update={"name": "trained"})
    (folder / "manifest.json").write_text(manifest.model_copy(update={"model": trained}).sealed().model_dump_json())
    other = shutil.copytree(model.path, workspace.local_folder("model"))
    config = json.loads((Path(other) / "config_sentence_transformers.json").read_text())
    (Path(other) / "config_sentence_transformers.json").write_text(json.dumps(config | {"similarity_fn_name": "dot"}))
    with pytest.raises(UserError, match="run `causalneg index` again"):
        open_service_of(workspace)
    shutil.copytree(model.path, catalog.model_folder(model.fingerprint))
    with_service(workspace, lambda service: _finds(service, "What is the capital of Italy?", "rome"))


def open_service_of(workspace: Workspace) -> None:
    """Open the service and close it again."""

    async def use(_: LocalService) -> None:
        return None

    with_service(workspace, use)


def test_a_prepared_encoder_starts_without_torch(workspace: Workspace) -> None:
    pytest.importorskip("openvino")
    code = (
        "import sys, asyncio\n"
        "from causalneg.config import load_config\n"
        "from causalneg.serving.opening import open_service\n"
        "async def main():\n"
        "    service, _ = open_service(load_config(flags={'workspace': sys.argv[1], 'serve.backend': 'openvino'}))\n"
        "    print(service.info().backend, 'torch' in sys.modules)\n"
        "    await service.close()\n"
        "asyncio.run(main())\n"
    )
    for _ in range(2):  # the first may have to prepare it
        done = subprocess.run([sys.executable, "-c", code, workspace.root], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino", "False"]
