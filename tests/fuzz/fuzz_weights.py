"""Fuzzes the readers of weight files: `python -m tests.fuzz.fuzz_weights -max_total_time=60`."""

from tests.fuzz.run import fuzz

if __name__ == "__main__":
    fuzz("weights", "weight_files")
