"""Every model of the malicious corpus is refused by an error of the package, in under 2 seconds and under 1 GB each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.hostile_corpus import ONNX, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Returns the outcome of each model, all in one child process."""
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory of one case is read from /proc, which Linux has")
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.models.hostile_corpus", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(folder.rglob("ran"))
    assert not (ROOT / "ran").exists()
    result = [json.loads(line) for line in done.stdout.splitlines()]
    return {record["name"]: record for record in result}


@pytest.mark.parametrize("name", [*ONNX, *WEIGHTS])
def test_refused_soon_and_with_little_memory(records, name):
    record = records[name]
    assert record["is_modeldiff_error"], record
    assert record["seconds"] < 2
    assert record["bytes"] < 10**9
    if name.startswith("data") and not name.startswith("data with") and "offset" not in name:
        assert record["error"] == "UnsafeModelError"
