"""The double of a mounted Drive does what it says, in other processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from colab_keras_bg.testing.mounted_folder import MountedFolder

# Does what it is told, line by line, on a storage; tells what came of it.
PROGRAM = """\
import sys
from colab_keras_bg.errors import StorageError
from colab_keras_bg.storage.mounted import MountedStorage
storage = MountedStorage(sys.argv[1], patience_secs=0.3)
for line in sys.stdin:
    try:
        print("ok", eval(line), flush=True)
    except StorageError as error:
        told = str(error).replace(chr(10), " ")
        print(type(error).__name__, told, flush=True)
"""


class Process:
    """A process that sees the mount."""

    def __init__(self, drive: MountedFolder) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(drive.path / "runs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **drive.environment},
        )

    def does(self, what: str) -> str:
        """What came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[MountedFolder]:
    """A mount."""
    with MountedFolder(tmp_path) as drive:
        yield drive


@pytest.fixture
def process(drive: MountedFolder) -> Iterator[Process]:
    """A process that sees it."""
    process = Process(drive)
    yield process
    process.end()


WRITES = "storage.create('a', [b'1']).size_bytes"
READS = "storage.read('a')"


def test_it_uploads_later(drive: MountedFolder, process: Process) -> None:
    """What was uploaded is there when the machine is lost, and nothing else."""
    assert process.does(WRITES) == "ok 1"
    drive.wait_until_uploaded()
    drive.upload_after_secs = None
    assert process.does("storage.create('b', [b'2']).size_bytes") == "ok 1"
    assert sorted(p.name for p in (drive.path / "runs").iterdir()) == ["a", "b"]
    drive.lose_machine()
    assert [p.name for p in (drive.path / "runs").iterdir()] == ["a"]
    assert process.does("storage.exists('b')") == "ok False"


def test_it_uploads_in_any_order(drive: MountedFolder) -> None:
    """What a test names, and nothing else; a later file before an earlier."""
    drive.upload_after_secs = None
    for name in ("a", "b", "c"):
        (drive.path / name).write_text(name)
    drive.upload("c")
    drive.upload("a")
    drive.lose_machine()
    assert sorted(p.name for p in drive.path.iterdir()) == ["a", "c"]
    with pytest.raises(FileNotFoundError):
        drive.upload("b")
    (drive.path / "d").write_text("d")
    drive.upload()
    assert sorted(p.name for p in drive.cloud.iterdir()) == ["a", "c", "d"]


def test_each_new_file_is_uploaded(drive: MountedFolder) -> None:
    """Also one of the same size and time as the one before."""
    now = time.time_ns()
    for content in ("1", "2", "3"):
        new = drive.path / ".new"
        new.write_text(content)
        os.utime(new, ns=(now, now))
        new.replace(drive.path / "a")
        drive.wait_until_uploaded()
        assert (drive.cloud / "a").read_text() == content


def test_what_is_deleted_is_deleted_there(
    drive: MountedFolder, process: Process
) -> None:
    """Later, too."""
    process.does(WRITES)
    drive.wait_until_uploaded()
    assert (drive.cloud / "runs" / "a").read_bytes() == b"1"
    assert process.does("storage.delete('a')") == "ok None"
    until(lambda: not (drive.cloud / "runs" / "a").exists(), what="it is gone")


def test_it_dies(drive: MountedFolder, process: Process) -> None:
    """And comes back."""
    process.does(WRITES)
    drive.die()
    assert process.does(READS).startswith("StorageRefusedError")
    assert "the mount is dead" in process.does("storage.exists('a')")
    assert "the mount is dead" in process.does("list(storage.list())")
    drive.recover()
    assert process.does(READS) == "ok b'1'"


def test_it_is_full(drive: MountedFolder, process: Process) -> None:
    """Reading goes on."""
    process.does(WRITES)
    drive.fill()
    told = process.does("storage.create('b', [b'2'])")
    assert told.startswith("NoSpaceError")
    assert process.does(READS) == "ok b'1'"
    assert [p.name for p in (drive.path / "runs").iterdir()] == ["a"]


def test_it_stalls(drive: MountedFolder, process: Process) -> None:
    """For as long as it is told to."""
    process.does(WRITES)
    drive.stall()
    assert "the mount hangs" in process.does(READS)
    drive.recover()
    until(lambda: process.does(READS) == "ok b'1'", what="it answers again")


def test_it_is_slow(drive: MountedFolder, process: Process) -> None:
    """A storage with little patience finds that it hangs."""
    process.does(WRITES)
    drive.slow_down(0.5)
    assert "the mount hangs" in process.does(READS)
    drive.recover()
    until(lambda: process.does(READS) == "ok b'1'", what="it answers again")


@pytest.mark.parametrize(
    "does",
    [
        "open(path)",
        "open(path, 'w')",
        "pathlib.Path(path).read_bytes()",
        "os.listdir(os.path.dirname(path))",
        "os.listdir('.')",
        "os.stat(path)",
        "os.statvfs(path)",
        "os.open(path, os.O_RDONLY)",
    ],
)
def test_whatever_a_program_does_there(drive: MountedFolder, does: str) -> None:
    """It is struck there, and nowhere else."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, pathlib, sys\n"
            "for place in (sys.argv[1], sys.argv[2]):\n"
            "    os.chdir('/'); path = place + '/a'\n"
            "    try: os.chdir(place)\n"
            "    except OSError: pass\n"
            f"    try: {does}; print('ok')\n"
            "    except OSError as error: print(error.errno)\n",
            *(place_with_a_file(drive), place_with_a_file(drive, drive.cloud)),
        ],
        env={**os.environ, **drive.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == [str(errno.ENOTCONN), "ok"]


def place_with_a_file(drive: MountedFolder, place: Path | None = None) -> str:
    """A folder, with a file in it, of a mount that has died."""
    drive.upload_after_secs = None
    place = place or drive.path
    (place / "a").write_bytes(b"1")
    drive.die()
    return str(place)


def test_it_stands_in_nobodys_way(
    drive: MountedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process was to import at its start, it imports."""
    (tmp_path / "sitecustomize.py").write_text("print('here, too')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", ""],
        env={**os.environ, **drive.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("here, too\n", "")


def test_hard_links_are_not_to_be_had(drive: MountedFolder) -> None:
    """As on a real one."""
    program = "import os, sys; os.link(sys.argv[1] + '/a', sys.argv[1] + '/b')"
    (drive.path / "a").write_bytes(b"1")
    done = subprocess.run(
        [sys.executable, "-c", program, str(drive.path)],
        env={**os.environ, **drive.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "[Errno 38]" in done.stderr
