"""Model names: embedded ones, local folders, hub ids; whole or refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from training_samples import tiny_encoder, tiny_llama

from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.models import Start, cache_dir, resolve
from causalneg.prompts import said_prompts, used_prompts


@pytest.fixture
def encoder_copy(tmp_path: Path) -> Path:
    """A copy of the embedded encoder as a local folder."""
    return shutil.copytree(resolve("embedded:minilm-l6").path, tmp_path / "encoder")


def test_the_embedded_encoder_is_a_folder_of_safetensors() -> None:
    model = resolve("embedded:minilm-l6")
    assert model.name == "embedded:minilm-l6"
    assert (model.path / "modules.json").is_file()
    assert list(model.path.rglob("*.safetensors"))


def test_an_unknown_embedded_name_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"'minilm-l7'.*embedded:smollm2-135m and embedded:minilm-l6"):
        resolve("embedded:minilm-l7")


def test_a_local_folder_has_the_fingerprint_of_its_content(encoder_copy: Path) -> None:
    embedded, local = resolve("embedded:minilm-l6"), resolve(str(encoder_copy))
    assert local.path == encoder_copy
    assert local.fingerprint == embedded.fingerprint
    weights = next(encoder_copy.rglob("*.safetensors"))
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert resolve(str(encoder_copy)).fingerprint != embedded.fingerprint


def test_a_relative_folder_is_found(encoder_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(encoder_copy.parent)
    assert resolve("encoder").path == resolve("./encoder").path == encoder_copy


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent-model"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} does not exist"):
        resolve(name)


def test_weights_of_another_format_are_refused(encoder_copy: Path) -> None:
    for weights in encoder_copy.rglob("*.safetensors"):
        weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match="no safetensors weights"):
        resolve(str(encoder_copy))


@pytest.mark.parametrize("kind", ["encoder", "LLM"])
def test_an_adapter_without_its_base_is_refused_and_the_remedy_works(tmp_path: Path, kind: str) -> None:
    import peft
    from transformers import AutoModel, AutoModelForCausalLM

    if kind == "LLM":
        base, source, layer = tiny_llama(tmp_path / "base"), AutoModelForCausalLM, "q_proj"
    else:
        base, source, layer = tiny_encoder(tmp_path).parent / "plain", AutoModel, "query"
    adapted = peft.get_peft_model(source.from_pretrained(base), peft.LoraConfig(r=2, target_modules=[layer]))
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError) as refusal:
        resolve(str(tmp_path / "adapter"))
    said = str(refusal.value)
    assert f"is an adapter (PEFT) of {base}" in said
    call = f".from_pretrained('{tmp_path / 'adapter'}').merge_and_unload().save_pretrained(FOLDER)"
    assert call in said

    wrapper = peft.AutoPeftModelForCausalLM if kind == "LLM" else peft.AutoPeftModelForFeatureExtraction
    assert wrapper.__name__ in said
    wrapper.from_pretrained(str(tmp_path / "adapter")).merge_and_unload().save_pretrained(tmp_path / "merged")
    assert resolve(str(tmp_path / "merged")).weights_gib > 0


_NONE = "nothing before queries and nothing before passages"


@pytest.mark.parametrize(
    ("settings", "start", "said"),
    [
        (None, None, _NONE),
        ({"prompts": {"query": "q: "}}, None, "'q: ' before queries and nothing before passages"),
        ({"prompts": {"query": "q: ", "document": "d: "}}, None, "'q: ' before queries and 'd: ' before passages"),
        ({"prompts": {"passage": "p: "}}, None, f"{_NONE}; its prompts passage are for other uses, and left out"),
        ({"prompts": {"any": "a: "}, "default_prompt_name": "any"}, None, f"{_NONE}; its prompts any are for other"),
        (
            {"prompts": {"query": "q: "}},
            Start(query_prompt="", passage_prompt="d: "),
            "nothing before queries and 'd: '",
        ),
    ],
)
def test_prompts_are_said_as_they_are_used(
    tmp_path: Path, settings: dict[str, object] | None, start: Start | None, said: str
) -> None:
    path = tiny_encoder(tmp_path, spread=0.5)
    file = path / "config_sentence_transformers.json"
    file.unlink() if settings is None else file.write_text(json.dumps(settings))
    model = replace(resolve(str(path)), start=start)
    assert said in said_prompts(model)
    prompts, encoder = used_prompts(model), load_encoder(model)
    plain = SentenceTransformer(str(path), device="cpu")
    for kind in ("query", "passage"):
        text = prompts["query" if kind == "query" else "document"] + "w1 w2"
        expected = plain.encode([text], prompt="", normalize_embeddings=True)
        np.testing.assert_allclose(encode(encoder, ["w1 w2"], kind, precision="fp32"), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing-at-all", "a/b/c/d", "bad name!"])
def test_an_unknown_hub_id_is_one_sentence(name: str) -> None:
    script = "import sys; from causalneg.models import resolve; from causalneg.errors import UserError\n"
    script += "try: resolve(sys.argv[1])\nexcept UserError as error: print(error)"
    run = subprocess.run(
        [sys.executable, "-c", script, name],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = run.stdout.splitlines()
    assert name in line
    assert "check the name and the connection" in line


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CAUSALNEG_CACHE", raising=False)
    assert cache_dir() == tmp_path / "xdg" / "causalneg"
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_a_damaged_unpacked_model_is_unpacked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = resolve("embedded:smollm2-135m")
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path))
    copy = shutil.copytree(unpacked.path, tmp_path / "models" / unpacked.path.name)

    # A whole copy is taken as it is.
    before = (copy / "model.safetensors").stat()
    assert resolve("embedded:smollm2-135m").fingerprint == unpacked.fingerprint
    after = (copy / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    # One flipped bit means: unpack it again.
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    mended = resolve("embedded:smollm2-135m")
    assert mended.path == copy
    assert mended.fingerprint == unpacked.fingerprint
    # Nothing in it tells which version of a library unpacked it, and an answer ends where the model ends one.
    assert not any("transformers_version" in file.read_text() for file in copy.glob("*.json"))
    assert "<|im_end|>" in json.loads((copy / "tokenizer_config.json").read_text()).values()
    assert [p.name for p in (tmp_path / "models").iterdir()] == [copy.name]


def test_a_torn_list_of_checksums_is_no_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = resolve("embedded:smollm2-135m")
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path))
    copy = tmp_path / "models" / unpacked.path.name
    copy.mkdir(parents=True)
    (copy / "checksums.json").write_text('{"model.safetensors": "ab')
    # The package is hidden, so that unpacking is seen by its refusal and takes no time.
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="make setup"):
        resolve("embedded:smollm2-135m")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [copy.name]
