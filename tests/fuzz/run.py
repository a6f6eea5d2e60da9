"""Runs a fuzz target under atheris, from the seeds of `seeds.py`; prints libFuzzer's counts."""

import sys
import tempfile
from pathlib import Path


def fuzz(target, seeds, message=None):
    """Fuzzes `targets.<target>` from the files of `seeds.<seeds>()`; the command line is libFuzzer's.

    `message` names the class of `onnx` the bytes are a message of: half of the changes are then made to its fields.

    What went wrong is left as `crash-*`, `timeout-*` or `oom-*` in the working folder.
    """
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]' (Linux and macOS only)")
    with atheris.instrument_imports(include=["modeldiff_jax"]):
        from tests.fuzz import seeds as samples
        from tests.fuzz import targets
    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(getattr(samples, seeds)()):
            (Path(folder) / str(i)).write_bytes(data)
        run = getattr(targets, target)

        def once(data):
            run(data)  # libFuzzer wants no result

        bounds = ["-timeout=60", "-rss_limit_mb=4000", "-max_len=4096", "-print_final_stats=1"]
        change = {"custom_mutator": of_messages(atheris, message)} if message else {}
        atheris.Setup([sys.argv[0], *bounds, *sys.argv[1:], folder], once, **change)
        atheris.Fuzz()


def of_messages(atheris, name):
    """Returns a mutator of serialised messages."""
    import onnx
    from google.protobuf.message import Error

    from tests.fuzz.protobuf_mutator import mutated

    def mutate(data, max_size, seed):
        if seed % 2:
            try:
                message = getattr(onnx, name).FromString(data)
                mutated(message, seed, lambda part: atheris.Mutate(part, max(1, len(part) + 16)))
                result = message.SerializeToString()
            except Error:  # no message, or one nested more deeply than can be written
                return atheris.Mutate(data, max_size)
            if len(result) <= max_size:
                return result
        return atheris.Mutate(data, max_size)

    return mutate
