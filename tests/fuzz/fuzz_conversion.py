"""Fuzzes reading, folding and tracing of ONNX models: `python -m tests.fuzz.fuzz_conversion -max_total_time=60`."""

from tests.fuzz.run import fuzz

if __name__ == "__main__":
    fuzz("conversion", "onnx_files", "ModelProto")
