"""Settings: defaults, then the file, then flags; a wrong one is refused in a sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from causalneg.config import Config, load_config, settings_names
from causalneg.errors import UserError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> str:
    """Return what `load_config` complains of: one sentence on one line."""
    with pytest.raises(UserError) as caught:
        load_config(path, flags)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "seed: 5\nmine:\n  search:\n    depth: 20\n  num_negatives: 4\ngenerate:\n  gates:\n    max_overlap: 0.9\n",
    )
    config = load_config(path, {"mine.search.depth": 30, "generate.gates.min_hardness": 0.5, "import.source": "x.zip"})
    default = Config()
    assert config.seed == 5
    assert (config.mine.search.depth, config.mine.num_negatives) == (30, 4)
    assert config.mine.relative_margin == default.mine.relative_margin
    assert config.generate.gates.max_overlap == 0.9
    assert config.generate.gates.min_hardness == 0.5
    assert config.import_.source == "x.zip"
    assert config.train == default.train


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text)) == Config() == load_config()


@pytest.mark.parametrize(
    ("text", "wrong", "near"),
    [
        ("trian:\n  epochs: 1\n", "trian", "train"),
        ("mine:\n  search:\n    dept: 5\n", "mine.search.dept", "mine.search.depth"),
        ("generate:\n  gates:\n    max_overlp: 1\n", "generate.gates.max_overlp", "generate.gates.max_overlap"),
        ("import:\n  sorce: x\n", "import.sorce", "import.source"),
    ],
)
def test_an_unknown_name_in_the_file_names_the_nearest(tmp_path: Path, text: str, wrong: str, near: str) -> None:
    message = complaint(written(tmp_path, text))
    assert "settings.yaml" in message
    assert repr(wrong) in message
    assert repr(near) in message


def test_an_unknown_flag_names_the_nearest() -> None:
    message = complaint(flags={"train.epoch": 3})
    assert "'train.epoch'" in message
    assert "'train.epochs'" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mine.search.depth", "many"),
        ("mine.search.depth", 0),
        ("mine.search.depth", 2.5),
        ("mine.search.depth", None),
        ("train.loss.temperature", -0.05),
        ("train.loss.temperature", float("nan")),
        ("train.precision", "fp8"),
        ("import.test_share", 1),
        ("serve.port", 70_000),
        ("encoder", 5),
        ("evaluate.measures", "nDCG@10"),
        ("generate.engine.replicas", []),
        ("mine", "all"),
    ],
)
def test_a_wrong_value_is_one_sentence_from_file_and_flag_alike(tmp_path: Path, name: str, value: object) -> None:
    import yaml

    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    for message in (complaint(written(tmp_path, yaml.safe_dump(nested))), complaint(flags={name: value})):
        assert name in message
        assert repr(value) in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"train.weights": [{"source": "generated"}]}, ["train.weights", "weight", "required"]),
        ({"train.weights": [{"weight": 0.2, "score": "dense"}]}, ["at_least", "below"]),
        ({"train.weights": [{"weight": 0.2, "below": 0.5}]}, ["score"]),
        ({"train.weights": [{"weight": 0.2, "start": 1, "begin": 0.5, "end": 0.2}]}, ["begin 0.5", "end 0.2"]),
        ({"train.weights": [{"weight": 0.2, "violation": "typo"}]}, ["violation", "entity_shift"]),
        ({"train.weights": [{"weight": 0.2, "sauce": "mined"}]}, ["sauce"]),
        ({"train.loss.matryoshka_dims": [0]}, ["matryoshka_dims"]),
        (
            {"train.loss.matryoshka_dims": [8, 4], "train.loss.matryoshka_weights": [1]},
            ["1 values", "2 matryoshka_dims"],
        ),
        ({"train.workers": 2, "train.min_workers": 3}, ["min_workers 3", "workers 2"]),
    ],
)
def test_settings_that_do_not_fit_each_other_are_named(flags: dict[str, Any], words: list[str]) -> None:
    message = complaint(flags=flags)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\nmine: [1, 2\n", "line 3"),
        ("seed: 1\nmine:\n  depth: 5\n bad: 1\n", "line 4"),
        ("seed: 1\nencoder: a: b\n", "line 2"),
        ("seed: 1\nmine:\n\tdepth: 5\n", "line 3"),
        ("seed: !!python/object/apply:os.getcwd []\n", "line 1"),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path: Path, text: str, line: str) -> None:
    message = complaint(written(tmp_path, text))
    assert "settings.yaml" in message
    assert line in message


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00seed", b"seed: \x01", "- a\n- b\n", "just text", "seed: 2024-13-45\n", "1: 2\n"]
)
def test_what_is_no_settings_file_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert "settings.yaml" in complaint(written(tmp_path, content))


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "absent.yaml does not exist" in complaint(tmp_path / "absent.yaml")
    assert str(tmp_path) in complaint(tmp_path)


def test_every_setting_has_a_dotted_name_that_fills_it() -> None:
    for name, field in settings_names(Config).items():
        value: Any = load_config(flags={name: field.default})
        for part in name.split("."):
            value = getattr(value, {"import": "import_", "json": "json_"}.get(part, part))
        assert value == field.default


def test_the_configs_of_the_repository_are_valid(repository: Path) -> None:
    paths = sorted((repository / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        load_config(path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"generate.engine.tensor_parallel": 2}, "tensor_parallel 2 needs gpus"),
        ({"generate.engine.url": "http://127.0.0.1:1/v1", "generate.engine.replicas": 2}, "replicas 1"),
    ],
)
def test_engines_that_cannot_be_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_config(flags=flags)
