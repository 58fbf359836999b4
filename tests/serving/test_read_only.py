"""A workspace that may only be read is served, exported from and looked at; nothing is written there."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_index import small_workspace

from causalneg.workspace import Workspace

SEARCH = """
import asyncio, sys
from causalneg.config import load_config
from causalneg.serving.deadline import Deadline
from causalneg.serving.opening import open_service
from causalneg.serving.schema import SearchRequest
async def main():
    service, _ = open_service(load_config(flags={"workspace": sys.argv[1], "serve.backend": "torch-fp32"}))
    answer = await service.search(SearchRequest(query="capital of Italy", limit=1), Deadline(60))
    print(answer.results[0][0].id)
    await service.close()
asyncio.run(main())
"""


def _unprivileged() -> list[str]:
    """Return what a command of root begins with to be refused what others are; skip where there is no way."""
    if os.geteuid():
        return []
    dropped = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
    if (
        shutil.which("setpriv") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("root may write everywhere, and setpriv cannot take that from it here")
    return command


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An indexed workspace whose files and folders may only be read."""
    made = small_workspace(tmp_path / "ws")
    paths = [tmp_path / "ws", *(tmp_path / "ws").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield made
    for path in paths:
        path.chmod(0o755)


def _run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CAUSALNEG_CACHE": str(tmp_path / "cache")}
    command = [*_unprivileged(), sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def _listed(workspace: Workspace) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in Path(workspace.root).rglob("*"))


def test_its_index_answers(workspace: Workspace, tmp_path: Path) -> None:
    before = _listed(workspace)
    done = _run(tmp_path, "-c", SEARCH, workspace.root)
    assert done.stdout.split() == ["rome"], done.stderr
    assert _listed(workspace) == before


def test_serve_writes_its_log_elsewhere_and_inspect_none(workspace: Workspace, tmp_path: Path) -> None:
    before = _listed(workspace)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = _run(tmp_path, "-m", "causalneg.cli", "serve", "--workspace", workspace.root, "--port", port)
    assert "is in use" in done.stderr, "it came as far as the port"
    assert [path.name.endswith("-serve.log") for path in (tmp_path / "cache" / "logs").iterdir()] == [True]
    done = _run(tmp_path, "-m", "causalneg.cli", "inspect", workspace.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert _listed(workspace) == before


def test_a_command_that_writes_there_says_that_it_cannot(workspace: Workspace, tmp_path: Path) -> None:
    done = _run(tmp_path, "-m", "causalneg.cli", "mine", "--workspace", workspace.root)
    assert done.returncode == 2
    assert "logs cannot be made (Permission denied); name a --workspace that can be written" in done.stderr
