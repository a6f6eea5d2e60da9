"""Records written by hand, like those of the commands, for tests of the reports."""

from typing import Any

TOOL = {"name": "modeldiff-jax", "version": "0.1.0", "python": "3.12.1", "jax": "0.12.0", "jaxlib": "0.12.0"}
CREATED = "2026-07-31T12:00:05+00:00"
HEAD = {"schema_version": "2.0", "created": CREATED, "tool": TOOL, "device": "1 x cpu (cpu)"}
LIMITS = {"model_bytes": 2**31 - 1, "nodes": 200_000}
PROBE_SET_ID = "ps1-" + "0f" * 16


def side(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "format": "onnx",
        "sha256": "ab" * 32,
        "inputs": ["image: float32[n, 3, 224, 224]"],
        "outputs": ["scores: float32[n, 1000]"],
        "bound": {},
    }


def probes(made_on: str) -> dict[str, Any]:
    return {
        "method": "pgd",
        "steps": 50,
        "seeds": "photographs",
        "probe_set_id": PROBE_SET_ID,
        "made_on": made_on,
        "n_pairs": 100,
        "metric": "cosine",
        "target_ddv": [0.01 * (i % 17) for i in range(100)],
        "suspect_ddv": [0.01 * (i % 13) for i in range(100)],
        "space": {"kind": "image", "shape": [224, 224, 3], "dtype": "float32", "low": 0.0, "high": 1.0},
    }


def failure(role: str) -> dict[str, Any]:
    error = {
        "type": "InvalidModelError",
        "rule": "A model is whole",
        "got": "half",
        "where": "x.onnx",
        "fix": "copy it",
    }
    return {"role": role, "path": "x.onnx", "error": error}


def compare(**changes: Any) -> dict[str, Any]:
    return {
        **HEAD,
        "command": "compare",
        "target": side("owner.onnx"),
        "suspect": side("suspect.onnx"),
        "references": [],
        "similarity": 0.91234567,
        "evidence": {"ddv_target": 0.91234567, "ddv_suspect": 0.87654321},
        "score": 0.91234567,
        "representations": [],
        "null_scores": {},
        "identity": None,
        "tail": None,
        "basis": "none",
        "references_needed": 19,
        "unrelated_pairs": None,
        "p_value": None,
        "calibration": "none",
        "alpha": 0.05,
        "access": "outputs",
        "verdict": "inconclusive",
        "reason": "A similarity alone has no error rate. Pass at least 19 unrelated models as references.",
        "probe_set_id": PROBE_SET_ID,
        "probes": [probes("target"), probes("suspect")],
        "queries": {"target": 400, "suspect": 400},
        "adaptations": {"target": [], "suspect": ["resized from 224x224 to 48x192"]},
        "failures": [],
        "notes": [],
        "limits": LIMITS,
        "key": 0,
        "seconds": {"load": 0.5, "total": 12.3},
        **changes,
    }


def with_verdict(verdict: str, p_value: float) -> dict[str, Any]:
    references = [
        {
            "path": f"{i}.onnx",
            "format": "onnx",
            "sha256": f"{i:064x}",
            "similarity": i / 40,
            "related": i / 4,
            "counted": True,
        }
        for i in range(19)
    ]
    representations = [
        {"name": "ddv", "score": 7.25, "exceeded_by": 0, "supports": "reuse"},
        {"name": "geometry", "score": -0.5, "exceeded_by": 11, "supports": "unrelated"},
    ]
    tail = {"method": "Student's t", "deviations": 4.5, "p_value": 0.00015, "floor": 0.001}
    null = {"similarity": [i / 40 for i in range(19)], **{n: [i / 4 for i in range(19)] for n in ("related", "ddv")}}
    evidence = {"ddv_target": 0.91234567, "ddv_suspect": 0.87654321, "related": 8.5, "ddv": 7.25}
    return compare(
        verdict=verdict,
        p_value=p_value,
        references=references,
        representations=representations,
        tail=tail,
        basis="rank",
        references_needed=None,
        evidence=evidence,
        null_scores=null,
        calibration="references",
    )


def convert(check: bool = True, agrees: bool = True) -> dict[str, Any]:
    share = 1e-6 if agrees else float("inf")
    return {
        **HEAD,
        "command": "convert",
        "model": {
            **side("m.onnx"),
            "bound": {"sr": 16000},
            "opsets": {"ai.onnx": 17},
            "nodes_in_file": 420,
            "nodes": 310,
            "operators": {"Conv": 53, "Relu": 49},
            "static_constants": 4,
            "limits": LIMITS,
            "parameters": 5_900_000,
            "parameter_bytes": 23_600_000,
        },
        "check": {
            "runtime": "onnxruntime 1.32.0",
            "inputs": {"image": (2, 3, 224, 224)},
            "bound": {"sr": 16000},
            "outputs": (
                {
                    "name": "scores",
                    "shape": (2, 1000),
                    "dtype": "float32",
                    "max_error": 10 * share,
                    "value_range": 10.0,
                    "share": share,
                    "allowed": 1e-3,
                    "agrees": agrees,
                },
            ),
            "compile_seconds": 1.5,
            "run_seconds": 0.02,
            "runtime_seconds": 0.01,
            "ratio": 2.0,
            "agrees": agrees,
        }
        if check
        else None,
        "key": 0,
    }


def doctor(ok: bool = True) -> dict[str, Any]:
    return {
        "schema_version": "2.0",
        "command": "doctor",
        "created": CREATED,
        "tool": TOOL if ok else {**TOOL, "jax": None},
        "executable": "/usr/bin/python3",
        "devices": [{"id": 0, "platform": "cpu", "kind": "cpu"}] if ok else [],
        "packages": [{"name": "jax", "version": "0.12.0" if ok else None}],
        "extras": [
            {
                "name": "check",
                "needed_for": "modeldiff convert --check",
                "present": [],
                "missing": ["onnxruntime"],
                "install": "/usr/bin/python3 -m pip install 'onnxruntime>=1.20'",
            }
        ],
        "kernels": {"ok": ok, "folder": "/site/kernels" if ok else None},
        "cache": {"state": "on", "folder": "/cache", "files": 3, "bytes": 2**20, "reason": ""},
        "problems": [] if ok else ["Missing packages; install them: pip install jax"],
        "ok": ok,
    }


def demo() -> dict[str, Any]:
    row = {
        "name": "fine-tuned",
        "kind": "derived",
        "how": "last layer replaced, then trained on letters",
        "classes": 5,
        "accuracy": 0.97,
        "similarity": 0.99,
        "p_value": 0.05,
        "verdict": "reused",
    }
    teacher = {**row, "name": "teacher", "kind": "teacher", "similarity": None, "p_value": None, "verdict": None}
    notes = ["p-values against 24 references."]
    head = {**HEAD, "command": "demo"}
    return {**head, "rows": [teacher, row], "alpha": 0.05, "notes": notes, "key": 0, "seconds": {"total": 41.0}}


def profile(name: str = "top_k", models: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    program = {
        "name": name,
        "calls": 12,
        "inputs": ["float32[100, 256]", "float32[20000, 256]"],
        "flops": 1.024e9,
        "flops_by_kind": {"float32": 1.024e9},
        "open_loops": False,
        "bytes": 20_590_400,
        "xla": {"flops": 2.5e8, "bytes": None, "loops": True},
        "temporary_bytes": 8_000_000,
        "compile_seconds": {"trace": 0.2, "lower": 0.05, "compile": 1.5},
        "run_seconds": {"min": 0.019, "median": 0.02, "max": 0.031, "runs": 50},
        "flops_per_second": 5.12e10,
        "bytes_per_second": 1.02952e9,
        "intensity": 49.73,
        "limit": "float32",
        "roof": {"bytes_per_second": 4e10, "flops_per_second": 1e11},
        "ideal_seconds": 0.01024,
        "share": 0.512,
        "operators": [{"name": "dot_general", "flops": 1.0e9, "share": 0.977}],
    }
    return {
        **HEAD,
        "command": "profile",
        "subject": {
            "kind": ("kernel", "model", "comparison")[len(models)],
            "name": name,
            "models": [side(model) for model in models],
            "options": {"shape": "100x20000x256", "metric": None},
        },
        "machine": {
            "copy_bytes_per_second": 4e10,
            "products": {"float32": 1e11, "bfloat16": 9e10},
            "start_seconds": 1.2e-05,
        },
        "programs": [program],
        "flops": 1.2288e10,
        "share": 0.512,
        "comparison": {"verdict": "inconclusive", "similarity": 0.91, "seconds": {"total": 3.2}}
        if len(models) > 1
        else None,
        "trace": {"folder": "t", "files": ["plugins/profile/1/host.xplane.pb"]},
        "notes": ["XLA's cost analysis counts one trip of each loop; `flops` counts all of them."],
        "key": 0,
        "seconds": {"total": 4.5},
        **changes,
    }


def screen(*verdicts: str) -> dict[str, Any]:
    rows = [
        {
            "suspect": side(f"{i}.onnx"),
            "similarity": 0.5 + i / 100,
            "score": 4.5,
            "representations": [{"name": "ddv", "score": 2.25, "exceeded_by": 1, "supports": "reuse"}],
            "identity": None,
            "tail": None,
            "basis": "none" if verdict == "inconclusive" else "rank",
            "references_needed": 59 if verdict == "inconclusive" else None,
            "reason": "No reference of 19 scores as high as the suspect.",
            "unrelated_pairs": None,
            "null_scores": {} if verdict == "inconclusive" else {"related": [0.25 * k - 1 for k in range(19)]},
            "calibration": "references",
            "p_value": None if verdict == "inconclusive" else 0.01,
            "adjusted_p_value": None if verdict == "inconclusive" else 0.02,
            "verdict": verdict,
        }
        for i, verdict in enumerate(verdicts)
    ]
    return {
        **HEAD,
        "command": "screen",
        "target": side("owner.onnx"),
        "probe_set_id": PROBE_SET_ID,
        "correction": "holm",
        "alpha": 0.05,
        "access": "outputs",
        "rows": rows,
        "failures": [],
        "notes": [],
        "key": 0,
        "seconds": {"total": 12.3},
    }


def lineage(*parents: int | None) -> dict[str, Any]:
    rows = [
        {
            "model": side(f"{i}.onnx"),
            "parent": parent,
            "support": 0.75,
            "likely": [{"parent": parent, "support": 0.75}, {"parent": None if parent else 1, "support": 0.2}],
        }
        for i, parent in enumerate(parents)
    ]
    return {
        **HEAD,
        "command": "lineage",
        "rows": rows,
        "n_pairs": 100,
        "failures": [failure("model")],
        "notes": [],
        "key": 0,
        "seconds": {"total": 9.0},
    }


ALL = {
    "compare": compare(),
    "compare-context": compare(
        unrelated_pairs={
            "name": "image-classifiers-1",
            "n": 999,
            "low": 0.2,
            "median": 0.5,
            "high": 0.8,
            "share_as_high": 0.01,
        },
        failures=[failure("reference")],
    ),
    "compare-identical": compare(verdict="reused", identity="file", basis="identity", references_needed=None),
    "compare-reused": with_verdict("reused", 0.05),
    "compare-no-evidence": with_verdict("no_evidence", 0.6),
    "convert": convert(check=False),
    "convert-check": convert(),
    "convert-differs": convert(agrees=False),
    "doctor": doctor(),
    "doctor-broken": doctor(ok=False),
    "demo": demo(),
    "screen": screen("reused", "no_evidence", "inconclusive"),
    "screen-one": screen("no_evidence"),
    "lineage": lineage(None, 0, 1, None),
    "profile-kernel": profile(),
    "profile-model": profile("m.onnx", ("m.onnx",)),
    "profile-comparison": profile("a with b", ("a.onnx", "b.onnx")),
    "profile-nothing": profile(programs=[], flops=0, share=None, trace=None),
}
