"""Fuzzes the ONNX reader: `python -m tests.fuzz.fuzz_reader -max_total_time=60`."""

from tests.fuzz.run import fuzz

if __name__ == "__main__":
    fuzz("reader", "onnx_files", "ModelProto")
