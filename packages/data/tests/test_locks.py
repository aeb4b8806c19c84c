"""One process holds a name at a time; what a process that is gone left behind holds nobody up."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from weft.data.errors import InUseError
from weft.data.processes import locks

REPEATS = 20
HOLDS = """
import sys, time
from weft.data.processes.locks import held
with held(sys.argv[1], "`name`"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def _race(path: str, ready, told, outcomes) -> None:
    ready.wait()
    try:
        with locks.held(path, "`name`"):
            outcomes.put("held")
            told.wait(60)
    except InUseError as error:
        outcomes.put(str(error))
        told.set()


def test_of_two_processes_one_holds_and_the_other_is_told_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(REPEATS):
        path, outcomes = tmp_path / ".x.lock", context.Queue()
        shared = (context.Barrier(2), context.Event(), outcomes)
        both = [context.Process(target=_race, args=(str(path), *shared)) for _ in range(2)]
        for process in both:
            process.start()
        told = sorted(outcomes.get(timeout=20) for _ in both)
        for process in both:
            process.join()
        assert told[1] == "held"
        assert told[0].startswith("`name` must be used by one process at a time, but is in use by process ")
        assert not path.exists()


def test_the_message_names_process_machine_and_age(tmp_path: Path) -> None:
    path = tmp_path / ".x.lock"
    process = holder(path)
    try:
        told = f"process {process.pid} on {socket.gethostname()}, for .+ seconds. Wait until .*, go elsewhere; .*remove"
        with (
            pytest.raises(InUseError, match=told),
            locks.held(path, "`name`", advice="go elsewhere"),
        ):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / ".x.lock"
    process = holder(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert locks.holder_of(path) is not None
    with locks.held(path, "`name`"):
        found = locks.holder_of(path)
        assert found is not None
        assert found.pid == os.getpid()
    assert not path.exists()


def test_a_lock_of_another_machine_is_stale_once_it_is_touched_no_more(tmp_path: Path) -> None:
    path = tmp_path / ".x.lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "since": time.time() - 7_300}))
    with pytest.raises(InUseError, match="process 7 on elsewhere, for 2 hours"), locks.held(path, "`name`"):
        pass
    old = time.time() - locks.STALE - 1
    os.utime(path, (old, old))
    with locks.held(path, "`name`"):
        assert locks.holder_of(path) != locks.Holder("elsewhere", 7, old)


def test_a_held_lock_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    path = tmp_path / ".x.lock"
    with locks.held(path, "`name`"):
        os.utime(path, (1, 1))
        end = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_a_second_thread_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    path, told = tmp_path / ".x.lock", []

    def second() -> None:
        try:
            with locks.held(path, "`name`"):
                told.append("held")
        except InUseError:
            told.append("refused")

    with locks.held(path, "`name`"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        outside = subprocess.run(
            [sys.executable, "-c", HOLDS.replace("60", "0"), str(path)], capture_output=True, text=True
        )
    assert told == ["refused"]
    assert "InUseError" in outside.stderr


def test_a_waiting_process_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".x.lock"
    process = holder(path)
    threading.Timer(0.3, process.kill).start()
    with locks.held(path, "`name`", wait=20):
        process.wait()
        assert path.exists()


def _outlive(path: str, ready) -> None:
    with locks.held(path, "`name`"):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        ready.set()
        time.sleep(60)


def test_children_of_a_killed_holder_hold_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path, ready = tmp_path / ".x.lock", context.Event()
    process = context.Process(target=_outlive, args=(str(path), ready))
    process.start()
    assert ready.wait(20)
    process.kill()
    process.join()
    with locks.held(path, "`name`"):
        pass


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"host": 1}', b"[" * 4000, b"\xff", b'{"pid": ' + b"9" * 5000 + b"}"]
)
def test_a_lock_that_says_nothing_is_nobodys(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / ".x.lock"
    path.write_bytes(text)
    assert locks.holder_of(path) is None
    with locks.held(path, "`name`"):
        pass


def test_a_file_system_without_locks_goes_by_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_lock", lambda handle: None)
    path = tmp_path / ".x.lock"
    with locks.held(path, "`name`"), pytest.raises(InUseError), locks.held(path, "`name`"):
        pass
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "since": time.time()}))
    with locks.held(path, "`name`"):
        pass
