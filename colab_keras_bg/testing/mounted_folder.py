"""A folder that stands in for a mounted Google Drive: late, stalling, dying.

    with MountedFolder(tmp_path) as drive:
        environment = {**os.environ, **drive.environment}
        process = subprocess.Popen(command, env=environment)
        drive.stall()  # Every call hangs from now on ...
        drive.recover()
        drive.die()  # ... or raises "Transport endpoint is not connected".
        drive.lose_machine()  # The next machine sees what was uploaded.

Invariant: what is not uploaded is lost with the machine, and a fault strikes
every process that has `environment`, from its next call on.

Two plain folders: `path`, the mount as programs see it, and `cloud`, to which
closed files are copied some time later. The faults are those of the processes
that get `environment`: a module that Python imports at its start wraps the
calls of `os` on paths below `path`, and asks a small file what is to go wrong.

Known differences from a real mount: only Python's `os` is struck, not C code
or `open()` on a path; there is no latency unless asked for; no file is ever
shown of what another machine has uploaded meanwhile; a process that hangs can
be ended by SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import textwrap
import threading
import time
from pathlib import Path
from types import TracebackType

__all__ = ["MountedFolder"]

_POLL_SECS = 0.02

# Imported by each process at its start; `{folder!r}` and `{control!r}` are put
# in place.
_STRIKES = '''\
"""Has the calls of `os` below one folder go wrong; see mounted_folder.py."""
import errno, json, os, time

_FOLDER, _CONTROL = {folder!r}, {control!r}
_real = {{name: getattr(os, name) for name in dir(os)}}
_handles = set()


def _below(path):
    try:
        path = _real["fspath"](path)
    except TypeError:
        return path in _handles
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    return path == _FOLDER or path.startswith(_FOLDER + "/")


def _order():
    handle = _real["open"](_CONTROL, os.O_RDONLY)
    try:
        return json.loads(_real["read"](handle, 65536) or b"{{}}")
    finally:
        _real["close"](handle)


def _strike(name):
    while (order := _order()).get("stalls"):
        time.sleep(0.02)
    if secs := order.get("secs"):
        time.sleep(secs)
    number = order.get("fails")
    if number is None and name in ("write", "link"):
        number = order.get("writes_fail") if name == "write" else errno.ENOSYS
    if number is not None:
        raise OSError(number, os.strerror(number))


def _wrapped(name):
    real = _real[name]

    def call(first=".", *rest, **named):
        below = _below(first)
        if below:
            _strike(name)
        result = real(first, *rest, **named)
        if below and name == "open":
            _handles.add(result)
        if name == "close":
            _handles.discard(first)
        return result

    return call


for _name in (
    "open stat lstat listdir scandir mkdir rmdir unlink rename replace link "
    "truncate write pread read fsync fstat"
).split():
    setattr(os, _name, _wrapped(_name))


def _close(handle, _real_close=_real["close"]):
    _handles.discard(handle)
    return _real_close(handle)


os.close = _close
'''


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
        self.path = directory / "mounted"
        self.cloud = directory / "cloud"
        self.upload_after_secs = upload_after_secs
        self._control = directory / "faults.json"
        self._start = directory / "start"
        for folder in (self.path, self.cloud, self._start):
            folder.mkdir(parents=True)
        self._order()
        (self._start / "sitecustomize.py").write_text(
            textwrap.dedent(_STRIKES).format(
                folder=str(self.path), control=str(self._control)
            )
        )
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

    def lose_machine(self) -> None:
        """The next machine mounts what was uploaded, and nothing else."""
        with self._busy:
            shutil.rmtree(self.path)
            shutil.copytree(self.cloud, self.path)

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
        here, there = _files(self.path), _files(self.cloud)
        for name in sorted(here):
            source, target = self.path / name, self.cloud / name
            found = source.stat()
            if found.st_mtime > closed_before:
                continue
            if name in there and target.stat().st_mtime == found.st_mtime:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.uploading")
            shutil.copy2(source, part)
            os.replace(part, target)
        for name in there - here:
            (self.cloud / name).unlink()


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
