"""The commands: arguments in, a record out. Heavy imports are inside them, so that `--help` does not wait for JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from modeldiff_jax.cli import terminal
from modeldiff_jax.cli.exit_codes import FINISHED, INTERRUPTED, UNFINISHED
from modeldiff_jax.cli.options import (
    Command,
    Record,
    comparison_options,
    input_hint,
    isolate_option,
    limit_option,
    probe_options,
    reported,
)
from modeldiff_jax.report.failure import message
from modeldiff_jax.runtime.atomic_file import check_writable, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 finished, 1 finding, 2 could not finish, 130 interrupted."""
    try:
        return int(cli.main(arguments, prog_name="modeldiff", standalone_mode=False) or FINISHED)
    except click.ClickException as error:
        usage = f"{error.ctx.get_usage()}\n" if isinstance(error, click.UsageError) and error.ctx else ""
        terminal.print_message(f"{usage}Error: {error.format_message()}\n")
        return UNFINISHED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit:  # click exits when a reader closes the pipe while help is printed
        return FINISHED
    except OSError as error:  # help has been printed into a full disk
        terminal.discard_output()
        terminal.print_message(message(terminal.full_output(error)))
        return UNFINISHED


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 finished; 1 a verdict at or above --fail-on; 2 could not finish, or not with all models; 3 "
    "nothing to analyse.",
)
@click.version_option(package_name="modeldiff-jax", message="%(prog)s %(version)s")
def cli() -> None:
    """Did this model come from that one? Compares the behaviour of trained models."""


@cli.command(cls=Command)
@click.argument("target", metavar="A")
@click.argument("suspect", metavar="B")
@comparison_options
@isolate_option
@reported
def compare(target: str, suspect: str, references: tuple[str, ...], probes: str | None, **settings: Any) -> Record:
    """Test whether model B was made from model A.

    A is the owner's model, B the suspect. Both are run on the same probes: inputs and their adversarial partners. The
    similarity of their decision distances is evidence; with --references it becomes a p-value and a verdict.
    """
    _use_cache()
    from modeldiff_jax.detection import compare as detection

    return detection.compare(
        target, suspect, references=references, probes=_read_probes(probes), **_hinted(settings)
    ).to_dict()


@cli.command(cls=Command)
@click.argument("target", metavar="A")
@click.argument("suspects", metavar="B...", nargs=-1, required=True)
@click.option(
    "--correction",
    type=click.Choice(["holm", "benjamini-hochberg"]),
    default="holm",
    show_default=True,
    help="What alpha bounds: the chance of any false accusation, or the expected share of false ones among all.",
)
@click.option(
    "--isolate/--no-isolate",
    default=None,
    help="Run B and the references in a child process with limits on memory and time.  [default: if there are several]",
)
@comparison_options
@reported
def screen(
    target: str, suspects: tuple[str, ...], references: tuple[str, ...], probes: str | None, **settings: Any
) -> Record:
    """Test which of several models were made from model A.

    B are model files or folders of them. P-values are adjusted for the number of suspects.
    """
    _use_cache()
    from modeldiff_jax.detection import screen as detection

    return detection.screen(
        target, suspects, references=references, probes=_read_probes(probes), **_hinted(settings)
    ).to_dict()


@cli.command(cls=Command)
@click.argument("models", metavar="A...", nargs=-1, required=True)
@probe_options
@isolate_option
@reported
def lineage(models: tuple[str, ...], **settings: Any) -> Record:
    """Infer which of several models descends from which.

    A are model files or folders of them. Probes are made on each model and every model is run on all of them. Seeds of
    the models' own task work best.
    """
    _use_cache()
    from modeldiff_jax.detection import lineage as detection

    return detection.lineage(models, **_hinted(settings)).to_dict()


@cli.command(cls=Command)
@click.argument("model", metavar="MODEL")
@click.option("--check", is_flag=True, help="Compare its outputs with onnxruntime's; exit with 2 when one differs.")
@click.option("--inputs", metavar="FILE.npz", help="Inputs for --check, by name.  [default: random ones]")
@limit_option
@isolate_option
@reported
def convert(model: str, check: bool, inputs: str | None, **settings: Any) -> Record:
    """Convert a model, and describe or check the result."""
    if inputs and not check:
        raise click.UsageError("--inputs are for --check: give both.")
    _use_cache()
    from modeldiff_jax.models.inspect import inspect_model

    return inspect_model(model, check=check, inputs=inputs, **settings).to_dict()


def _sizes(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Reads `600x1000` as numbers."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdecimal() and part.isascii() and len(part) < 12 for part in parts):
        raise click.BadParameter(f"{text!r} is not sizes as in 600x1000")
    return tuple(map(int, parts))


@cli.command(cls=Command)
@click.argument("what", metavar="MODEL|KERNEL|A")
@click.argument("other", metavar="[B]", required=False)
@click.option("--shape", callback=_sizes, metavar="600x1000", help="Sizes of a kernel's arrays.")
@click.option("--dtype", default="float32", show_default=True, help="Type of a kernel's arrays.")
@click.option("--metric", metavar="NAME", help="Metric of a kernel.")
@click.option("--k", type=click.IntRange(1), help="Number of results of a kernel that searches.")
@click.option("--implementation", metavar="NAME", help="Variant of a kernel, such as `xla` or `reference`.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Batch size of a model's inputs.")
@click.option("--pairs", "n_pairs", type=click.IntRange(1), help="Probe pairs of a comparison.")
@click.option("--steps", "n_steps", type=click.IntRange(1), help="Attack steps of a comparison.")
@click.option("--time", "seconds", type=float, default=1.0, show_default=True, help="Seconds to run each program for.")
@click.option("--trace", metavar="FOLDER", help="Write a trace for xprof and Perfetto into FOLDER.")
@click.option("--plot", metavar="FILE.svg", help="Write the roofline plot to FILE.svg; the HTML report has it too.")
@reported
def profile(what: str, other: str | None, plot: str | None, **settings: Any) -> Record:
    """Measure what a model, a kernel or a comparison costs.

    Reports FLOPs, bytes, time to compile and to run, and the share of this device's measured limits. Kernels
    have the names of modeldiff_jax.kernels; a file with such a name is ./NAME.
    """
    from modeldiff_jax import profiling

    if plot:
        check_writable(plot, [what, *([other] if other else [])])
    result = profiling.profile(what, other, **{name: value for name, value in settings.items() if value is not None})
    if plot:
        write(plot, result.to_svg())
    return result.to_dict()


@cli.command(cls=Command)
@reported
def doctor(**settings: Any) -> Record:
    """List devices, versions and missing packages.

    For each missing package it prints the line that installs it.
    """
    from modeldiff_jax.doctor import diagnose

    return diagnose()


@cli.command(cls=Command)
@reported
def demo(**settings: Any) -> Record:
    """Train a small model and copies of it, and compare them."""
    _use_cache()
    from modeldiff_jax.demo import run_demo

    return run_demo(**settings).to_dict()


def _hinted(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with one `hint` in place of the input options."""
    named = {name: settings.pop(name) for name in ("input_name", "input_kind", "layout", "value_range")}
    return {**settings, "hint": input_hint(**named)}


def _read_probes(probes: str | None) -> Any:
    """Reads a saved probe set; returns None where there is no path."""
    if probes is None:
        return None
    from modeldiff_jax.probes.probe_set import load_probes

    return load_probes(probes)


def _use_cache() -> None:
    """Turns on the cache of compiled programs, for the next run."""
    from modeldiff_jax.runtime.compilation_cache import enable

    enable()
