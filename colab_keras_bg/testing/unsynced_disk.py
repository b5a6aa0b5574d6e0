"""A disk that remembers what was never synced.

Invariant: what POSIX promises about `fsync` is kept, and nothing beyond it.
Content that a file's fsync has confirmed stays. So does an entry that its
folder's fsync has confirmed. Of all else each name and each byte may be lost
when the power goes, whatever the order in which they were written.

It is a `FileSystem` on a real directory, so that what only reads needs to know
nothing of it; beside that it keeps a model of what a power cut would leave.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colab_keras_bg.storage.filesystem import FileSystem, PosixFileSystem

__all__ = ["EXTREMES", "Aftermath", "UnsyncedDisk", "aftermaths"]


@dataclass(frozen=True)
class Aftermath:
    """What a power cut leaves of what was not synced.

    Attributes:
        names: Which unsynced changes of names have happened: none (`"lost"`),
            all (`"kept"`), only the new names (`"added"`), only the removals
            (`"removed"`), or for each name any of the states that it went
            through (`"drawn"`).
        content: What unsynced content reads as: nothing (`"lost"`), as written
            (`"kept"`), zeros, or any of these and anything between
            (`"drawn"`).
        seed: What is drawn is drawn from this.
    """

    names: Literal["lost", "kept", "added", "removed", "drawn"]
    content: Literal["lost", "kept", "zeros", "drawn"]
    seed: int = 0


EXTREMES = (
    Aftermath("lost", "lost"),
    Aftermath("kept", "kept"),
    Aftermath("kept", "lost"),
    Aftermath("kept", "zeros"),
    Aftermath("added", "lost"),
    Aftermath("removed", "lost"),
)


def aftermaths(seeds: int) -> Sequence[Aftermath]:
    """The extremes, and as many drawn ones."""
    drawn = (Aftermath("drawn", "drawn", seed) for seed in range(seeds))
    return (*EXTREMES, *drawn)


@dataclass(eq=False)
class _File:
    """A file's content, and how much of it is synced."""

    content: bytearray = field(default_factory=bytearray)
    synced_bytes: int = 0

    def after(self, aftermath: Aftermath, draw: random.Random) -> bytes:
        synced = bytes(self.content[: self.synced_bytes])
        tail = bytes(self.content[self.synced_bytes :])
        match aftermath.content:
            case "lost":
                return synced
            case "kept":
                return synced + tail
            case "zeros":
                return synced + bytes(len(tail))
        torn = tail[: draw.randint(0, len(tail))]
        zeros = bytes(len(tail) - len(torn))
        return synced + draw.choice(
            [b"", tail, bytes(len(tail)), torn, torn + zeros]
        )


@dataclass(eq=False)
class _Folder:
    """A folder's entries: as they are, as synced, and what happened since."""

    names: dict[str, _Node] = field(default_factory=dict)
    synced: dict[str, _Node] = field(default_factory=dict)
    changes: list[tuple[str, _Node | None]] = field(default_factory=list)

    def set(self, name: str, node: _Node | None) -> None:
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node
        self.changes.append((name, node))

    def sync(self) -> None:
        self.synced = dict(self.names)
        self.changes.clear()

    def after(
        self, aftermath: Aftermath, draw: random.Random
    ) -> Iterator[tuple[str, _Node]]:
        # In the order of what happened: names may hold random letters.
        names = dict.fromkeys([*self.synced, *(n for n, _ in self.changes)])
        for name in names:
            before = self.synced.get(name)
            later = [node for n, node in self.changes if n == name]
            node = _chosen(before, later, aftermath, draw)
            if node is not None:
                yield name, node


_Node = _File | _Folder


def _chosen(
    before: _Node | None,
    later: Sequence[_Node | None],
    aftermath: Aftermath,
    draw: random.Random,
) -> _Node | None:
    """What one name leads to after the cut."""
    states = [before, *later]
    match aftermath.names:
        case "lost":
            return before
        case "kept":
            return states[-1]
        case "added":
            return next((n for n in reversed(states) if n is not None), None)
        case "removed":
            return None if None in later else before
    return draw.choice(states)


class UnsyncedDisk:
    """A `FileSystem` that can lose what was not synced.

    All that lies in the directory at the start counts as synced. From then on
    whatever changes there has to go through this object. Nothing is really
    synced, which makes it quick: a test's directory need not survive us.
    """

    def __init__(self, directory: Path) -> None:
        """Takes an existing directory of files and folders.

        Args:
            directory: What a power cut will change. No links, no pipes.
        """
        self.directory = Path(os.path.abspath(directory))
        self._real: FileSystem = PosixFileSystem()
        self._root = _scanned(self.directory)
        self._open: dict[int, _File] = {}

    def lose(self, aftermath: Aftermath) -> None:
        """Brings the directory into a state that a power cut now may leave.

        May be called again, for another state after the same cut.

        Args:
            aftermath: Which of them.
        """
        self.close_all()
        for path in self.directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        draw = random.Random(aftermath.seed)
        first_names: dict[_File, Path] = {}

        def put(folder: _Folder, where: Path) -> None:
            for name, node in folder.after(aftermath, draw):
                path = where / name
                if isinstance(node, _Folder):
                    path.mkdir()
                    put(node, path)
                elif node in first_names:
                    os.link(first_names[node], path)
                else:
                    path.write_bytes(node.after(aftermath, draw))
                    first_names[node] = path

        put(self._root, self.directory)

    def close_all(self) -> None:
        """Closes what a process that died has left open."""
        for handle in [*self._open]:
            self.close(handle)

    def mkdir(self, path: Path) -> None:
        """See `FileSystem.mkdir`."""
        existed = os.path.lexists(path)
        self._real.mkdir(path)
        if not existed:
            self._change(path, _Folder())

    def create(self, path: Path) -> int:
        """See `FileSystem.create`."""
        handle = self._real.create(path)
        self._open[handle] = _File()
        self._change(path, self._open[handle])
        return handle

    def extend(self, path: Path) -> int:
        """See `FileSystem.extend`."""
        file = self._node(path)
        handle = self._real.extend(path)
        assert isinstance(file, _File)  # noqa: S101 - the real call passed
        self._open[handle] = file
        return handle

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`."""
        self._real.write(handle, data)
        self._open[handle].content += data

    def fsync(self, handle: int) -> None:
        """See `FileSystem.fsync`."""
        self._open[handle].synced_bytes = len(self._open[handle].content)

    def close(self, handle: int) -> None:
        """See `FileSystem.close`."""
        self._real.close(handle)
        del self._open[handle]

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem.link`."""
        self._real.link(source, target)
        self._change(target, self._node(source))

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem.replace`."""
        self._real.replace(source, target)
        self._change(target, self._node(source))
        self._change(source, None)

    def unlink(self, path: Path) -> None:
        """See `FileSystem.unlink`."""
        self._real.unlink(path)
        self._change(path, None)

    def rmdir(self, path: Path) -> None:
        """See `FileSystem.rmdir`."""
        self._real.rmdir(path)
        self._change(path, None)

    def fsync_directory(self, path: Path) -> None:
        """See `FileSystem.fsync_directory`."""
        if path.is_dir() and not path.is_relative_to(self.directory):
            return  # Above us: it stays as it is.
        folder = self._node(path)
        if not isinstance(folder, _Folder):
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)
            )
        folder.sync()

    def _change(self, path: Path, node: _Node | None) -> None:
        folder = self._node(path.parent)
        assert isinstance(folder, _Folder)  # noqa: S101 - the real call passed
        folder.set(path.name, node)

    def _node(self, path: Path) -> _Node:
        node: _Node = self._root
        for part in path.relative_to(self.directory).parts:
            if not isinstance(node, _Folder) or part not in node.names:
                # If it is there all the same, it came about behind our back.
                raise FileNotFoundError(
                    errno.ENOENT, os.strerror(errno.ENOENT), str(path)
                )
            node = node.names[part]
        return node


def _scanned(directory: Path) -> _Folder:
    """The model of what is there, all of it synced."""
    folder = _Folder()
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            folder.names[path.name] = _scanned(path)
        else:
            content = bytearray(path.read_bytes())
            folder.names[path.name] = _File(content, len(content))
    folder.sync()
    return folder
