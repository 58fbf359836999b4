"""What `pip install causalneg` alone gives: the client, and a command that says what else there is."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from client_servers import found, scripted

# The base's dependencies, with their own.
BASE = {
    "httpx": "httpx httpcore h11 anyio idna certifi sniffio",
    "pydantic": "pydantic pydantic_core annotated_types typing_extensions typing_inspection",
}
ONLY_THE_BASE = f"""
import sys
class Blocked:
    allowed = {{*sys.stdlib_module_names, "causalneg", *{" ".join(BASE.values()).split()!r}}}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ONLY_THE_BASE + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_base_is_what_the_client_needs(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert {wanted.split(">")[0] for wanted in project["dependencies"]} == set(BASE)
    for extra in ("cpu", "gpu"):
        assert any(wanted.startswith("causalneg[pipeline") for wanted in project["optional-dependencies"][extra])


def test_the_client_searches_with_the_base_alone() -> None:
    with scripted(found("a")) as (url, _):
        done = _run(
            "from causalneg.client import Client\n"
            "print([hit.id for hit in Client(sys.argv[1]).search('q', filter={'must': [{'has_id': ['a']}]})])",
            url,
        )
    assert done.stderr == ""
    assert done.stdout == "['a']\n"


def test_vectors_name_the_package_that_they_need() -> None:
    done = _run("from causalneg.client import Client\nClient('http://127.0.0.1:9').embed('a')")
    assert done.stderr.splitlines()[-1].endswith("install it with `pip install numpy`.")


@pytest.mark.parametrize("arguments", [["serve"], ["--help"], ["run", "--workspace", "ws"]])
def test_the_command_names_the_extra_that_it_needs(arguments: list[str], tmp_path: Path) -> None:
    done = _run(
        "import os; os.chdir(sys.argv.pop(1)); from causalneg.__main__ import main; sys.exit(main())",
        str(tmp_path),
        *arguments,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: The package ")
    assert "pip install 'causalneg[cpu]'" in line


def test_a_stage_whose_package_is_missing_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    code = "import sys; sys.modules['scipy'] = None; from causalneg.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "--workspace", "ws"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: The package scipy is not installed")
