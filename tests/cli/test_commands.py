"""The commands from outside: their arguments, their errors, and runs on small files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from modeldiff_jax import cli, profiling
from modeldiff_jax.detection import compare as comparison
from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.report.formats.json import schema
from tests.helpers import records

VALIDATOR = Draft202012Validator(schema())
COMMANDS = ("compare", "convert", "doctor", "demo", "profile", "screen", "lineage")
QUICK = ["--pairs", "12", "--steps", "3"]


def run(*arguments):
    """Runs the command line in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "modeldiff_jax.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# Help


@pytest.mark.parametrize("arguments", [["--help"], *([c, "--help"] for c in COMMANDS)], ids=lambda a: a[0])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys; from modeldiff_jax.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'jax', 'jaxlib', 'onnx', 'flax', 'numpy', 'sklearn', 'PIL', 'onnxruntime', 'jinja2', 'rich'};"
        "heavy &= set(sys.modules);"
        "sys.exit(code or f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: modeldiff" in done.stdout


def test_help_is_quick():
    def once():
        start = os.times()
        assert run("--help").returncode == 0
        end = os.times()
        return end.children_user + end.children_system - start.children_user - start.children_system

    # of processor time, whatever else the machine does; 0.3 s is the promise, and machines differ
    assert min(once() for _ in range(3)) < 1.0


def test_only_commands_that_exist_are_listed():
    assert set(cli.cli.commands) == set(COMMANDS)


def test_the_version_is_the_packages(capsys):
    import modeldiff_jax

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"modeldiff {modeldiff_jax.__version__}\n"


# Arguments


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["compare"],
        ["compare", "a.onnx"],
        ["compare", "a", "b", "--pairs", "0"],
        ["compare", "a", "b", "--pairs", "many"],
        ["compare", "a", "b", "--format", "xml"],
        ["compare", "a", "b", "--key", "-1"],
        ["compare", "a", "b", "--fail-on", "no_evidence"],
        ["compare", "a", "b", "--references"],
        ["compare", "--references", "r", "a", "b"],
        ["convert", "a", "--inputs", "x.npz"],
        ["doctor", "extra"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_2_with_a_hint_and_no_result(arguments, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: modeldiff" in err or err.startswith("Error: ")


def test_options_reach_the_comparison(stub, capsys):
    options = "--seeds digits --pairs 7 --steps 9 --black-box --access top-3 --alpha 0.1 --key 3"
    options += " --references r1 r2 --references r3 --input-name x --input-kind image --range 0 255"
    assert cli.main(["compare", "x", "y", *options.split()]) == 0
    (call,) = stub.calls
    call.pop("progress")
    hint = call.pop("hint")
    assert (hint.name, hint.kind, hint.layout, hint.value_range) == ("x", "image", None, (0.0, 255.0))
    assert call == {
        "a": "x",
        "b": "y",
        "seeds": "digits",
        "n_pairs": 7,
        "n_steps": 9,
        "black_box": True,
        "access": "top-3",
        "alpha": 0.1,
        "key": 3,
        "probes": None,
        "references": ("r1", "r2", "r3"),
        "limits": DEFAULT,
    }


def test_without_input_options_there_is_no_hint(stub, capsys):
    assert cli.main(["compare", "x", "y"]) == 0
    assert stub.calls[0]["hint"] is None


def test_a_folder_of_references_gives_its_models_and_notes_files_left_out(files, capsys):
    (files / "refs" / "README.md").write_text("about")
    arguments = ["compare", "a.onnx", "b.onnx", "--references", "refs", "c.onnx", "--format", "json", *QUICK]
    assert cli.main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    paths = [reference["path"] for reference in record["references"]]
    assert paths == ["refs/20.onnx", "refs/21.onnx", "refs/22.onnx", "c.onnx"]
    assert any("left out: 1" in note for note in record["notes"])


def test_a_folder_without_models_is_an_error(files, capsys):
    (files / "empty").mkdir()
    assert cli.main(["compare", "a.onnx", "b.onnx", "--references", "empty"]) == 2
    assert "empty" in capsys.readouterr().err


# Errors


def fails_with(error):
    def compare(*_, **__):
        raise error

    return compare


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InvalidModelError("A model is a file", got="a folder", where="x"), 2, "A model is a file"),
        (ZeroDivisionError("by zero"), 2, "Internal error: ZeroDivisionError: by zero"),
        (MemoryError(), 2, "Internal error: MemoryError"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_errors_are_printed_without_a_traceback(monkeypatch, capsys, tmp_path, error, code, words):
    monkeypatch.setattr(comparison, "compare", fails_with(error))
    target = tmp_path / "result"
    assert cli.main(["compare", "a", "b", "-o", str(target)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback_and_the_message(monkeypatch, capsys):
    monkeypatch.setattr(comparison, "compare", fails_with(ZeroDivisionError("by \x1b[2J\x9bzero\u202e")))
    assert cli.main(["compare", "a", "b", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "Internal error" in err
    assert err.replace("\n", "").isprintable()


def test_names_in_bad_usage_are_shown_and_not_obeyed(capsys):
    assert cli.main(["compare", "a", "b", "evil\x1b[2J\x9b31m"]) == 2
    err = capsys.readouterr().err
    assert "evil\\x1b[2J\\x9b31m" in err
    assert err.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "error", [InvalidModelError("A model is a file", got="a\x1b[2Jb"), ZeroDivisionError("by zero")]
)
def test_json_errors_are_records_on_stdout_and_messages_on_stderr(monkeypatch, capsys, tmp_path, error):
    monkeypatch.setattr(comparison, "compare", fails_with(error))
    assert cli.main(["compare", "a", "b", "--format", "json", "-o", str(tmp_path / "result")]) == 2
    out, err = capsys.readouterr()
    record = json.loads(out)
    VALIDATOR.validate(record)
    assert record["error"]["type"] == type(error).__name__
    assert err.replace("\n", "").isprintable()
    assert not list(tmp_path.iterdir())


# Output


def test_a_result_goes_to_its_file_and_stdout_stays_empty(stub, capsys, tmp_path):
    file = tmp_path / "result.json"
    assert cli.main(["compare", "a", "b", "--format", "json", "-o", str(file)]) == 0
    assert capsys.readouterr().out == ""
    VALIDATOR.validate(json.loads(file.read_text()))


def test_a_result_never_replaces_an_input(files, capsys):
    before = (files / "b.onnx").read_bytes()
    assert cli.main(["compare", "a.onnx", "b.onnx", "-o", "b.onnx"]) == 2
    assert cli.main(["compare", "a.onnx", "b.onnx", "--references", "refs", "-o", "refs/20.onnx"]) == 2
    assert (files / "b.onnx").read_bytes() == before


# Runs on small files


@pytest.mark.parametrize("form", ["text", "json", "html", "md"])
def test_a_child_is_similar_to_its_teacher(files, capsys, form):
    assert cli.main(["compare", "a.onnx", "b.onnx", "--format", form, *QUICK]) == 0
    out = capsys.readouterr().out
    assert "inconclusive" in out
    if form == "json":
        record = json.loads(out)
        VALIDATOR.validate(record)
        assert record["similarity"] > 0.9
        assert record["p_value"] is None
        assert (record["target"]["path"], record["suspect"]["path"]) == ("a.onnx", "b.onnx")
    if form == "text":
        assert out.count("\n") < 30


def test_a_model_is_itself(files, capsys):
    assert cli.main(["compare", "a.onnx", "a.onnx", "--format", "json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["similarity"] > 0.999


def test_references_give_a_p_value_and_a_verdict(files, capsys):
    arguments = ["compare", "a.onnx", "b.onnx", "--references", "refs", "--alpha", "0.25", "--format", "json", *QUICK]
    assert cli.main([*arguments, "--fail-on", "reused"]) == 1
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert record["p_value"] == pytest.approx(1 / 4)
    assert record["verdict"] == "reused"


def test_several_suspects_are_screened(files, capsys):
    arguments = ["screen", "a.onnx", "b.onnx", "a.onnx", "--references", "refs", "--correction", "benjamini-hochberg"]
    assert cli.main([*arguments, "--format", "json", *QUICK]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert [row["suspect"]["path"] for row in record["rows"]] == ["b.onnx", "a.onnx"]
    child, copy = record["rows"]
    assert child["adjusted_p_value"] >= child["p_value"]
    assert (copy["identity"], copy["verdict"], copy["adjusted_p_value"]) == ("file", "reused", None)


def test_descent_is_inferred(files, capsys):
    assert cli.main(["lineage", "a.onnx", "b.onnx", "--format", "json", *QUICK]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert [row["model"]["path"] for row in record["rows"]] == ["a.onnx", "b.onnx"]


def test_saved_probes_are_used(files, capsys):
    import modeldiff_jax as md

    probes = md.make_probes(md.load("a.onnx"), n_pairs=8, n_steps=2)
    probes.save("probes.npz")
    assert cli.main(["compare", "a.onnx", "b.onnx", "--probes", "probes.npz", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert record["probe_set_id"] == probes.probe_set_id


def test_black_boxes_are_searched(files, capsys):
    assert cli.main(["compare", "a.onnx", "c.onnx", "--black-box", "--pairs", "4", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert {probes["method"] for probes in record["probes"]} == {"search"}


BAD = {
    "missing": None,
    "empty": b"",
    "text": b"I am no model\n",
    "pickle": b"\x80\x04\x95",
    "zip": b"PK\x03\x04",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", range(2), ids=["target", "suspect"])
def test_bad_files_are_clear_errors_and_nothing_is_written(files, capsys, content, place):
    if content is not None:
        (files / "bad.onnx").write_bytes(content)
    paths = ["a.onnx", "b.onnx"]
    paths[place] = "bad.onnx"
    before = sorted(files.rglob("*"))
    code = cli.main(["compare", *paths, "-o", "out.txt", *QUICK])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "bad.onnx" in err
    assert sorted(files.rglob("*")) == before


def test_a_bad_reference_is_left_out_named_and_not_success(files, capsys):
    (files / "bad.onnx").write_bytes(b"I am no model\n")
    assert (
        cli.main(["compare", "a.onnx", "b.onnx", "--references", "refs", "bad.onnx", "--format", "json", *QUICK]) == 2
    )
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert [failure["path"] for failure in record["failures"]] == ["bad.onnx"]
    assert len(record["references"]) == 3


def test_a_truncated_file_is_a_clear_error(files, capsys):
    whole = (files / "a.onnx").read_bytes()
    (files / "half.onnx").write_bytes(whole[: len(whole) // 2])
    assert cli.main(["convert", "half.onnx"]) == 2
    assert capsys.readouterr().err.startswith("Error: ")


@pytest.mark.parametrize("seeds", ["missing-folder", "empty.npy", "wrong.npy"])
def test_bad_seeds_are_clear_errors(files, capsys, seeds):
    np.save("empty.npy", np.zeros((0, 16), np.float32))
    np.save("wrong.npy", np.zeros((8, 3, 3), np.float32))
    assert cli.main(["compare", "a.onnx", "b.onnx", "--seeds", seeds, *QUICK]) == 2
    assert capsys.readouterr().err.startswith("Error: ")


# convert, doctor


@pytest.mark.parametrize("form", ["text", "json", "md"])
def test_convert_describes_the_result(files, capsys, form):
    assert cli.main(["convert", "a.onnx", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "Gemm" in out
    if form == "json":
        record = json.loads(out)
        VALIDATOR.validate(record)
        assert record["check"] is None
        assert record["model"]["operators"] == {"Gemm": 2, "Relu": 1}
        assert record["model"]["parameters"] == 16 * 32 + 32 + 32 * 5


@pytest.mark.parametrize("inputs", [[], ["--inputs", "x.npz"]], ids=["random", "given"])
def test_convert_agrees_with_the_reference_runtime(files, capsys, inputs):
    np.savez("x.npz", x=np.ones((3, 16), np.float32))
    assert cli.main(["convert", "a.onnx", "--check", *inputs, "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert record["check"]["agrees"]
    if inputs:
        assert record["check"]["inputs"] == {"x": [3, 16]}


def test_a_difference_from_the_reference_runtime_is_reported_and_2(files, capsys, monkeypatch):
    from modeldiff_jax.models import agreement

    # no two runtimes are closer than this
    monkeypatch.setitem(agreement.TOLERANCES, "float32", agreement.Tolerance(-1.0, -1.0))
    assert cli.main(["convert", "a.onnx", "--check"]) == 2
    assert "DIFFERS" in capsys.readouterr().out


def test_a_missing_extra_is_named_with_the_line_that_installs_it(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["convert", "a.onnx", "--check"]) == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json", "md"])
def test_doctor_finds_this_machine_sound(capsys, form):
    assert cli.main(["doctor", "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        VALIDATOR.validate(json.loads(out))


@pytest.mark.long
def test_the_demo_runs(capsys):
    assert cli.main(["demo", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(record)
    assert {row["kind"] for row in record["rows"]} == {"teacher", "derived", "unrelated"}


def test_offline_forbids_the_network_and_nothing_else(files):
    program = (
        "import socket, sys; from modeldiff_jax import cli;"
        "code = cli.main(['convert', 'a.onnx', '--offline', '--quiet', '-o', 'out.txt']);"
        "assert code == 0, code;"
        "socket.socketpair();"
        "socket.create_connection(('127.0.0.1', 9))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "--offline allows no network connection" in done.stderr
    assert (files / "out.txt").exists()


# Child processes


def test_a_command_runs_in_a_child_process_and_reports_as_it_would_here(files, capsys):
    assert cli.main(["convert", "a.onnx", "--isolate", "-o", "child.json", "--format", "json"]) == 0
    assert cli.main(["convert", "a.onnx", "-o", "here.json", "--format", "json"]) == 0
    child, here = (json.loads(Path(name).read_text()) for name in ("child.json", "here.json"))
    assert {**child, "created": ""} == {**here, "created": ""}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("gone.onnx", "no such file"), ("a.onnx --limit process_bytes=1000000", "process_bytes")],
)
def test_errors_of_the_child_are_errors_here(files, capsys, arguments, message):
    assert cli.main(["convert", *arguments.split(), "--isolate", "-o", "out.txt"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.txt").exists()


# Profiles


@pytest.fixture
def profiled(monkeypatch, tmp_path):
    """Puts a record in place of the profile; gives the arguments it was called with."""
    monkeypatch.chdir(tmp_path)
    calls = []

    class Result:
        def to_dict(self):
            return records.profile()

        def to_svg(self):
            return "<svg/>\n"

    def profile(what, other=None, **options):
        options.pop("progress")
        calls.append({"what": what, "other": other, **options})
        return Result()

    monkeypatch.setattr(profiling, "profile", profile)
    return calls


def test_arguments_reach_the_profile(profiled, capsys):
    line = "top_k --shape 100x20000x256 --metric dot --k 5 --implementation xla --dtype float16 --time 0.5 --trace t"
    assert cli.main(["profile", *line.split(), "--key", "3", "--plot", "roofline.svg", "--format", "json"]) == 0
    assert profiled == [
        {
            "what": "top_k",
            "other": None,
            "shape": (100, 20000, 256),
            "dtype": "float16",
            "batch": 1,
            "key": 3,
            "seconds": 0.5,
            "trace": "t",
            "metric": "dot",
            "k": 5,
            "implementation": "xla",
        }
    ]
    assert Path("roofline.svg").read_text() == "<svg/>\n"
    VALIDATOR.validate(json.loads(capsys.readouterr().out))


def test_arguments_of_a_comparison_reach_the_profile(profiled, capsys):
    assert cli.main(["profile", "a", "b", "--pairs", "7", "--steps", "9"]) == 0
    (call,) = profiled
    assert (call["what"], call["other"], call["n_pairs"], call["n_steps"]) == ("a", "b", 7, 9)
    assert "metric" not in call
    assert "51 % of the roofline; the limit is float32" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["", "x", "5x", "-1x5", "3.5", "1e3", "\u0663", "5x" * 3 + "9" * 12])
def test_sizes_are_numbers(profiled, shape, capsys):
    assert cli.main(["profile", "top_k", f"--shape={shape}"]) == 2
    assert "600x1000" in capsys.readouterr().err
    assert profiled == []


def test_a_plot_replaces_no_model(profiled, files, capsys):
    before = (files / "a.onnx").read_bytes()
    assert cli.main(["profile", "a.onnx", "--plot", "a.onnx"]) == 2
    assert (files / "a.onnx").read_bytes() == before
    assert profiled == []
