"""Fuzzes the readers of zip archives and of NumPy's files: `python -m tests.fuzz.fuzz_archives -max_total_time=60`."""

from tests.fuzz.run import fuzz

if __name__ == "__main__":
    fuzz("archives", "archive_files")
