"""Outputs are there whole or not at all, whatever happens on the way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from recli.errors import BusyError, OutputError
from recli.io.atomic import json_output, output

Fill = Callable[[BinaryIO], None]


def put(data: bytes) -> Fill:
    def fill(file: BinaryIO) -> None:
        file.write(data)

    return fill


def write(path: str | Path, fill: Fill, **more: bool) -> None:
    with output(str(path), **more) as out:
        out.write(fill)


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def as_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Python code that says `ready` where it waits to be killed."""
    text = "import os, sys, time\nfrom recli.io.atomic import output\n" + code
    return subprocess.Popen([sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, text=True)


HOLDS = """
def fill(file):
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
with output("a") as out:
    out.write(fill)
"""


@contextlib.contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing the file `a`."""
    child = as_process(HOLDS)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_a_write_creates_and_replaces_and_leaves_nothing_else() -> None:
    write("a", put(b"one"))
    assert files() == {"a": b"one"}
    write("a", put(b"two"))
    assert files() == {"a": b"two"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("old", [{}, {"a": b"old"}])
def test_a_failure_gets_through_and_leaves_what_was_there(error: BaseException, old: dict[str, bytes]) -> None:
    for name, data in old.items():
        Path(name).write_bytes(data)

    def fail(file: BinaryIO) -> None:
        file.write(b"half" * 100_000)
        raise error

    with pytest.raises(type(error)):
        write("a", fail)
    assert files() == old


def test_after_a_killed_writer_the_old_file_is_whole_and_the_next_run_cleans_up() -> None:
    Path("a").write_bytes(b"old")
    Path(".a.note.tmp").write_bytes(b"somebody else's")
    with holder() as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    left = files()
    assert left.pop("a") == b"old"
    assert b"half" in left.values()  # nothing can remove it but a later run
    write("a", put(b"new"))
    assert files() == {"a": b"new", ".a.note.tmp": b"somebody else's"}


def test_a_second_writer_is_told_who_is_writing() -> None:
    with holder() as child:
        with pytest.raises(BusyError, match=rf"^a: another recli run \(process {child.pid}\) is writing it"):
            write("a", put(b"mine"))
        assert child.poll() is None
        write("b", put(b"mine"))  # another name is no conflict
        child.terminate()
    write("a", put(b"mine"))
    assert files()["a"] == b"mine"


def test_two_outputs_of_one_run_with_one_name_are_a_mistake_not_a_reason_to_wait() -> None:
    with (
        output("a") as out,
        pytest.raises(OutputError, match=r"^\./a: two outputs of this run have the same name"),
        json_output("./a"),
    ):
        pass
    out.write(put(b"x"))


def test_of_many_writers_at_once_each_is_served_or_refused_and_the_file_is_one_of_theirs() -> None:
    written: list[int] = []
    others: list[BaseException] = []

    def work(number: int) -> None:
        for _ in range(25):
            try:
                write("a", put(b"%d" % number * 1000))
                written.append(number)
            except (BusyError, OutputError):
                pass
            except BaseException as error:
                others.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not others
    assert written
    assert files() in [{"a": b"%d" % number * 1000} for number in range(4)]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_the_umasks(umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write("a", put(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("a").st_mode) == mode


def test_a_symbolic_link_stays_and_its_target_is_replaced() -> None:
    Path("data").mkdir()
    Path("data/model").write_bytes(b"old")
    Path("latest").symlink_to("data/model")
    Path("soon").symlink_to("data/next")
    write("latest", put(b"new"))
    write("soon", put(b"new"))
    assert Path("latest").is_symlink()
    assert (Path("data/model").read_bytes(), Path("data/next").read_bytes()) == (b"new", b"new")
    assert sorted(os.listdir("data")) == ["model", "next"]


def seeking(file: BinaryIO) -> None:
    """What no pipe can do: begin with what is known last, as a zip archive does."""
    file.write(b"????")
    file.write(b"body" * 50_000)
    file.seek(0)
    file.write(b"head")


def test_a_named_pipe_gets_the_bytes_in_order() -> None:
    os.mkfifo("pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_bytes()))
    reader.start()
    write("pipe", seeking)
    reader.join()
    assert received == [b"head" + b"body" * 50_000]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1"])
def test_stdout_gets_the_bytes_in_order_by_any_of_its_names(path: str) -> None:
    code = """
def fill(file):
    file.write(b"????abc")
    file.seek(0)
    file.write(b"head")
with output(sys.argv[1]) as out:
    out.write(fill)
"""
    out = as_process(code, path).communicate(timeout=60)[0]
    assert out == "headabc"
    assert files() == {}


def test_dev_null_takes_everything_and_stays_a_device() -> None:
    write("/dev/null", seeking, no_clobber=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("path", ["-", "pipe"])
def test_a_reader_that_has_gone_is_a_broken_pipe_not_a_storage_error(path: str) -> None:
    os.mkfifo("pipe")
    code = f"""
try:
    with output({path!r}) as out:
        out.write(lambda file: file.write(bytes(1 << 20)))
except BrokenPipeError:
    os._exit(9)
"""
    with as_process(code) as child:
        assert child.stdout is not None
        if path == "-":
            child.stdout.close()
        else:
            open("pipe", "rb").close()
        assert child.wait(60) == 9


def test_a_closed_stdout_is_an_error_of_ours() -> None:
    code = "from recli.io import output\nwith output('-'): pass"
    ended = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}" >&-'], capture_output=True, text=True)
    assert "recli.errors.OutputError: stdout is closed" in ended.stderr


@pytest.mark.parametrize(
    ("path", "more", "reason"),
    [
        (".", {}, r"^\.: expected a file to write, found a folder"),
        ("new/", {}, "^new/: expected a file to write, found a folder"),
        ("nowhere/a", {}, "^nowhere/a: the folder nowhere does not exist"),
        ("in/a", {}, "^in/a: the folder in does not exist"),
        ("in", {"no_clobber": True}, r"^in: exists already \(--no-clobber\)"),
        ("in", {"inputs": ("-", "nowhere", "in")}, "^in: the output is also an input"),
        ("link", {"inputs": ("in",)}, "^link: the output is also an input"),
        ("in", {"inputs": ("link",)}, "^in: the output is also an input"),
        ("hard", {"inputs": ("in",)}, "^hard: the output is also an input"),
        ("x" * 250, {}, "cannot create a file in its folder: File name too long"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(path: str, more: dict[str, object], reason: str) -> None:
    Path("in").write_bytes(b"data")
    os.symlink("in", "link")
    os.link("in", "hard")
    before = files()
    with pytest.raises(OutputError, match=reason), output(path, **more):  # type: ignore[arg-type]
        pytest.fail("the work would have begun")
    assert files() == before


def test_no_clobber_writes_where_nothing_is() -> None:
    write("a", put(b"x"), no_clobber=True)
    assert files() == {"a": b"x"}


@pytest.mark.parametrize(
    ("mode", "said"), [(0o555, "OutputError a: the folder may not be written to\n"), (0o777, "began\n")]
)
def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(mode: int, said: str) -> None:
    code = """
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    with output("a"): print("began")
except Exception as error:
    print(type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        os.chmod(folder, mode)
        os.chdir(folder)
        assert as_process(code).communicate(timeout=60)[0] == said
        assert os.listdir(folder) == []


def test_json_output_writes_one_object_or_nothing() -> None:
    with json_output("stats.json") as write_stats:
        write_stats({"name": "Zoë", "users": 3})
    assert files() == {"stats.json": b'{\n  "name": "Zo\xc3\xab",\n  "users": 3\n}\n'}
    with json_output(None) as write_stats:
        write_stats({"x": object()})


@pytest.mark.parametrize("call", ["open", "flock", "ftruncate"])
def test_a_signal_while_the_lock_is_taken_leaves_none(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler's exception comes when the call has been made, before its result is known."""
    module = fcntl if call == "flock" else os
    real = getattr(module, call)
    pending = [KeyboardInterrupt]

    def interrupted(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        if pending:
            raise pending.pop()
        return result

    monkeypatch.setattr(module, call, interrupted)
    with pytest.raises(KeyboardInterrupt), output("new.npz"):
        pass
    assert os.listdir() == []


def test_a_busy_lock_stays_its_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    with output("new.npz"):
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(BusyError), output("new.npz"):
            pass
        assert os.listdir() == [".new.npz.lock"]
