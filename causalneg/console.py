"""What the user sees: our lines, tables and progress. Everything else that prints goes to a log file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_PLAIN_EVERY = 15.0  # seconds between progress lines where there is no terminal


class Meter:
    """Progress of one stage: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, title: str, total: int, unit: str, done: int) -> None:
        self._console, self._title, self._total, self._unit = console, title, total, unit
        self._done = self._first = done
        self._said = time.monotonic()
        self._started: float | None = None  # set by the first step: what comes before is start-up, not pace
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            note = TextColumn("[dim]{task.fields[note]}[/dim]")
            self._bar = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), note, console=console, transient=True
            )
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more units as done."""
        self._done += steps
        if self._bar:
            self._bar.update(self._task, advance=steps, note=note)
            return
        now = time.monotonic()
        if self._started is None:
            self._started, self._first = now, self._done
        if now - self._said < _PLAIN_EVERY:
            return
        self._said = now
        pace = (now - self._started) / max(1, self._done - self._first)
        left = f", about {pace * (self._total - self._done):.0f} s left" if self._done > self._first else ""
        line = f"  {self._title}: {self._done}/{self._total} {self._unit}{left} {note}"
        self._console.print(line.rstrip(), highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()


class Reporter:
    """Writes to the user's terminal.

    Args:
        stream: where to write; standard error when unset.
        log: file that everything else goes to, named in errors.
    """

    def __init__(self, stream: IO[str] | None = None, log: Path | None = None) -> None:
        width = None if (stream or sys.stderr).isatty() else 120
        self.console = Console(file=stream or sys.stderr, width=width, highlight=False)
        self.log = log

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line as it is."""
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        """Print a table; every column after the first is aligned to the right."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for position, name in enumerate(header):
            table.add_column(name, justify="right" if position else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    @contextmanager
    def meter(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Meter]:
        """Show the progress of `total` units, `done` of which an earlier run finished."""
        meter = Meter(self.console, title, total, unit, done)
        try:
            yield meter
        finally:
            meter.close()


@contextmanager
def own_terminal(log: Path) -> Iterator[Reporter]:
    """Keep the terminal for a Reporter and send all else this process and its children print to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_out, saved_err = os.dup(1), os.dup(2)
    with log.open("ab") as sink, os.fdopen(os.dup(saved_err), "w", buffering=1, errors="replace") as terminal:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Reporter(terminal, log)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved_out, 1)
            os.dup2(saved_err, 2)
            os.close(saved_out)
            os.close(saved_err)
