"""The command line: help, exit codes, and one sentence for each mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

from causalneg.cli import COMMANDS, _flag_names, _load, main
from causalneg.config import Config, settings_names

STAGES = [c for c in COMMANDS if c not in ("keys", "compare", "inspect", "run", "demo")]


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that defaults write nowhere else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused, and return its one line."""
    code = main(arguments)
    seen = capfd.readouterr()
    assert code == 2
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mien"], ["'mien'", "'mine'"]),
        (["xyzzy"], ["'xyzzy'"]),
        (["mine", "--search.dept", "5"], ["--search.dept", "'--search.depth'"]),
        (["mine", "--search.dept=5"], ["--search.dept", "'--search.depth'"]),
        (["train", "--train.epochs", "1"], ["--train.epochs", "'--epochs'"]),
        (["run", "--epochs", "1"], ["--epochs", "'--train.epochs'"]),
        (["mine", "extra"], ["extra"]),
        (["mine", "--search.depth"], ["--search.depth", "--help"]),
        (["train", "--gpu", "maybe"], ["maybe"]),
        (["train", "--gpu=maybe"], ["train.gpu", "'maybe'"]),
        (["train", "--no-epochs"], ["--no-epochs"]),
        (["mine", "--search.depth", "many"], ["mine.search.depth", "'many'"]),
        (["mine", "--search.depth", "0"], ["mine.search.depth"]),
        (["mine", "--search.depth", "[1"], ["mine.search.depth"]),
        (["mine", "--search.depth", "2024-13-45"], ["mine.search.depth"]),
        (["train", "--seed", "null"], ["seed"]),
        (["mine", "--config", "absent.yaml"], ["absent.yaml does not exist"]),
        (["import", "--source", "absent.zip"], ["absent.zip does not exist", "--source"]),
        (["import", "--workspace", "nosuch://bucket/ws"], ["nosuch://bucket/ws"]),
        (["mine", "--encoder", "embedded:nosuch", "--workspace", "imported"], ["'nosuch'", "embedded:minilm-l6"]),
    ],
)
@pytest.mark.usefixtures("in_empty_folder")
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], parts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    if "imported" in arguments:
        assert main(["import", "--workspace", "imported"]) == 0
        capfd.readouterr()
    line = mistake(capfd, *arguments)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("mine", "import"),
        ("generate", "import"),
        ("export", "import"),
        ("train", "generate"),
        ("index", "import"),
        ("serve", "index"),
        ("evaluate", "import"),
    ],
)
@pytest.mark.usefixtures("in_empty_folder")
def test_a_stage_names_the_one_that_is_missing(command: str, missing: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("workspace").mkdir()
    line = mistake(capfd, command)
    assert "causalneg " in line
    assert missing in line


def test_broken_data_is_one_line(in_empty_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (in_empty_folder / "pairs.jsonl").write_text('{"query": "q", "positive": "p"}\n{"query": "q"\n')
    assert "pairs.jsonl, line 2" in mistake(capfd, "import", "--source", "pairs.jsonl")


def test_a_workspace_that_cannot_be_made_is_one_line(in_empty_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (in_empty_folder / "file").write_text("")
    assert "file" in mistake(capfd, "import", "--workspace", "file")
    assert "file/ws" in mistake(capfd, "import", "--workspace", "file/ws")


def test_in_a_ray_job_the_workspace_is_absolute(
    in_empty_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "absolute" in mistake(capfd, "import", "--workspace", "ws")
    assert main(["import", "--workspace", str(in_empty_folder / "ws")]) == 0


def test_import_prints_its_counts_and_logs_in_the_workspace(
    in_empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "--workspace", "ws"]) == 0
    seen = capfd.readouterr()
    assert "import: " in seen.err
    assert "passages" in seen.err
    assert [p.name.endswith("-import.log") for p in (in_empty_folder / "ws" / "logs").iterdir()] == [True]


def test_our_own_failure_keeps_the_traceback_in_the_log(tmp_path: Path) -> None:
    script = """
import causalneg.sources.run as stage
from causalneg.cli import main
def broken(*arguments):
    raise RuntimeError("first line\\nsecond line")
stage.run = broken
raise SystemExit(main(["import", "--workspace", "ws"]))
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    error, hint = run.stderr.splitlines()
    (log,) = (tmp_path / "ws" / "logs").iterdir()
    assert error == "error: RuntimeError: first line"
    assert str(log) in hint
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_settings(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capfd.readouterr().out
    own = {"import": "--source", "mine": "--num-negatives", "generate": "--gates.min-hardness", "train": "--epochs"}
    own |= {"export": "--format", "inspect": "--json", "index": "--kind", "serve": "--port", "evaluate": "--measures"}
    own |= {"mteb": "--tasks", "keys": "--role", "run": "--train.epochs", "demo": "--generate.engine.replicas"}
    own |= {"compare": "--qrels", "relabel": "--judge-llm"}
    for flag in ("--config", "--workspace", "--seed", own[command]):
        assert flag in text


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_usage_lists_the_commands(arguments: list[str], code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    text = capfd.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in text


def test_the_program_answers_fast_and_without_the_heavy_libraries() -> None:
    script = "import sys; from causalneg.cli import main; main(['--version'])\n"
    script += "assert not {'torch', 'ray', 'faiss', 'vllm', 'transformers'} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("causalneg ")


@pytest.mark.parametrize("stage", [*STAGES, "run"])
def test_each_stage_has_a_job(stage: str, repository: Path, tmp_path: Path) -> None:
    named = {"import": "import_data", "mteb": "run_mteb"}  # their own names belong to Python and to MTEB's package
    job = repository / "jobs" / f"{named.get(stage, stage)}.py"
    run = subprocess.run(
        [sys.executable, str(job), "--no-such-flag"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: causalneg {stage}: there is no flag --no-such-flag")


SWITCHES = [
    (command, flag, name)
    for command in COMMANDS
    for flag, name in _flag_names(command).items()
    if settings_names(Config)[name].annotation is bool
]


@pytest.mark.parametrize(("command", "flag", "name"), SWITCHES, ids=lambda value: value)
def test_a_switch_needs_no_value_and_takes_one(command: str, flag: str, name: str) -> None:
    option = flag.replace("_", "-")

    def value(*arguments: str) -> bool:
        group, _, last = name.rpartition(".")
        found = _load(command, arguments)
        for part in group.split("."):
            found = getattr(found, {"import": "import_"}.get(part, part))
        return getattr(found, {"json": "json_"}.get(last, last))

    for on in ([f"--{option}"], [f"--{option}", "--seed", "1"], [f"--{option}", "true"], [f"--{option}=yes"]):
        assert value(*on)
    for off in ([f"--no-{option}"], [f"--{option}", "false"], [f"--{option}=false"]):
        assert not value(*off)


def test_a_switch_does_not_swallow_what_follows() -> None:
    assert _load("inspect", ["--json", "my-workspace"]).workspace == "my-workspace"
    assert _load("train", []) == Config()
    assert _load("compare", ["--json", "base", "trained"]).compare.runs == ["base", "trained"]


@pytest.mark.parametrize(
    ("text", "value"), [("query: ", "query: "), ("null", None), ("", ""), ("[a]", "[a]"), ("5", "5")]
)
def test_a_text_that_may_be_unset_is_taken_as_it_is(text: str, value: str | None) -> None:
    config = _load("train", ["--encoder.query-prompt", text])
    assert config.train.encoder.query_prompt == value
