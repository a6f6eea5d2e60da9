"""Command line of the benchmark: `python -m bench.modelreuse COMMAND`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeldiff_jax.errors import ModelDiffError

if TYPE_CHECKING:
    from bench.modelreuse.study import Study

FOLDER = click.Path(path_type=Path)
folder = click.argument("folder", type=FOLDER)
key = click.option("--key", default=0, show_default=True, help="Random key of seeds and attacks.")
pairs = click.option("--pairs", type=click.IntRange(2), default=100, show_default=True, help="Probe pairs.")
style = click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
plot_file = click.option("--plot", type=FOLDER, metavar="FILE.svg", help="Write a plot of the result.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    try:
        commands.main(arguments, prog_name="python -m bench.modelreuse", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModelDiffError as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    return 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """The ModelReuse benchmark: which model was made from which, and how well methods detect it."""


@commands.command()
@folder
@click.option("--size", type=click.Choice(["small", "full", "population", "track"]), default="full", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Random seed of data, recipes and weights.")
@click.option("--beyond", is_flag=True, help="Train the kinds of relatives that the paper lacks as well.")
def build(folder: Path, size: str, seed: int, beyond: bool) -> None:
    """Train a zoo of models whose descent is known, or its missing models."""
    from bench.modelreuse.build import SIZES
    from bench.modelreuse.build import build as build_zoo

    build_zoo(folder, SIZES[size], seed, beyond)


@commands.command()
@folder
@click.option("--protocol", type=click.Choice(["strict", "pairs144", "roc"]), default="strict", show_default=True)
@click.option(
    "--method", default="ours", show_default=True, metavar="NAME", help="ours, modeldiff, or another of the README."
)
@click.option(
    "--orientation",
    type=click.Choice(["owner", "suspect", "both"]),
    default="suspect",
    show_default=True,
    help="The side that inputs are made on.",
)
@pairs
@key
@click.option(
    "--access",
    default="outputs",
    show_default=True,
    metavar="LEVEL",
    help="The part of their outputs that suspects expose: outputs, probabilities, top-K, labels.",
)
@click.option("--black-box", is_flag=True, help="Make partners by queries instead of gradients.")
@style
def evaluate(
    folder: Path,
    protocol: str,
    method: str,
    orientation: Any,
    pairs: int,
    key: int,
    access: str,
    black_box: bool,
    style: str,
) -> None:
    """Measure how well a method detects which model was made from which."""
    from bench.modelreuse import protocols
    from bench.modelreuse.methods import METHODS

    if method not in METHODS:
        raise click.BadParameter(f"{method!r} is not one of {', '.join(METHODS)}", param_hint="--method")
    study = _study(folder, pairs, key, access=access, black_box=black_box)
    _print(protocols.evaluate(study, method, protocol, orientation), protocols.table, style)


@commands.command()
@folder
@click.option("--tests", default=2000, show_default=True, help="Unrelated pairs of models to test.")
@click.option("--references", type=click.IntRange(1), help="References of each test.  [default: all]")
@click.option("--any-architecture", is_flag=True, help="Take references of all architectures, not the suspect's alone.")
@click.option("--owners", type=int, help="Owners drawn at random.  [default: all models]")
@pairs
@key
@style
@plot_file
def reliability(
    folder: Path,
    tests: int,
    references: int | None,
    any_architecture: bool,
    owners: int | None,
    pairs: int,
    key: int,
    style: str,
    plot: Path | None,
) -> None:
    """Measure whether p-values hold: false alarms among unrelated models, against the stated rate."""
    from bench.modelreuse import reliability as module

    result = module.reliability(_study(folder, pairs, key), tests, references, any_architecture, owners)
    _print(result, module.table, style, plot, module.plot)


@commands.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--owners", default=40, show_default=True, help="Owners drawn at random from each zoo.")
@click.option("--write", is_flag=True, help="Write modeldiff_jax/detection/default_calibration.json from these zoos.")
def null(folders: tuple[Path, ...], owners: int, write: bool) -> None:
    """Test the default calibration on zoos, or write it from them."""
    from bench.modelreuse.default_calibration import calibrate

    click.echo(json.dumps(calibrate(folders, owners, write), indent=1))


@commands.command()
@folder
@pairs
@click.option("--steps", default=300, show_default=True, help="Steps of a thief's fine-tuning.")
@click.option("--keys", default=16, show_default=True, help="The most keys that an accuser tries.")
@style
@plot_file
def adversary(folder: Path, pairs: int, steps: int, keys: int, style: str, plot: Path | None) -> None:
    """Measure thieves who hide their copies and accusers who forge claims. FOLDER holds a finished build."""
    from bench.modelreuse import adversary as module

    _print(module.adversary(folder, pairs, steps, keys), module.table, style, plot, module.plot)


@commands.command()
@folder
@pairs
@key
@style
def access(folder: Path, pairs: int, key: int, style: str) -> None:
    """Measure methods when suspects expose less, and when pairs are made by queries."""
    from bench.modelreuse import access as module
    from bench.modelreuse.folder import Zoo
    from bench.modelreuse.reactions import Reactor

    zoo = Zoo(folder)
    reactor = Reactor({name: zoo.path(name) for name in zoo.entries})  # the models are read once for both studies
    rows = module.less_access(lambda black_box: _study(folder, pairs, key, reactor=reactor, black_box=black_box))
    _print(rows, module.table, style)


@commands.command()
@folder
@click.option("--method", type=click.Choice(["ours", "ddv"]), default="ours", show_default=True)
@pairs
@key
@click.option("--sets", default=200, show_default=True, help="Sets of ten models, of each kind.")
@click.option("--fit", is_flag=True, help="Print the weights of the features that fit this zoo best, instead.")
@style
def lineage(folder: Path, method: str, pairs: int, key: int, sets: int, fit: bool, style: str) -> None:
    """Measure how often trees of descent are right."""
    from bench.modelreuse import lineage as module

    study = _study(folder, pairs, key)
    if fit:
        click.echo(json.dumps(module.fitted(study, sets), indent=1))
    else:
        _print(module.lineage(study, method, sets), module.table, style)


def _study(folder: Path, pairs: int, key: int, **options: Any) -> Study:
    from bench.modelreuse.folder import Zoo
    from bench.modelreuse.study import Study

    return Study(Zoo(folder), pairs, key, **options)


def _print(
    result: Any,
    table: Callable[[Any], str],
    style: str,
    plot: Path | None = None,
    draw: Callable[[Any], str] | None = None,
) -> None:
    """Prints a result as JSON or as a table, and writes its plot if `plot` is given."""
    if plot and draw:
        plot.write_text(draw(result), "utf-8")
    click.echo(json.dumps(result, indent=1) if style == "json" else table(result))


if __name__ == "__main__":
    sys.exit(main())
