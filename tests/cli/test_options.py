"""Options: several values, helpful help, values that are checked."""

import shlex
from typing import get_args

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldiff_jax import cli
from modeldiff_jax.cli.options import Command, changed_limits, repeat_options
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.space import Kind

OPTIONS = [
    pytest.param(name, option, id=f"{name} {option.opts[-1]}")
    for name, command in cli.cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.hidden
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x y -r a b -k 1", "x y -r a -r b -k 1"),
        ("x y -r a -r b", "x y -r a -r b"),
        ("x y -r a b -r c d", "x y -r a -r b -r c -r d"),
        ("-r a b -- x y", "-r a -r b -- x y"),
        ("x -r a b -k 1 -- y", "x -r a -r b -k 1 -- y"),
        ("x y -r=a b", "x y -r=a b"),
        ("x y -k 1 b", "x y -k 1 b"),
        ("x y -r", "x y -r"),
        ("-- -r a b", "-- -r a b"),
    ],
)
def test_a_repeatable_option_takes_several_values(line, expected):
    assert repeat_options(shlex.split(line), ["-r"]) == shlex.split(expected)


@given(st.lists(st.sampled_from(["-r", "-k", "--", "a", "b"])))
def test_nothing_is_lost_and_repetition_is_final(words):
    once = repeat_options(words, ["-r"])
    assert repeat_options(once, ["-r"]) == once
    assert [word for word in once if word != "-r"] == [word for word in words if word != "-r"]
    assert repeat_options(words, []) == words


@pytest.mark.parametrize(
    "arguments",
    [
        "x y --references r1 r2 --key 1",
        "x y --references r1 --references r2",
        "--references r1 r2 -- x y",
        "x --references r1 r2 --key 1 -- y",
        "x y --references=r1 --references=r2",
    ],
)
def test_references_may_be_several_or_repeated(stub, arguments, capsys):
    assert cli.main(["compare", *arguments.split()]) == 0
    assert (stub.calls[0]["a"], stub.calls[0]["b"], stub.calls[0]["references"]) == ("x", "y", ("r1", "r2"))


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_has_a_sentence_of_help(name, option):
    assert option.help
    assert option.help[0].isupper()
    assert "." in option.help


@pytest.mark.parametrize("name", cli.cli.commands)
def test_every_command_is_described_in_the_imperative(name):
    command = cli.cli.commands[name]
    assert isinstance(command, Command)
    assert command.help.split()[0] in {"Test", "Infer", "Convert", "Measure", "List", "Train"}


def test_limits_are_changed_by_name():
    (option,) = (p for p in cli.cli.commands["compare"].params if p.name == "limits")
    assert changed_limits(None, option, ["nodes=7", "process_seconds=60"]) == Limits(nodes=7, process_seconds=60)
    assert changed_limits(None, option, []) == DEFAULT


@pytest.mark.parametrize("value", ["nodes", "nodes=", "nodes=-1", "nodes=many", "threads=3", "=3"])
def test_limits_that_do_not_exist_are_refused(value, capsys):
    assert cli.main(["convert", "a", "--limit", value]) == 2
    assert "NAME=NUMBER" in capsys.readouterr().err


def test_kinds_of_inputs_are_those_of_the_product():
    (option,) = (p for p in cli.cli.commands["compare"].params if p.name == "input_kind")
    assert tuple(option.type.choices) == get_args(Kind)


@pytest.mark.parametrize("value", ["5", "255 0", "0 0", "a b"])
def test_ranges_go_up(value, capsys):
    assert cli.main(["compare", "a", "b", "--range", *value.split()]) == 2
    assert capsys.readouterr().err
