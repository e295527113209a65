"""The command line: one file a verb, no logic.

`_VERBS` is the pipeline in order. A verb's module holds a function of the verb's name or, where the verb has verbs of
its own, a `typer.Typer` called `app`. Verbs import what is heavy when they run: `lamella --help` stays instant.
"""

import functools
import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lamella import __version__
from lamella.cli.echo import echo
from lamella.encoders.trust import trusting
from lamella.errors import LamellaError, SettingsError
from lamella.machine import say_machine_fault
from lamella.stopping import STOPPED, stop_on_signals
from lamella.watching import watching_folders

_VERBS = (
    "split",
    "audit",
    "tissue",
    "tiles",
    "encoders",
    "weights",
    "extract",
    "inspect",
    "bag",
    "train",
    "measure",
    "compare",
    "cka",
    "run",
    "predict",
    "export",
    "heatmap",
    "cam",
    "localise",
    "study",
    "report",
    "sample",
    "demo",
    "doctor",
)

_UsageError: Any = typer.BadParameter.__bases__[0]  # click's, whose home differs between versions of typer


class _Once(TyperCommand):
    """A verb that refuses an option given twice with different values: the last would win, and nothing would say so."""

    def make_parser(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Return the parser, each of whose options for a single value remembers it."""
        parser = super().make_parser(ctx)
        options = (*parser._long_opt.values(), *parser._short_opt.values())
        for option in {id(option): option for option in options}.values():
            if option.action == "store" and option.nargs == 1:
                option.process = functools.partial(_store_once, option)  # type: ignore[method-assign]
        return parser


def _store_once(option: Any, value: Any, state: Any) -> None:
    """Store an option's value, unless it has another already."""
    earlier = state.opts.get(option.dest)
    if earlier is not None and earlier != value:
        name = max(option._long_opts or option._short_opts, key=len)
        raise SettingsError(f"{name} is given twice, as '{earlier}' and as '{value}'. Give it once.")
    state.opts[option.dest] = value
    state.order.append(option.obj)


class _Verbs(TyperGroup):
    """The group of verbs: what a user can mend is said in one line, what is our bug keeps its traceback."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """List the verbs in the order of the pipeline; typer alone would put those with verbs of their own last."""
        return sorted(super().list_commands(ctx), key=_VERBS.index)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run a verb."""
        try:
            with trusting(), watching_folders():  # what one command trusts ends with it
                return super().invoke(ctx)
        except _UsageError as error:
            said = " ".join(error.format_message().replace("Value error, ", "").split())
            if not said or type(error).__name__ == "NoArgsIsHelpError":
                raise  # a verb without arguments shows its help
            command = error.ctx.command_path if error.ctx is not None else "lamella"
            echo(f"{said} See: {command} --help", err=True)
            raise typer.Exit(2) from error
        except LamellaError as error:
            echo(str(error), err=True)
            raise typer.Exit(1) from error
        except Exception as error:
            fault = say_machine_fault(error)
            if fault is None:
                raise
            echo(fault, err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:  # where the verbs are run without `main`, in a program or a test
            echo(STOPPED, err=True)
            raise typer.Exit(130) from error


def _tell_version(wanted: bool) -> None:
    if wanted:
        echo(f"lamella {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """From whole-slide images and slide labels to predictions, attention heatmaps and honest statistics.

    The verbs stand in the order of the pipeline; `lamella run` does it all. `lamella VERB --help` explains one.
    """


def build_app() -> typer.Typer:
    """Return the command line with all verbs."""
    app = typer.Typer(
        name="lamella",
        cls=_Verbs,
        callback=_root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    for verb in _VERBS:
        module = importlib.import_module(f"lamella.cli.{verb}")
        if hasattr(module, "app"):
            for command in module.app.registered_commands:
                command.cls = _Once
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb, cls=_Once)(getattr(module, verb))
    return app


def list_commands() -> list[str]:
    """Return every command, in the order of the pipeline: `split`, ..., `weights add`, ..."""
    commands = []
    for verb in _VERBS:
        commands.append(verb)
        module = importlib.import_module(f"lamella.cli.{verb}")
        if hasattr(module, "app"):
            commands += [f"{verb} {command.name}" for command in module.app.registered_commands]
    return commands


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130, SIGTERM with 143."""
    stop_on_signals()
    build_app()()
