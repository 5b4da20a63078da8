"""Entry point: finds the command, runs it, and turns what happens into an exit code and at most one line on stderr."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from recli import __version__
from recli.cli.settings import default_map
from recli.errors import RecliError

COMMANDS = {
    "factorize": "Ratings to a low-rank model: learn factors of users and items.",
    "score": "A model to recommendations: exact top-K lists, and their quality.",
}
EXAMPLES = """Examples:

  recli factorize ratings.parquet --rank 100

  recli score ratings.factors.npz -k 10 -o recs.parquet

  cat ratings.csv | recli factorize - -o - | recli score - -o - > recs.parquet
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
    ctx.default_map = default_map(lambda: [(name, group.get_command(ctx, name)) for name in COMMANDS])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see errors.py; 130, 143 and 141 for Ctrl-C, SIGTERM and a closed
    pipe).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return _fail(f"{error.format_message()}{'' if arguments else ' See recli --help.'}", error.exit_code)
    except RecliError as error:
        if "--debug" in arguments:
            raise
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # what is left in the buffer must not fail again when the interpreter closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        return _fail("out of memory: use a smaller --rank, or a larger machine", 75)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:
        if "--debug" in arguments:
            raise
        return _fail(f"internal error ({type(error).__name__}: {error}): this is a bug; --debug shows where", 1)


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds the stack, so that temporary files and locks go; the default action would leave them."""
    raise SystemExit(128 + number)


def _fail(message: str, code: int) -> int:
    print(f"recli: error: {' '.join(message.split())}", file=sys.stderr)
    return code
