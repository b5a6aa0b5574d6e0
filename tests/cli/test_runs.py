"""Starting, continuing, repeating and setting aside a run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Workplace
from waiting import until

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main
from colab_keras_bg.errors import NoSpaceError, UsageError
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import write_record


def test_what_a_run_leaves(place: Workplace) -> None:
    """A run directory holds the records of the run and of its attempt."""
    place.program("def main(): print('ran')")
    place.train("program:main", "--", "a")
    command = ["module", "program:main", "a"]
    assert place.record("run.json")["format"] == "colab_keras_bg.run/1"
    assert place.record("HEAD")["attempt"] == 1
    assert place.record("attempts/0001/attempt.json")["command"] == command
    assert place.record("status.json")["state"] == "done"


def test_second_on_a_live_run(place: Workplace) -> None:
    """
    A second `train` on a live run ends with status 3 and one sentence, and
    changes nothing; so does setting aside.
    """
    place.start_waiting()

    def files() -> dict[str, bytes]:  # But for what the live run writes.
        live = ("status.json", "console", "resources.jsonl", ".sidecar")
        found = place.files()
        return {k: v for k, v in found.items() if not any(n in k for n in live)}

    before = files()
    for extra in ([], ["--start_over"]):
        ended = place.train(*extra, "waits.py")
        assert ended.status == exit_status.HELD
        assert ended.err.count("\n") == 1
        assert "held by another live attempt (process " in ended.err
        assert files() == before
    assert [p.name for p in place.path.glob("run*")] == ["run"]


def test_done_already(place: Workplace) -> None:
    """
    The same command on a done run says so and ends well, and starts nothing:
    there is no new attempt, and no file has changed.
    """
    program = place.program("print('ran')")
    place.train(program, "--", "--my_flag=3")
    before = place.files()
    ended = place.train("--save_freq=5m", program, "--", "--my_flag=3")
    assert (ended.status, ended.out) == (exit_status.DONE, b"")
    assert " is done since " in ended.err
    assert "nothing is left to do" in ended.err
    assert place.files() == before


def test_done_already_with_a_secret(place: Workplace) -> None:
    """
    A secret in a command is written nowhere, and the same command is known
    again all the same.
    """
    program = place.program("print('ran')")
    secret = "Zq7Zq7Zq7Zq7"
    command = (program, "--", f"--api_key={secret}", "--password", secret)
    assert place.train(*command).out == b"ran\n"
    for name, content in place.files().items():
        assert secret.encode() not in content, name
    ended = place.train(*command)
    assert (ended.status, ended.out) == (exit_status.DONE, b"")
    assert place.train(program, "--", "--epochs=3").out == b"ran\n"


def test_another_command_on_a_done_run(place: Workplace) -> None:
    """Another command runs; then that one is what is done."""
    program = place.program("import sys; print(sys.argv[1:])")
    place.train(program, "--", "--my_flag=3")
    other = (program, "--", "--my_flag=4")
    assert place.train(*other).out == b"['--my_flag=4']\n"
    assert place.train(*other).out == b""
    assert place.attempts() == ["0001", "0002"]


@pytest.fixture
def started(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """The commands of the supervisors that would have been started."""
    commands: list[list[str]] = []

    class Recorder:
        def __init__(
            self, *_: object, command: list[str], **__: object
        ) -> None:
            commands.append(command)

        def run(self) -> int:
            return exit_status.DONE

    monkeypatch.setattr("colab_keras_bg.cli.train.Supervisor", Recorder)
    monkeypatch.chdir(place.path)
    return commands


def test_what_makes_a_command_another(
    place: Workplace, started: list[list[str]]
) -> None:
    """The program, its arguments and the seed do; when to save does not."""
    path = str(place.path / place.program("print('ran')"))
    for typed in (
        [],
        ["--epochs=3", "--batch_size=8", "--seed=1"],
        ["program.py", "--save_freq=5m", "--keep_last=3", "--keep_every=9"],
        ["--seed=0", "./program.py", "--", "--epochs=3"],
        ["program:print"],
    ):
        assert main(["train", "--run_dir=run", *typed]) == exit_status.DONE
    assert started == [
        ["built-in", "digits"],
        ["built-in", "digits", "--epochs=3", "--batch_size=8", "--seed=1"],
        ["file", path],
        ["file", path, "--epochs=3", "--seed=0"],
        ["module", "program:print"],
    ]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"command": 3}', "{}"])
def test_done_is_damaged(
    content: str, place: Workplace, started: list[list[str]]
) -> None:
    """A DONE that cannot be believed is not: the program runs."""
    path = str(place.path / place.program("print('ran')"))
    place.run_dir.mkdir()
    (place.run_dir / "DONE").write_text(content)
    assert main(["train", "--run_dir=run", path]) == exit_status.DONE
    assert started == [["file", path]]


@pytest.mark.parametrize("moment", [1e300, float("inf"), "noon", None])
def test_done_at_no_time(
    moment: object,
    place: Workplace,
    started: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A DONE whose time cannot be is still one of this command."""
    program = str(place.path / place.program("print('ran')"))
    done = {"command": ["file", program], "time": moment, "step": 7}
    place.run_dir.mkdir()
    write_record(LocalStorage(place.run_dir), "DONE", done)
    assert main(["train", "--run_dir=run", program]) == exit_status.DONE
    assert started == []
    told = capsys.readouterr().err
    assert "done since a time that is not recorded, at step 7" in told


def test_start_over(place: Workplace) -> None:
    """
    --start_over gives what was there another name beside it, to the byte, and
    begins with attempt 1.
    """
    program = place.program("print('ran')")
    place.train(program)
    (place.run_dir / "mine.txt").write_text("a note of mine")
    before = {
        name: content
        for name, content in place.files().items()
        if name != "run/.lock"
    }
    ended = place.train("--start_over", program)
    assert (ended.status, ended.out) == (exit_status.DONE, b"ran\n")
    [aside] = place.path.glob("run.set-aside-*")
    assert f"what was there is now in {aside}" in ended.err
    assert place.attempts() == ["0001"]
    after = place.files()
    for name, content in before.items():
        assert after[name.replace("run/", f"{aside.name}/")] == content


def test_start_over_with_nothing_there(place: Workplace) -> None:
    """Where there is no run yet, --start_over changes nothing."""
    program = place.program("print('ran')")
    place.run_dir.mkdir()
    (place.run_dir / "mine.txt").write_text("a note of mine")
    assert place.train("--start_over", program).out == b"ran\n"
    assert (place.run_dir / "mine.txt").read_text() == "a note of mine"
    assert [p.name for p in place.path.glob("run*")] == ["run"]


def test_start_over_around_the_program(place: Workplace) -> None:
    """A run directory that the program lies in is not moved from under it."""
    program = place.program("print('ran')", name="run/program.py")
    place.train(program)
    before = place.files()
    ended = place.train("--start_over", program)
    assert ended.status == exit_status.USAGE
    assert "run/program.py is needed" in ended.err
    assert place.files() == before


def test_start_over_from_within(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the directory in which the command is typed."""
    RunDirectory(place.run_dir).hold()
    directory = RunDirectory(place.path / "other")
    directory.hold()
    directory.begin_attempt(command=["program"])
    directory.release()
    monkeypatch.chdir(directory.path)
    with pytest.raises(UsageError, match="other is needed, and in it"):
        directory.set_aside()


def test_nothing_is_set_aside_for_a_program_that_is_not_there(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed is checked before anything is renamed."""
    place.train(place.program("print('ran')"))
    before = place.files()
    monkeypatch.chdir(place.path)
    for bad in (["nowhere.py"], ["--save_freq=never", "program.py"]):
        typed = ["train", "--run_dir=run", "--start_over", *bad]
        assert main(typed) == exit_status.USAGE
    assert place.files() == before


@pytest.fixture
def small_disk(place: Workplace) -> Iterator[Path]:
    """A small file system as the run directory, where mounting is allowed."""
    place.run_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs"]
    try:
        subprocess.run(
            [*mount, str(place.run_dir)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not allowed here: {error}")
    yield place.run_dir
    place.close()
    unmount = ["umount", str(place.run_dir)]
    # The sidecar outlives what was killed for a moment.
    until(
        lambda: subprocess.run(unmount, check=False).returncode == 0,
        what="nobody uses it any more",
    )


FILLS_UP = """\
import contextlib
with open("run/ballast", "wb", buffering=0) as file:
    with contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
"""


def test_no_space(place: Workplace, small_disk: Path) -> None:
    """
    On a full disk nothing begins: exit status 1, one line that says so, and
    what is there stays as it is.
    """
    program = place.program("print('ran')")
    assert place.train(program).status == exit_status.DONE
    place.run(python=place.program(FILLS_UP, name="fills_up.py"))
    before = place.files()
    ended = place.train(program, "--", "again")
    assert (ended.status, ended.out) == (exit_status.FAILED, b"")
    assert ended.err.count("\n") == 1
    assert "No space left while writing" in ended.err
    assert place.files() == before
    (small_disk / "ballast").unlink()
    assert place.train(program, "--", "again").out == b"ran\n"


def test_disk_fills_up_while_the_program_runs(
    place: Workplace, small_disk: Path
) -> None:
    """
    A program that ends well on a disk that has filled up is not called done:
    its end could not be recorded, and the command says so.
    """
    ended = place.train(place.program(FILLS_UP))
    assert ended.status == exit_status.FAILED
    assert "ended, which could not be recorded: No space" in ended.err
    assert not (small_disk / "DONE").exists()


def test_no_space_without_a_small_disk(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run directory that cannot take a first file is refused as full."""

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NoSpaceError, match="No space left") as raised:
        RunDirectory(place.run_dir).hold()
    assert LocalStorage.is_full(raised.value)


def test_the_directory_is_made_to_last(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new directory's name is synced into the one above it."""
    synced: list[str] = []
    fsync = os.fsync

    def seen(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    RunDirectory(place.path / "new" / "newer" / "run").hold()
    new = place.path / "new"
    assert synced[:3] == [str(place.path), str(new), str(new / "newer")]


def test_numbers_of_attempts_are_never_used_again(place: Workplace) -> None:
    """Not even when an attempt's folder is gone: HEAD remembers it."""
    program = place.program("import sys; sys.exit(75)")
    place.train(program)
    place.train(program)
    for path in sorted((place.run_dir / "attempts" / "0002").iterdir()):
        path.unlink()
    (place.run_dir / "attempts" / "0002").rmdir()
    place.train(program)
    assert place.attempts() == ["0001", "0003"]


@pytest.mark.parametrize(
    "names",
    [
        ["attempts/0001/attempt.json"],
        ["HEAD"],
        ["run.json"],
        ["HEAD", "run.json"],
    ],
    ids=" and ".join,
)
@pytest.mark.parametrize("content", ["", "not JSON", "[]"])
def test_damaged_records_do_not_stop_a_run(
    names: list[str],
    content: str,
    place: Workplace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Small records that are damaged are said to be, and the run goes on."""
    directory = RunDirectory(place.run_dir)
    directory.hold()
    directory.begin_attempt(command=["program"])
    directory.release()
    for name in names:
        (place.run_dir / name).write_text(content)
    again = RunDirectory(place.run_dir)
    assert again.hold() is None
    again.attempt = 1
    again.end_attempt(exit_status=0, reason="ended")
    again.release()
    told = capsys.readouterr().err
    for name in names:
        if names != ["run.json"]:  # Its number is in HEAD, too.
            assert f"{name} cannot be read as a record" in told


def test_in_a_notebook(place: Workplace) -> None:
    """
    In a kernel, whose command line is its own, the package is imported,
    nothing is parsed, and absl's flags are as they were.
    """
    program = place.program(
        """\
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        print(sys.argv[1:])
        for cell in (
            "from absl import flags; before = sorted(flags.FLAGS)",
            "import colab_keras_bg as bg",
            "import colab_keras_bg.cli.main, colab_keras_bg.cli.train",
            "import colab_keras_bg.cli.status, colab_keras_bg.cli.verify",
            "print(bg.current_run())",
            "print(colab_keras_bg.cli.main.main(['status', 'nowhere']))",
            "print(sorted(flags.FLAGS) == before, flags.FLAGS.is_parsed())",
        ):
            shell.run_cell(cell, store_history=False).raise_error()
        """
    )
    home = {"IPYTHONDIR": str(place.path / "ipython")}
    ended = place.run("-f", "kernel.json", python=program, environment=home)
    printed = ["['-f', 'kernel.json']", "None", "64", "True False"]
    assert ended.out.decode().splitlines() == printed, ended.err
