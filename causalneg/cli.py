"""The command line: one command per stage, the same settings as flags, one sentence for a user's mistake."""

import argparse
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn, Protocol

from causalneg import __version__
from causalneg.config import Config, flag_value, load_config, settings_names
from causalneg.console import Reporter, own_terminal
from causalneg.errors import UserError
from causalneg.installed import needs_pipeline
from causalneg.names import nearest
from causalneg.termination import Termination, supervised
from causalneg.workspace import Workspace

# Command: (module with `run`, what it does). A module is imported when its command is given.
COMMANDS = {
    "import": ("causalneg.sources.run", "read a data set into the workspace"),
    "mine": ("causalneg.mining.run", "mine hard negatives from the corpus"),
    "relabel": ("causalneg.generation.relabel.run", "let the LLM find mined negatives that answer their query"),
    "generate": ("causalneg.generation.run", "let the LLM write counterfactual negatives, and check them"),
    "export": ("causalneg.sources.export.run", "write pairs and negatives as another tool trains on them"),
    "train": ("causalneg.training.run", "train the encoder with mined and generated negatives"),
    "index": ("causalneg.indexing.run", "encode the corpus and build the index"),
    "serve": ("causalneg.serving.run", "serve the retriever over HTTP until interrupted"),
    "keys": ("causalneg.serving.keys", "make an API key for the server, or remove it"),
    "evaluate": ("causalneg.evaluation.run", "compare the trained encoder with the one it started from"),
    "mteb": ("causalneg.evaluation.mteb.run", "evaluate an encoder on retrieval tasks of MTEB, or on your own as one"),
    "compare": ("causalneg.evaluation.compare", "compare runs query by query: causalneg compare RUN_A RUN_B …"),
    "inspect": ("causalneg.inspection.run", "show what is in a workspace: causalneg inspect WORKSPACE"),
    "run": ("causalneg.pipeline", "all stages up to evaluate, one after the other"),
    "demo": ("causalneg.demo", "all stages on the embedded sample, then query the server"),
}
_WHOLE = ("run", "demo")  # commands whose flags name their stage: --train.epochs
_ENDLESS = ("serve",)  # it ends when it is interrupted, in an order of its own
_PRINTING = ("compare", "inspect", "keys")  # their result is what they print; they write no log into the workspace
_INTERRUPTED = "interrupted; the same command goes on where it was"
_MAKING = ("import", "run", "demo")  # they make the workspace if it is not there
_READING = ("export", "serve")  # they change nothing in the workspace that they are given
_TRUTHS = ("true", "false", "yes", "no", "on", "off")  # as YAML has them


class StageModule(Protocol):
    """What a command's module offers."""

    def run(self, config: Config, workspace: Workspace, report: Reporter) -> object:
        """Do the stage's work."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong flag as a UserError that names the nearest known one."""

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            flag = message.removeprefix(prefix).split()[0].split("=")[0]
            known = [o for a in self._actions for o in a.option_strings]
            raise UserError(f"{self.prog}: there is no flag {flag}{nearest(flag, known)}")
        raise UserError(f"{self.prog}: {message}; see `{self.prog} --help`.")


def _flag_names(command: str) -> dict[str, str]:
    """Return the flags of a command with the dotted names of the settings they fill."""
    names = list(settings_names(Config))
    shared = {n: n for n in names if "." not in n or n.startswith("encode.")}
    if command in _WHOLE:
        return {n: n for n in names}
    return shared | {n.removeprefix(command + "."): n for n in names if n.startswith(command + ".")}


def _is_switch(name: str) -> bool:
    """Whether a setting is true or false, so that its flag needs no value."""
    return settings_names(Config)[name].annotation in (bool, bool | None)


def _option(flag: str) -> str:
    return "--" + flag.replace("_", "-")


def _with_values(command: str, argv: Sequence[str]) -> list[str]:
    """Give the flags of switches that stand alone their value: `--gpu` is true, `--no-gpu` false.

    What follows such a flag is its value only where it can be one, so that `inspect --json WORKSPACE` works.
    """
    switches = {_option(flag) for flag, name in _flag_names(command).items() if _is_switch(name)}
    negated = {f"--no-{option.removeprefix('--')}": option for option in switches}
    values: list[str] = []
    for argument, following in zip_longest(argv, argv[1:], fillvalue=""):
        if argument in negated:
            values.append(f"{negated[argument]}=false")
        elif argument in switches and following.lower() not in _TRUTHS:
            values.append(f"{argument}=true")
        else:
            values.append(argument)
    return values


def _parser(command: str) -> _Parser:
    parser = _Parser(prog=f"causalneg {command}", description=COMMANDS[command][1], allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="YAML file with the settings")
    if command == "inspect":
        parser.add_argument("folder", nargs="?", metavar="WORKSPACE", help="the same as --workspace")
    if command == "compare":
        parser.add_argument("runs", nargs="*", metavar="RUN", help="files, or runs of the workspace, as --runs")
    fields = settings_names(Config)
    for flag, name in _flag_names(command).items():
        field = fields[name]
        off = f"; --no-{flag.replace('_', '-')} turns it off" if field.default is True else ""
        text = f"{field.description or ''} (default: {field.default}{off})".replace("%", "%%")
        # argparse would take what follows for the value of a flag that may go without, as the workspace of `inspect`.
        shown = "" if _is_switch(name) else "VALUE"
        parser.add_argument(_option(flag), dest=name, metavar=shown, help=text, default=None)
    return parser


def _usage() -> str:
    lines = [f"  {name:<9} {text}" for name, (_, text) in COMMANDS.items()]
    head = "usage: causalneg COMMAND [--config FILE] [--SETTING VALUE …]"
    return "\n".join([head, "", *lines, "", "causalneg COMMAND --help lists a command's settings."])


def _load(command: str, argv: Sequence[str]) -> Config:
    given = vars(_parser(command).parse_intermixed_args(_with_values(command, argv)))
    path, folder, runs = given.pop("config"), given.pop("folder", None), given.pop("runs", None)
    if folder is not None:
        given["workspace"] = folder
    flags = {name: flag_value(name, text) for name, text in given.items() if text is not None}
    if runs:
        flags["compare.runs"] = runs
    if command == "demo":
        flags = {"workspace": "demo-workspace"} | flags
    return load_config(path, flags)


def _made(folder: Path) -> Path:
    """Return a folder for logs that can be written, made if it is not there.

    Raises:
        UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}); name a --workspace that can be written."
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written; name a --workspace that can be.")
    return folder


def _log_file(workspace: Workspace, command: str) -> Path:
    """Return the file of a command's log: in the workspace, or in the cache where that may only be read.

    Raises:
        UserError: there is no folder for it.
    """
    from causalneg.models import cache_dir

    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{command}.log"
    folder = Path(workspace.root) / "logs" if workspace.is_local else Path.cwd() / "logs"
    try:
        return _made(folder).absolute() / name
    except UserError:
        if command not in _READING:
            raise
    return _made(cache_dir() / "logs").absolute() / name


def _needs_workspace(command: str, config: Config) -> bool:
    """Whether a command works on what is in a workspace; without one, its name was mistyped."""
    if command == "mteb":
        return config.mteb.model in (None, "trained", "base")
    return command not in (*_MAKING, *_PRINTING)


def _open_workspace(command: str, config: Config) -> Workspace:
    workspace = Workspace(config.workspace)
    if not workspace.is_local:
        return workspace
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not Path(config.workspace).is_absolute():
        raise UserError(
            "In a Ray job the workspace must be an absolute path or a URL that all nodes reach, "
            f"not {config.workspace!r}."
        )
    root = Path(workspace.root)
    if root.is_file():
        raise UserError(f"The workspace {config.workspace} is a file; name a folder.")
    if _needs_workspace(command, config) and not root.is_dir():
        beside = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        hint = nearest(root.name, beside) or "; name one with --workspace, or make it with `causalneg import`."
        raise UserError(f"There is no workspace {config.workspace}{hint}")
    return workspace


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 our fault, 2 the user's to mend, 130 or 143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage() + "\n")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"causalneg {__version__}\n")
        return 0
    command = arguments[0]
    try:
        if command not in COMMANDS:
            raise UserError(f"causalneg: there is no command {command!r}{nearest(command, list(COMMANDS))}")
        config = _load(command, arguments[1:])
        workspace = _open_workspace(command, config)
        if command in _PRINTING:
            return _print(command, config, workspace)
        log = _log_file(workspace, command)
        with own_terminal(log) as report:
            termination = Termination(lambda: report.line(_INTERRUPTED, style="yellow"))
            with nullcontext() if command in _ENDLESS else supervised(termination):
                return _run(command, config, workspace, report, log, termination)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:  # nothing was begun that could go on
        return 130


def _do(command: str, config: Config, workspace: Workspace, report: Reporter) -> None:
    with needs_pipeline():
        module: StageModule = importlib.import_module(COMMANDS[command][0])
        module.run(config, workspace, report)


def _print(command: str, config: Config, workspace: Workspace) -> int:
    """Run a command whose result is what it prints on standard output."""
    try:
        _do(command, config, workspace, Reporter(sys.stdout))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, as `head`, has seen enough; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(
    command: str, config: Config, workspace: Workspace, report: Reporter, log: Path, termination: Termination
) -> int:
    try:
        _do(command, config, workspace, report)
    except UserError as error:
        report.line(f"error: {error}", style="bold red")
        return 2
    except KeyboardInterrupt:
        termination.tell()
        return termination.code
    except Exception as error:
        traceback.print_exc()
        if termination.signal is not None:  # what it used was ended, too
            return termination.code
        report.line(
            f"error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            style="bold red",
        )
        report.line(f"This is not your mistake, or we failed to say which; the details are in {log}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
