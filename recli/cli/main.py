"""Entry point: finds the command, runs it, and turns what happens into an exit code and at most one line on stderr."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from recli import __version__
from recli.cli.console import abandon, say
from recli.cli.options import Run, origin
from recli.cli.settings import read_settings
from recli.cli.signals import Signals
from recli.errors import RecliError

COMMANDS = {
    "featurize": "Raw tables to features, by a spec that later tables go through.",
    "factorize": "Ratings to a low-rank model: learn factors of users and items.",
    "finetune": "New interactions to a delta: adapt a few percent of a model.",
    "score": "A model to recommendations: exact top-K lists, and their quality.",
    "bench": "Ratings to a report: quality and cost beside other libraries.",
}
EXAMPLES = """Examples:

\b
  recli featurize ratings.parquet --items items.parquet -o features/
  recli factorize ratings.parquet --rank 100
  recli finetune ratings.factors.npz new.parquet -o delta.npz
  recli score ratings.factors.npz -k 10 -o recs.parquet
  cat ratings.csv | recli factorize - -o - | recli score - -o - > recs.parquet
  recli bench ratings.parquet --html report.html

Exit codes: 0 done, 1 bug, 2 usage, 3 a gate failed, 65 bad data, 66 no input, 69 no device, 70 diverged, 73 cannot
create the output, 74 reading or writing failed, 75 try again, 130, 141 and 143 signals.
"""


class LazyGroup(TyperGroup):
    """Knows the commands' names; imports one when it runs. `recli --help` costs little more than importing typer."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return typer.main.get_command(importlib.import_module(f"recli.cli.{cmd_name}").app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup,
    name="recli",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Recommender systems that are cheap to run: raw ratings in, top-K lists out."""
    group = ctx.command
    assert isinstance(group, LazyGroup)
    if ctx.obj.is_help:
        return
    defaults: dict[str, dict[str, Any]] = {name: {} for name in COMMANDS}
    for command, parameter, value, file in read_settings(
        lambda: [(name, group.get_command(ctx, name)) for name in COMMANDS]
    ):
        defaults[command][parameter], ctx.obj.settings[command, parameter] = value, file
    ctx.default_map = defaults


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see errors.py; 130, 143 and 141 for Ctrl-C, SIGTERM and a closed
    pipe).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed (2>&-): print would take stdout, where results go
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with Signals() as signals:
        return _run(arguments, signals)


def _run(arguments: list[str], signals: Signals) -> int:
    run = Run(is_help=not {"-h", "--help"}.isdisjoint(arguments))
    try:
        code = app(arguments, standalone_mode=False, prog_name="recli", obj=run)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as exit_:
        return signals.code or (exit_.code if isinstance(exit_.code, int) else 1)
    except BrokenPipeError:
        abandon(sys.stdout)
        return 141
    except Exception as error:
        if signals.code:  # its SystemExit, as something that was being imported or called passed it on
            return signals.code
        if run.debug:
            traceback.print_exc()
        if isinstance(error, OSError) and sys.stdout is not None:
            abandon(sys.stdout)
        message, code = _explain(error)
        say(" ".join(message.split()), run.log_format, "error", run.command, {"exit_code": code})
        return code


def _explain(error: Exception) -> tuple[str, int]:
    """The line on stderr and the exit code."""
    if isinstance(error, RecliError):
        return str(error), error.exit_code
    if isinstance(error, TyperException):
        return _usage(error), error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory: use a smaller --rank or --memory-limit, or a larger machine", 75
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}reading or writing failed: {error.strerror or error}", 74
    return f"internal error ({type(error).__name__}: {error}): this is a bug; --debug shows where", 1


def _usage(error: TyperException) -> str:
    """Typer's message, with the flag first, what was found, and where it comes from."""
    ctx, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    message = error.format_message().rstrip(".")
    if isinstance(error, typer.BadParameter) and error.__cause__ and ctx and parameter:
        details: Any = getattr(error.__cause__, "errors", list)()
        found = "".join(f" {detail['input']}" for detail in details[:1])
        expected = error.message[:1].lower() + error.message[1:]
        return f"{max(parameter.opts, key=len)}{found}: {expected}{origin(ctx, parameter.name)}"
    if ctx and isinstance(ctx.command, LazyGroup):
        message += f"; the commands are {', '.join(COMMANDS)}"
    return f"{message} (see {ctx.command_path} --help)" if ctx else message
