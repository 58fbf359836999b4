"""What reaches the terminal, and what goes to the log."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from causalneg.console import Reporter


def output(report: Reporter) -> str:
    assert isinstance(report.console.file, io.StringIO)
    return report.console.file.getvalue()


def test_progress_without_a_terminal_is_lines(report: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalneg.console._PLAIN_EVERY", 0.0)
    with report.meter("encoding", 10, "passages", done=4) as meter:
        meter.advance()
        meter.advance(2, note="[batch 3]")
    first, second = output(report).splitlines()
    assert re.fullmatch(r"  encoding: 5/10 passages", first)
    assert re.fullmatch(r"  encoding: 7/10 passages, about \d+ s left \[batch 3\]", second)


def test_progress_without_a_terminal_is_not_a_flood(report: Reporter) -> None:
    with report.meter("encoding", 100_000, "passages") as meter:
        for _ in range(1000):
            meter.advance(100)
    assert len(output(report).splitlines()) <= 1


def test_lines_and_tables_are_shown_as_they_are(report: Reporter) -> None:
    line = "[red]kept[/red] " + "long " * 60 + "/a/path/[0].parquet"
    report.line(line, style="bold")
    report.table("Counts", ["stage", "rows"], [["import", "12,345"], ["mine", "7"]])
    first, *table = output(report).splitlines()
    assert first == line
    assert table[0].rstrip() == "Counts"
    assert any("import" in row and "12,345" in row for row in table)
    assert "\x1b" not in output(report)


SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from causalneg.console import own_terminal
os.write(2, b"before\\n")
with own_terminal(Path(sys.argv[1])) as report:
    report.line("ours")
    print("python out")
    print("python err", file=sys.stderr)
    os.write(1, b"c level out\\n")
    os.write(2, b"c level err\\n")
    subprocess.run(["sh", "-c", "echo child out; echo child err >&2"], check=True)
    with report.meter("encoding", 2, "passages") as meter:
        meter.advance()
    if sys.argv[2] == "fail":
        raise SystemExit("failed inside")
    report.line("Tōkyō \\ud800")
print("after out", flush=True)
os.write(2, b"after err\\n")
"""
REST = {"python out", "python err", "c level out", "c level err", "child out", "child err"}


def run_script(log: Path, how: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", SCRIPT, str(log), how]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"}, check=False)


def test_only_our_lines_reach_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    done = run_script(log, "well")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["before", "ours", "Tōkyō ?", "after err"]
    assert done.stdout == "after out\n"
    assert set(log.read_text().splitlines()) == REST


def test_the_terminal_is_given_back_after_a_failure(tmp_path: Path) -> None:
    done = run_script(tmp_path / "a.log", "fail")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["before", "ours", "failed inside"]
    assert set((tmp_path / "a.log").read_text().splitlines()) >= REST


def test_a_log_is_added_to(tmp_path: Path) -> None:
    for _ in range(2):
        run_script(tmp_path / "a.log", "well")
    assert (tmp_path / "a.log").read_text().count("child err") == 2
