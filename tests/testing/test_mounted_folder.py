"""The double of a mounted Drive does what it says, in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
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
