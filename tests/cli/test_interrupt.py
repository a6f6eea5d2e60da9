"""An interrupt ends the process soon, whatever it is doing."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from modeldiff_jax.cli.interrupt import GRACE, prompt_interrupt

PROGRAM = """
import hashlib, os, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from modeldiff_jax.cli.interrupt import prompt_interrupt
from modeldiff_jax.runtime.atomic_file import writing

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored

def in_one_step():  # as a compilation is
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def in_a_pool():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60).result()

def in_a_pool_of_steps():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: in_one_step(), range(2)))

def in_python():
    while True:
        pass

def deaf():
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass

def writing_a_file():
    with writing("result") as stream:
        stream.write(b"half")
        stream.flush()
        in_one_step()

def waiting_for_a_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    in_one_step()

def importing():
    sys.path.insert(0, "")
    import slow

with prompt_interrupt():
    print("ready", flush=True)
    try:
        globals()[sys.argv[1]]()
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize(
    "program", ["in_one_step", "in_a_pool", "in_a_pool_of_steps", "in_python", "deaf", "writing_a_file"]
)
def test_the_process_ends_soon(tmp_path, program):
    command = [sys.executable, "-c", PROGRAM, program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        seconds = time.monotonic() - start
    assert (process.returncode, errors) == (130, "")
    assert seconds < GRACE + 5  # the machine may be busy; the work lasts a minute and more
    assert list(tmp_path.iterdir()) == []


def test_child_processes_end_too():
    command = [sys.executable, "-c", PROGRAM, "waiting_for_a_child"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    _, alive = psutil.wait_procs([child], timeout=10)
    assert alive == []


def test_an_import_is_not_broken_off(tmp_path):
    """A C extension that is half initialised would crash; nothing runs between the interrupt and the end."""
    (tmp_path / "slow.py").write_text(
        "import os, time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    os._exit(7)\n"
    )
    command = [sys.executable, "-c", PROGRAM, "importing"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_without_an_interrupt_nothing_changes():
    threads, before = threading.active_count(), signal.set_wakeup_fd(-1)
    with prompt_interrupt():
        assert threading.active_count() == threads + 1
    assert signal.set_wakeup_fd(before) == -1
    for _ in range(100):
        if threading.active_count() == threads:
            break
        time.sleep(0.01)
    assert threading.active_count() == threads


def test_other_threads_may_run_it():
    done = []

    def run():
        with prompt_interrupt():
            done.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [1]


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="this job ignores interrupts")
def test_the_command_line_can_be_interrupted(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"")
    os.mkfifo(tmp_path / "out")  # nobody reads it: the command waits there, done with all else
    command = [sys.executable, "-m", "modeldiff_jax.cli", "doctor", "-o", "out"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
