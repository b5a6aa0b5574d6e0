"""The supervisor at moments that no real process meets twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.cli.supervisor import Supervisor
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.tensor import LazyTensor


class Trainer:
    """A double that is dead when first looked at, and has just spoken."""

    pid = 0
    last_words = b"the last words\n"
    on_start: Any = None

    def __init__(self, *_: object, stdout: int, **__: object) -> None:
        self._console = os.dup(stdout)
        self._spoken = False
        self.signals: list[int] = []
        Trainer.made = self
        if Trainer.on_start is not None:
            Trainer.on_start()

    made: Trainer

    def poll(self) -> int:
        if not self._spoken:
            self._spoken = True
            os.write(self._console, self.last_words)
            os.close(self._console)
        return 0

    def wait(self, secs: float | None = None) -> int:
        return self.poll()

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> type[Trainer]:
    """The double, in place of a process."""
    monkeypatch.setattr(Trainer, "on_start", None)
    monkeypatch.setattr("subprocess.Popen", Trainer)
    return Trainer


def supervise(path: Path) -> int:
    """Runs a program under a supervisor of this process."""
    program = Program("file", "program.py")
    directory = RunDirectory(path)
    return Supervisor(directory, program, command=[], settings={}).run()


def test_last_words(
    trainer: type[Trainer],
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """
    What a program writes right before it ends is shown, even if it came after
    the console was last read.
    """
    assert supervise(tmp_path) == exit_status.DONE
    assert capfdbinary.readouterr().out == trainer.last_words


def test_signal_before_the_trainer_is_there(
    trainer: type[Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal that comes while the trainer is started reaches it."""

    def early() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "on_start", staticmethod(early))
    before = signal.getsignal(signal.SIGTERM)
    assert supervise(tmp_path) == exit_status.DONE
    assert set(trainer.made.signals) == {signal.SIGUSR1, signal.SIGTERM}
    assert signal.getsignal(signal.SIGTERM) == before


def test_signal_after_the_end(
    trainer: type[Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A signal that comes when the program has ended goes to nobody, and its end
    is recorded all the same.
    """
    end_attempt = RunDirectory.end_attempt

    def interrupted(self: RunDirectory, **end: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        end_attempt(self, **end)

    monkeypatch.setattr(RunDirectory, "end_attempt", interrupted)
    assert supervise(tmp_path) == exit_status.DONE
    assert trainer.made.signals == []
    assert (tmp_path / "DONE").is_file()


def test_run_is_free_afterwards(
    trainer: type[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ends, the supervisor gives the run back."""

    def fails() -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(trainer, "on_start", staticmethod(fails))
    with pytest.raises(OSError, match="temporarily unavailable"):
        supervise(tmp_path)
    RunDirectory(tmp_path).hold()


def test_checkpoint_is_not_kept_open(
    trainer: type[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The supervisor keeps no file of a checkpoint mapped while the program
    runs: deleting the checkpoint would not give its space back.
    """
    directory = RunDirectory(tmp_path)
    directory.hold()
    tensor = LazyTensor.of(np.zeros(100_000))
    CheckpointStore(directory.storage).save(
        3, attempt=1, tensors={"a": tensor}, state={}
    )
    directory.release()
    mapped: list[str] = []

    def look() -> None:
        mapped.append(Path("/proc/self/maps").read_text())

    monkeypatch.setattr(trainer, "on_start", staticmethod(look))
    assert supervise(tmp_path) == exit_status.DONE
    assert len(mapped) == 1
    assert str(tmp_path) not in mapped[0]
