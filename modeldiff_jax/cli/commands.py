"""Arguments in, text out; no logic. Heavy imports stand inside the commands, so that `--help` does not wait for JAX."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import click

from modeldiff_jax.errors import InvalidInputError, ModelDiffError
from modeldiff_jax.report import FORMATS, render
from modeldiff_jax.report.escape import printable
from modeldiff_jax.report.failure import failure, message
from modeldiff_jax.runtime.atomic_file import check_writable, write
from modeldiff_jax.runtime.progress import Progress

FINISHED, FOUND, UNFINISHED, INTERRUPTED = 0, 1, 2, 130
_SEVERITY = ("no_evidence", "inconclusive", "reused")
_MODEL_SUFFIXES = (".onnx",)
Record: TypeAlias = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit code: 0 finished, 1 finding, 2 could not finish, 130 interrupted."""
    try:
        return int(cli.main(arguments, prog_name="modeldiff", standalone_mode=False) or FINISHED)
    except click.ClickException as error:
        error.show()
        return UNFINISHED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 finished; 1 a finding at or above --fail-on; 2 could not finish; 3 nothing to analyse.",
)
@click.version_option(package_name="modeldiff-jax", message="%(prog)s %(version)s")
def cli() -> None:
    """Did this model come from that one? Compares how trained models behave."""


def _command(function: Callable[..., Record]) -> Callable[..., int]:
    """Gives a function from arguments to a record the common options, and reports the record or the error."""

    @click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
    @click.option("-o", "output", metavar="FILE", help="Write the result to FILE instead of standard output.")
    @click.option("--key", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random key.")
    @click.option("--quiet", is_flag=True, help="No progress on the terminal.")
    @click.option("--offline", is_flag=True, help="Fail rather than open a network connection.")
    @click.option("--fail-on", type=click.Choice(_SEVERITY[:0:-1]), help="Exit 1 when a verdict is at least this.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def run(
        form: Any, output: str | None, quiet: bool, offline: bool, fail_on: str | None, debug: bool, **arguments: Any
    ) -> int:
        try:
            if output:
                check_writable(output, _texts(arguments.values()))
            if offline:
                _forbid_network()
            with _progress(quiet) as progress:
                record = function(progress=progress, **arguments)
            _emit(render(record, form, colour=not output and _is_terminal(sys.stdout)), output)
            return _exit_code(record, fail_on)
        except click.ClickException:
            raise
        except Exception as error:
            if debug:
                click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            click.echo(message(error), err=True, nl=False)
            if form == "json":
                _emit(render(failure(function.__name__, error, UNFINISHED), "json"), None)
            return UNFINISHED

    return run


class _ManyReferences(click.Command):
    """Lets `--references` take several values, as in `--references a.onnx b.onnx`, beside being repeatable."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread, rest, taking = [], list(args), False
        while rest:
            word = rest.pop(0)
            if taking and not word.startswith("-"):
                spread += ["--references", word]
                continue
            taking = word == "--references" and bool(rest) and not rest[0].startswith("-")
            if not taking:
                spread.append(word)
            if word == "--":
                return super().parse_args(ctx, [*spread, *rest])
        return super().parse_args(ctx, spread)


def _probing(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of what is compared how."""
    options = [
        click.option("--seeds", metavar="PATH|NAME", help="Images, an .npy or .npz file, or a built-in pack."),
        click.option("--pairs", type=click.IntRange(1), help="Probe pairs.  [default: 100, fewer on heavy models]"),
        click.option("--steps", type=click.IntRange(1), help="Attack steps.  [default: 50, fewer on heavy models]"),
        click.option("--black-box", is_flag=True, help="Use no gradients of any model."),
        click.option(
            "--access",
            default="outputs",
            show_default=True,
            metavar="LEVEL",
            help="What B exposes: outputs (all), probabilities, top-5 (or another number), labels.",
        ),
        click.option(
            "--references",
            multiple=True,
            metavar="PATH...",
            help="Models known to be unrelated to A, or folders of them; for the p-value. After A and B, or repeated.",
        ),
        click.option("--probes", metavar="FILE", help="A saved probe set, instead of making one."),
        click.option("--alpha", type=float, default=0.05, show_default=True, help="Error rate of the verdict."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@cli.command(cls=_ManyReferences)
@click.argument("target", metavar="A")
@click.argument("suspect", metavar="B")
@_probing
@_command
def compare(
    target: str,
    suspect: str,
    seeds: str | None,
    pairs: int | None,
    steps: int | None,
    black_box: bool,
    access: str,
    references: tuple[str, ...],
    probes: str | None,
    alpha: float,
    key: int,
    progress: Progress,
) -> Record:
    """Did model B come from model A?

    A is the owner's model, B the one under question. Both are run on the same probes: inputs and their adversarial
    partners. The similarity says how alike they react. With --references it becomes a p-value and a verdict.
    """
    files, left_out = _model_files(references)
    _use_cache()
    from modeldiff_jax.detection import compare as comparison
    from modeldiff_jax.probes.probe_set import load_probes

    result = comparison.compare(
        target,
        suspect,
        seeds=seeds,
        probes=load_probes(probes) if probes else None,
        references=files,
        n_pairs=pairs,
        n_steps=steps,
        black_box=black_box,
        access=access,
        alpha=alpha,
        key=key,
        progress=progress,
    )
    record = result.to_dict()
    record["notes"] = [*record["notes"], *left_out]
    return record


@cli.command(cls=_ManyReferences)
@click.argument("target", metavar="A")
@click.argument("suspects", metavar="B...", nargs=-1, required=True)
@click.option(
    "--correction",
    type=click.Choice(["holm", "benjamini-hochberg"]),
    default="holm",
    show_default=True,
    help="No false accusation at all (but for alpha), or a small share of them.",
)
@_probing
@_command
def screen(
    target: str,
    suspects: tuple[str, ...],
    correction: Any,
    seeds: str | None,
    pairs: int | None,
    steps: int | None,
    black_box: bool,
    access: str,
    references: tuple[str, ...],
    probes: str | None,
    alpha: float,
    key: int,
    progress: Progress,
) -> Record:
    """Which of several models came from model A?

    B are files, or folders of them. P-values are adjusted for how many suspects there are.
    """
    (files, left_out), (strangers, more) = _model_files(suspects, "suspect"), _model_files(references)
    _use_cache()
    from modeldiff_jax.detection import screen as screening
    from modeldiff_jax.probes.probe_set import load_probes

    record = screening.screen(
        target,
        files,
        references=strangers,
        correction=correction,
        seeds=seeds,
        probes=load_probes(probes) if probes else None,
        n_pairs=pairs,
        n_steps=steps,
        black_box=black_box,
        access=access,
        alpha=alpha,
        key=key,
        progress=progress,
    ).to_dict()
    return {**record, "notes": [*record["notes"], *left_out, *more]}


@cli.command()
@click.argument("models", metavar="A...", nargs=-1, required=True)
@click.option("--seeds", metavar="FOLDER|FILE|NAME", help="Inputs to start from; best are those of the models' tasks.")
@click.option("--pairs", type=click.IntRange(2, 100_000), default=100, show_default=True, help="Made on each model.")
@click.option("--steps", type=click.IntRange(1, 10_000), help="Steps of the attack.")
@_command
def lineage(
    models: tuple[str, ...], seeds: str | None, pairs: int, steps: int | None, key: int, progress: Progress
) -> Record:
    """Which of several models descends from which?

    A are files, or folders of them. Every model answers probes made on every other.
    """
    files, left_out = _model_files(models, "model")
    _use_cache()
    from modeldiff_jax.detection import lineage as kinship

    record = kinship.lineage(files, seeds=seeds, n_pairs=pairs, n_steps=steps, key=key, progress=progress).to_dict()
    return {**record, "notes": [*record["notes"], *left_out]}


@cli.command()
@click.argument("model", metavar="MODEL")
@click.option("--check", is_flag=True, help="Run it beside onnxruntime; exit 2 when an output differs.")
@click.option("--inputs", metavar="FILE.npz", help="Inputs for --check, by name; random ones without it.")
@_command
def convert(model: str, check: bool, inputs: str | None, key: int, progress: Progress) -> Record:
    """What the converter makes of a model, and whether the reference runtime agrees."""
    if inputs and not check:
        raise click.UsageError("--inputs are for --check: give both.")
    _use_cache()
    from modeldiff_jax.limits import DEFAULT
    from modeldiff_jax.models.array_file import read_arrays
    from modeldiff_jax.models.inspect import AGREEMENT, check_against_runtime, describe
    from modeldiff_jax.models.load import load
    from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment

    progress("Reading the model", 0, 2)
    converted, outcome = load(model), None
    if check:
        progress("Running it beside the reference runtime", 1, 2)
        arrays = read_arrays(Path(inputs), DEFAULT, "seed_bytes") if inputs else None
        outcome = {**check_against_runtime(model, converted, arrays, key).to_dict(), "tolerance": AGREEMENT}
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "convert",
        **environment(),
        "model": describe(converted).to_dict(),
        "check": outcome,
        "key": key,
    }


def _sizes(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`600x1000` as numbers."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdecimal() and part.isascii() and len(part) < 12 for part in parts):
        raise click.BadParameter(f"{text!r} is not sizes as in 600x1000")
    return tuple(map(int, parts))


@cli.command()
@click.argument("what", metavar="MODEL|KERNEL|A")
@click.argument("other", metavar="[B]", required=False)
@click.option("--shape", callback=_sizes, metavar="600x1000", help="Sizes of a kernel's arrays.")
@click.option("--dtype", default="float32", show_default=True, help="Of a kernel's arrays.")
@click.option("--metric", help="Of a kernel.")
@click.option("--k", type=click.IntRange(1), help="Of a kernel that searches.")
@click.option("--implementation", metavar="NAME", help="A kernel's variant, as `xla` or `reference`.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Of a model's random inputs.")
@click.option("--pairs", type=click.IntRange(1), help="Probe pairs of a comparison.")
@click.option("--steps", type=click.IntRange(1), help="Attack steps of a comparison.")
@click.option("--time", "seconds", type=float, default=1.0, show_default=True, help="Seconds to run each program for.")
@click.option("--trace", metavar="FOLDER", help="Write a trace for xprof and Perfetto.")
@click.option("--plot", metavar="FILE.svg", help="Write the roofline plot, which the HTML has too.")
@_command
def profile(
    what: str,
    other: str | None,
    shape: tuple[int, ...] | None,
    dtype: str,
    metric: str | None,
    k: int | None,
    implementation: str | None,
    batch: int,
    pairs: int | None,
    steps: int | None,
    seconds: float,
    trace: str | None,
    plot: str | None,
    key: int,
    progress: Progress,
) -> Record:
    """What a model, a kernel or the comparison of A and B costs, and how near it comes to this machine's limit.

    FLOPs, bytes, time to compile and to run, and the share of what the device was measured to be able to do. A KERNEL
    is named as in modeldiff_jax.kernels; a file of that name is ./NAME.
    """
    from modeldiff_jax.profiling import profile as run

    if plot:
        check_writable(plot, [what, *([other] if other else [])])
    given: dict[str, Any] = {
        "metric": metric,
        "k": k,
        "implementation": implementation,
        "n_pairs": pairs,
        "n_steps": steps,
    }
    result = run(
        what,
        other,
        shape=shape,
        dtype=dtype,
        batch=batch,
        key=key,
        seconds=seconds,
        trace=trace,
        progress=progress,
        **{name: value for name, value in given.items() if value is not None},
    )
    if plot:
        write(plot, result.to_svg())
    return result.to_dict()


@cli.command()
@_command
def doctor(key: int, progress: Progress) -> Record:
    """Devices, versions, optional packages, and the line that installs what is missing."""
    from modeldiff_jax.doctor import diagnose

    return diagnose()


@cli.command()
@_command
def demo(key: int, progress: Progress) -> Record:
    """Trains a small model and several copies of it, and compares them all."""
    _use_cache()
    from modeldiff_jax.demo import run_demo

    return run_demo(key=key, progress=progress).to_dict()


def _model_files(paths: Sequence[str], what: str = "reference") -> tuple[list[str], list[str]]:
    """The files among `paths` and directly inside the folders among them, sorted; and notes on what was left out."""
    files, notes = [], []
    for path in paths:
        if not os.path.exists(path):  # found now, not after minutes of work
            raise InvalidInputError(f"A {what} exists", got="no such file or folder", where=path, fix="check the path")
        if not os.path.isdir(path):
            files.append(path)
            continue
        inside = sorted(str(entry) for entry in Path(path).iterdir() if entry.is_file())
        models = [file for file in inside if file.lower().endswith(_MODEL_SUFFIXES)]
        if not models:
            raise InvalidInputError(
                f"A folder of {what}s holds {' or '.join(_MODEL_SUFFIXES)} files",
                got=f"{len(inside)} files, none of them one",
                where=path,
                fix="name the files, or another folder",
            )
        files += models
        if len(models) < len(inside):
            notes.append(
                f"Files in {path} left out, as their names are not those of models: {len(inside) - len(models)}."
            )
    return files, notes


def _texts(values: Iterable[Any]) -> list[str]:
    """The strings among arguments, those in tuples too."""
    return [
        text for value in values for text in (value if isinstance(value, tuple) else [value]) if isinstance(text, str)
    ]


def _use_cache() -> None:
    from modeldiff_jax.runtime.compilation_cache import enable

    enable()


def _exit_code(record: Mapping[str, Any], fail_on: str | None) -> int:
    if record.get("ok") is False or (record.get("check") or {}).get("agrees") is False:
        return UNFINISHED
    verdicts = [record.get("verdict"), *(row.get("verdict") for row in record.get("rows", ()))]
    severities = [_SEVERITY.index(verdict) for verdict in verdicts if verdict]
    return FOUND if fail_on and severities and max(severities) >= _SEVERITY.index(fail_on) else FINISHED


def _emit(text: str, output: str | None) -> None:
    if output:
        write(output, text)
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may have no letter for a name
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; do not let the interpreter's last flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A function that shows what is being done in one line of the terminal; elsewhere it does nothing."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda what, done, total: None
        return

    def show(what: str, done: int, total: int) -> None:
        line = f"[{done}/{total}] {printable(what)}"[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        with suppress(OSError):
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _forbid_network() -> None:
    """From here on, looking up a host or connecting to one from Python is an error of ours."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
            event == "socket.connect" and isinstance(arguments[1], tuple)
        ):
            raise ModelDiffError("--offline allows no network connection", got=repr(arguments[1:]), where=event)

    sys.addaudithook(hook)
