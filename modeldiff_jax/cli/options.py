"""The options that commands share, and the wrapper that turns a function into a command."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import click

from modeldiff_jax.cli import terminal
from modeldiff_jax.cli.exit_codes import SEVERITIES, UNFINISHED, exit_code
from modeldiff_jax.errors import InvalidInputError, error_from
from modeldiff_jax.report import FORMATS, render
from modeldiff_jax.report.failure import failure, message
from modeldiff_jax.runtime import network
from modeldiff_jax.runtime.atomic_file import check_writable, write

Record: TypeAlias = dict[str, Any]
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


_RECORD_BYTES = 2**28


class Command(click.Command):
    """A command whose repeatable options take several values as well: `--references A B`, as `--references A
    --references B`, up to the next option or `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["modeldiff.arguments"] = list(args)
        repeatable = [name for p in self.params if isinstance(p, click.Option) and p.multiple for name in p.opts]
        return super().parse_args(ctx, repeat_options(args, repeatable))


def repeat_options(arguments: Sequence[str], repeatable: Collection[str]) -> list[str]:
    """Returns arguments with the name of a repeatable option before each of its values."""
    repeated: list[str] = []
    option, values = "", 0
    for place, word in enumerate(arguments):
        if word == "--":
            return [*repeated, *arguments[place:]]
        if word.startswith("-"):
            option, values = word if word in repeatable else "", 0
        elif option:
            repeated += [option] if values else []
            values += 1
        repeated.append(word)
    return repeated


def options(*decorators: Decorator) -> Decorator:
    """Returns several options as one decorator; help lists them in this order."""
    return lambda function: functools.reduce(lambda f, decorate: decorate(f), reversed(decorators), function)


def input_range(
    context: click.Context, option: click.Parameter, value: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Checks that a range goes up."""
    if value and not value[0] < value[1]:
        raise click.BadParameter("the smallest value comes first")
    return value


input_options = options(
    click.option("--input-name", metavar="NAME", help="The input to probe, of a model that has several."),
    click.option(
        "--input-kind",
        type=click.Choice(["image", "signal", "tokens", "generic"]),
        help="The kind of data the input takes, where it is not recognised.",
    ),
    click.option(
        "--layout",
        metavar="LETTERS",
        help="The input's axes in order: NCHW, NHWC, CHW or NHW for images; NT, NTC, NCT or T for signals.",
    ),
    click.option(
        "--range",
        "value_range",
        type=(float, float),
        callback=input_range,
        metavar="LOW HIGH",
        help="The smallest and the largest value the input takes, such as 0 255.",
    ),
)
"""Options on the models' inputs; `input_hint` makes a record of them."""


def changed_limits(context: click.Context | None, option: click.Parameter, given: Sequence[str]) -> Any:
    """Reads `NAME=NUMBER` pairs as `Limits`."""
    from modeldiff_jax.limits import DEFAULT, Limits

    defaults, changes = DEFAULT.to_dict(), {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in defaults or not (number.isascii() and number.isdecimal()):
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, with one of the names {', '.join(defaults)}")
        changes[name] = int(number)
    return Limits(**{**defaults, **changes})


limit_option = click.option(
    "--limit",
    "limits",
    multiple=True,
    callback=changed_limits,
    metavar="NAME=NUMBER",
    help="Change a limit on what a model may ask for, such as process_seconds=60.",
)
isolate_option = click.option(
    "--isolate",
    "in_child",
    is_flag=True,
    help="Run in a child process with limits on memory, processor time and wall time.",
)

probe_options = options(
    click.option(
        "--seeds",
        metavar="PATH|NAME",
        help="Inputs that probes start from: a folder of images, an .npy or .npz file, or a built-in pack's name.",
    ),
    click.option(
        "--pairs", "n_pairs", type=click.IntRange(1), help="Probe pairs.  [default: 100, fewer for heavy models]"
    ),
    click.option(
        "--steps", "n_steps", type=click.IntRange(1), help="Attack steps.  [default: 50, fewer for heavy models]"
    ),
    input_options,
    limit_option,
)
"""Options on how probes are made."""

comparison_options = options(
    click.option(
        "--references",
        multiple=True,
        metavar="PATH...",
        help="Models known to be unrelated to A, or folders of them: for the p-value. One or more, after A and B; the "
        "option can be repeated.",
    ),
    probe_options,
    click.option("--probes", metavar="FILE", help="Use this saved probe set instead of making one."),
    click.option("--black-box", is_flag=True, help="Use no gradients of any model."),
    click.option(
        "--access",
        default="outputs",
        show_default=True,
        metavar="LEVEL",
        help="The part of its outputs that B exposes: outputs (all), probabilities, top-5 (or another number), labels.",
    ),
    click.option("--alpha", type=float, default=0.05, show_default=True, help="The error rate of the verdict."),
)
"""Options on how suspects are compared with a target."""

_result_options = options(
    click.option(
        "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Form of the result."
    ),
    click.option("-o", "--output", metavar="FILE", help="Write the result to FILE instead of standard output."),
    click.option("--key", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random key."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    click.option("--offline", is_flag=True, help="Fail rather than open a network connection."),
    click.option(
        "--fail-on",
        type=click.Choice(SEVERITIES[:0:-1]),
        help="Exit with 1 when a verdict is this one or a graver one.",
    ),
    click.option("--debug", is_flag=True, help="Show where in the program an error comes from."),
)


def input_hint(
    input_name: str | None, input_kind: Any, layout: str | None, value_range: tuple[float, float] | None
) -> Any:
    """Returns the `InputHint` of the input options; None without any of them."""
    if not any((input_name, input_kind, layout, value_range)):
        return None
    from modeldiff_jax.models.inputs.probed_input import InputHint

    return InputHint(name=input_name, kind=input_kind, layout=layout, value_range=value_range)


def reported(function: Callable[..., Record]) -> Callable[..., int]:
    """Gives a function from arguments to a record the options of all commands, and reports its record or its error.

    A command with the option `--isolate` can run itself in a child process, whose record it reports.
    """

    @_result_options
    @click.option("--as-child", is_flag=True, hidden=True)
    @functools.wraps(function)
    def run(
        form: Literal["text", "json", "html", "md"],
        output: str | None,
        quiet: bool,
        offline: bool,
        fail_on: str | None,
        debug: bool,
        as_child: bool,
        **arguments: Any,
    ) -> int:
        if as_child:  # the parent renders the record as the user asked
            form, output, quiet, fail_on = "json", None, True, None
        isolate = arguments.pop("in_child", False) and not as_child
        try:
            if output:
                check_writable(output, _texts(arguments.values()))
            if offline:
                network.forbid()
            with terminal.shown_progress(quiet) as progress:
                if isolate:
                    progress("Running in a child process", 0, 1)
                    record = run_in_child(debug=debug, limits=arguments["limits"])
                else:
                    record = function(progress=progress, **arguments)
            if output:
                write(output, render(record, form))
            else:
                colour, width = terminal.takes_colour(sys.stdout), terminal.width(sys.stdout)
                terminal.print_result(render(record, form, colour=colour, width=width))
            return exit_code(record, fail_on)
        except click.ClickException:
            raise
        except Exception as error:
            if debug:
                terminal.print_message("".join(traceback.format_exception(error)))
            terminal.print_message(message(error))
            if form == "json":
                with suppress(InvalidInputError):  # where standard output is at fault, the message has named it
                    terminal.print_result(render(failure(function.__name__, error, UNFINISHED), "json"))
            return UNFINISHED

    return run


def run_in_child(*, debug: bool, limits: Any) -> Record:
    """Runs the command that is being run in a child process; returns its record.

    Raises:
      ModelDiffError: as the command raises; or a limit was hit, or the child died.
    """
    from modeldiff_jax.runtime import isolation

    context = click.get_current_context()
    name, arguments = context.info_name or "", context.meta["modeldiff.arguments"]
    command = ["-m", "modeldiff_jax.cli", name, "--as-child", *arguments]
    _, content = isolation.run(command, limits, _RECORD_BYTES, f"modeldiff {name}", show_stderr=debug)
    record: Record = json.loads(content)
    if "error" in record:
        raise error_from(record["error"])
    return record


def _texts(values: Iterable[Any]) -> list[str]:
    """Returns the strings among arguments, including those in tuples."""
    return [
        text for value in values for text in (value if isinstance(value, tuple) else [value]) if isinstance(text, str)
    ]
