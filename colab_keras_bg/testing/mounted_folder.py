"""A folder that stands in for a mounted Google Drive: late, stalling, dying.

    with MountedFolder(tmp_path) as drive:
        environment = {**os.environ, **drive.environment}
        process = subprocess.Popen(command, env=environment)
        drive.stall()  # Every call hangs from now on ...
        drive.recover()
        drive.die()  # ... or raises "Transport endpoint is not connected".
        drive.lose_machine()  # The next machine sees what was uploaded.

Invariant: `path`, the mount as programs see it, and `cloud` are two plain
folders; closed files are copied to the cloud some time later, and nothing but
what lies there outlives the machine.

The faults are those of the processes that get `environment`: a module that
Python imports at its start wraps the calls on files below `path` (see
`mount_faults.py`), and asks a small file what is to go wrong.

Known differences from a real mount: only Python's `os` and `open` are struck,
not C code, nor what is done to a file that `open` has opened already; a Python
that ignores its environment (`-I`, `-E`) is not struck at all; nothing shows
here that another machine has uploaded meanwhile; a process that hangs can be
ended by SIGTERM. A file that is written in place may be uploaded half written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType

from colab_keras_bg.testing import mount_faults

__all__ = ["MountedFolder"]

_POLL_SECS = 0.02

# Imported by each process at its start; then what it stands in the way of.
_START = """\
import importlib.machinery, importlib.util, sys
from pathlib import Path

def load(spec):
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

spec = importlib.util.spec_from_file_location("mount_faults", {module!r})
load(spec).MountFaults({folder!r}, {control!r}).install()
others = [path for path in sys.path if Path(path) != Path(__file__).parent]
other = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
if other is not None:
    load(other)
"""


class MountedFolder:
    """A folder that uploads later, and goes wrong when it is told to.

    Attributes:
        path: The mount, as a program sees it.
        cloud: What has been uploaded.
        upload_after_secs: How long after a file was closed it is uploaded;
            None for never.
    """

    def __init__(
        self, directory: Path, *, upload_after_secs: float | None = 0.0
    ) -> None:
        """Makes both folders.

        Args:
            directory: Where they and what belongs to them are made.
            upload_after_secs: See above.
        """
        directory = directory.absolute()
        self.path = directory / "mounted"
        self.cloud = directory / "cloud"
        self.upload_after_secs = upload_after_secs
        self._control = directory / "faults.json"
        self._start = directory / "start"
        for folder in (self.path, self.cloud, self._start):
            folder.mkdir(parents=True)
        self._order()
        (self._start / "sitecustomize.py").write_text(
            _START.format(
                module=mount_faults.__file__,
                folder=str(self.path),
                control=str(self._control),
            )
        )
        # What each file was when it was uploaded.
        self._uploaded: dict[str, tuple[int, int, int]] = {}
        self._ending = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._upload, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs, to see a mount in it."""
        paths = [str(self._start), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "COLAB_KERAS_BG_MOUNTED_FOLDERS": str(self.path),
        }

    def __enter__(self) -> MountedFolder:
        """Uploads from now on."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Uploads no more; whoever hangs is released."""
        self.recover()
        self._ending.set()
        self._thread.join()

    def die(self, number: int = errno.ENOTCONN) -> None:
        """Every call raises from now on.

        Args:
            number: With which number of `errno`.
        """
        self._order(fails=number)

    def stall(self) -> None:
        """Every call hangs from now on."""
        self._order(stalls=True)

    def fill(self, number: int = errno.EDQUOT) -> None:
        """Nothing more can be written.

        Args:
            number: What writing raises.
        """
        self._order(writes_fail=number)

    def slow_down(self, secs: float) -> None:
        """Every call takes so much longer.

        Args:
            secs: How much.
        """
        self._order(secs=secs)

    def recover(self) -> None:
        """All goes well again; what hung goes on."""
        self._order()

    def wait_until_uploaded(self, *, patience_secs: float = 30.0) -> None:
        """Returns when all that is there has been uploaded.

        Raises:
            TimeoutError: If it never is.
        """
        give_up = time.monotonic() + patience_secs
        while _contents(self.path) != _contents(self.cloud):
            if time.monotonic() > give_up:
                raise TimeoutError("not all is uploaded")
            time.sleep(_POLL_SECS)

    def upload(self, *names: str) -> None:
        """Uploads files now, in this order; whether or not it is time.

        With `upload_after_secs=None` nothing else is uploaded, so that a test
        has the cloud hold whatever a machine can leave behind.

        Args:
            names: Paths below `path`; all files if there are none.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        with self._busy:
            for name in names or sorted(_files(self.path)):
                self._upload_file(name)

    def lose_machine(self) -> None:
        """The next machine mounts what was uploaded, and nothing else."""
        with self._busy:
            shutil.rmtree(self.path)
            shutil.copytree(self.cloud, self.path)
            self._uploaded.clear()

    def _order(self, **order: object) -> None:
        """Says what is to go wrong, and nothing else."""
        temporary = self._control.with_suffix(".tmp")
        temporary.write_text(json.dumps(order))
        os.replace(temporary, self._control)

    def _upload(self) -> None:
        while not self._ending.wait(_POLL_SECS):
            if self.upload_after_secs is None:
                continue
            with self._busy, contextlib.suppress(FileNotFoundError):
                self._upload_once(time.time() - self.upload_after_secs)

    def _upload_once(self, closed_before: float) -> None:
        here = _files(self.path)
        for name in sorted(here):
            found = (self.path / name).stat()
            if found.st_mtime > closed_before:
                continue
            if self._uploaded.get(name) != _identity(found):
                self._upload_file(name)
        for name in _files(self.cloud) - here:
            (self.cloud / name).unlink()

    def _upload_file(self, name: str) -> None:
        target = self.cloud / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.uploading")
        with (self.path / name).open("rb") as source, part.open("wb") as copy:
            found = os.fstat(source.fileno())
            shutil.copyfileobj(source, copy)
        os.replace(part, target)
        self._uploaded[name] = _identity(found)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """What tells a file from the one that had its name before."""
    return found.st_ino, found.st_mtime_ns, found.st_size


def _files(folder: Path) -> set[str]:
    """The names of all whole files."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def _contents(folder: Path) -> dict[str, bytes]:
    with contextlib.suppress(FileNotFoundError):
        return {name: (folder / name).read_bytes() for name in _files(folder)}
    return {}
