"""Bad usage: exit status 64, one clear line, nothing done and nothing slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Workplace

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main

HEAVY = [
    "IPython",
    "jax",
    "keras",
    "matplotlib",
    "pandas",
    "tensorflow",
    "torch",
]

# What is typed, and what the line must hold: flag, value, what is allowed.
BAD = [
    ("fit", ["'fit'", "train, status, logs, report, verify"]),
    ("--epochs=3 train", ["'--epochs=3'", "Flags follow the command"]),
    ("train --bogus", ["--bogus", "`colab-keras-bg train --help`"]),
    ("train --bogus=3", ["--bogus=3", "`--`"]),
    ("train --epoch=3", ["--epoch=3", "Did you mean --epochs?"]),
    ("train program.py --my_flag=3", ["--my_flag=3", "follow `--`"]),
    ("status --run_dir=here", ["--run_dir=here", "status --help"]),
    ("train --keep_last=1", ["--keep_last=1 ", "an integer >= 2"]),
    ("train --keep_last=two", ["--keep_last=two ", "an integer >= 2"]),
    ("train --keep_every=0", ["--keep_every='0'", "a number of steps above 0"]),
    ("train --keep_every=x", ["--keep_every='x'", "a number of steps above 0"]),
    ("train --seed=-1", ["--seed=-1 ", "in the range [0, 4294967295]"]),
    ("train --seed=4294967296", ["--seed=4294967296 ", "[0, 4294967295]"]),
    ("train --seed=1e3", ["--seed=1e3 ", "an integer in the range"]),
    ("train --seed=1:2=3", ["--seed=1:2=3 ", "an integer in the range"]),
    ("train --epochs=0", ["--epochs=0 ", "a positive integer"]),
    ("train --epochs=1.5", ["--epochs=1.5 ", "a positive integer"]),
    ("train --batch_size=-8", ["--batch_size=-8 ", "a positive integer"]),
    ("train --batch_size=all", ["--batch_size=all ", "a positive integer"]),
    ("train --start_over=maybe", ["--start_over=maybe ", "true or false"]),
    ("train --help=maybe", ["--help=maybe ", "true or false"]),
    ("train --save_freq=never", ["--save_freq='never'", "'epoch'", "'10m'"]),
    ("train --save_freq=False", ["--save_freq='False'", "'auto'"]),
    ("train --save_freq=0", ["--save_freq='0'", "above 0"]),
    ("train --save_freq=-1", ["--save_freq='-1'", "above 0"]),
    ("train --save_freq=10d", ["--save_freq='10d'", "'2h'"]),
    ("train --save_freq=", ["--save_freq=''", "'epoch'"]),
    ("train --run_dir", ["--run_dir", "Missing value"]),
    ("train --run_dir=", ["run directory is empty", "give a path"]),
    ("train --run_dir=gs://b", ["'gs://b'", "gs://BUCKET/FOLDER"]),
    ("train --run_dir=drive://a", ["'drive://a'", "drive://FOLDER/PATH"]),
    ("train --run_dir=s3://a/b", ["'s3://a/b'", "on Google Drive"]),
    ("train --run_dir=a --fallback_dir=gs://b/c", ["--fallback_dir=", "disk"]),
    ("train --run_dir=gs://bkt/c --bandwidth=x", ["--bandwidth='x'", "20MB"]),
    ("train --run_dir=gs:/b/a", ["'gs:/b/a'", "gs://BUCKET/FOLDER"]),
    ("train --max_undurable=soon", ["--max_undurable='soon'", "'2h'"]),
    ("train --run_dir=file", ["/file is a file", "give a folder"]),
    ("train --run_dir=file/run", ["/file/run cannot be written"]),
    ("train --run_dir=/proc/run", ["/proc/run cannot be written"]),
    ("train --run_dir=/sys/run", ["/sys/run cannot be written"]),
    ("train --flagfile=nowhere", ["'nowhere'", "No such file"]),
    ("train --flagfile=file", ["cannot be read", "utf-8"]),
    ("train --epochs=3 program.py", ["--epochs=3", "built-in job only"]),
    ("train --batch_size=8 program.py", ["--batch_size=8", "built-in job"]),
    ("train a.py b.py", ["'a.py b.py'", "One program at a time"]),
    ("train -- --lr=1", ["none was given"]),
    ("train nowhere.py", ["'nowhere.py' was not found", "a Python file"]),
    ("train ./nowhere", ["'./nowhere' was not found"]),
    ("train folder/", ["'folder/' was not found"]),
    ("train nowhere", ["there is no module 'nowhere'"]),
    ("train nowhere.at.all:main", ["there is no module 'nowhere'"]),
    ("train package.nowhere", ["there is no module 'nowhere'", "/package"]),
    ("train package.job.main", ["'main'", "job, which is no package"]),
    ("train package", ["package without a __main__", "package:function"]),
    ("train __main__", ["there is no module '__main__'"]),
    ("train two-words", ["neither a Python file nor package.module"]),
    ("train package.job:a:b", ["neither a Python file nor package.module"]),
    ("status", ["RUN_DIR", "nothing"]),
    ("status run run", ["RUN_DIR", "run run"]),
    ("status nowhere", ["no run in", "/nowhere"]),
    ("status folder", ["no run in", "/folder"]),
    ("status file", ["/file is a file"]),
    ("status gs://b", ["'gs://b'", "gs://BUCKET/FOLDER"]),
    ("status --watch --json nowhere", ["--watch", "--json"]),
    ("report", ["RUN_DIR", "nothing"]),
    ("report nowhere", ["no run in", "/nowhere"]),
    ("report run run", ["RUN_DIR", "run run"]),
    ("verify", ["RUN_DIR", "nothing"]),
    ("verify nowhere", ["no run in", "/nowhere"]),
    ("verify folder", ["no run in", "/folder"]),
    ("verify file", ["/file is a file"]),
    ("verify --json run", ["--json", "verify --help"]),
]


@pytest.fixture
def typing_place(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """A workplace with something to mistake for something else."""
    place.program("raise AssertionError('it was run')")
    place.program("raise AssertionError", name="package/__init__.py")
    place.program("raise AssertionError", name="package/job.py")
    (place.path / "folder").mkdir()
    (place.path / "file").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(place.path)
    return place


@pytest.mark.parametrize(
    ("typed", "told"), BAD, ids=[typed for typed, _ in BAD]
)
def test_bad_usage(
    typed: str,
    told: list[str],
    typing_place: Workplace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Whatever cannot be meant ends with exit status 64 and one line on standard
    error that names it and says what is allowed; nothing is made or changed.
    """
    before = sorted(typing_place.path.rglob("*"))
    assert main(typed.split(" ")) == exit_status.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("colab-keras-bg: ")
    assert [text for text in told if text not in printed.err] == []
    assert sorted(typing_place.path.rglob("*")) == before


def test_nothing_heavy_is_imported_to_say_so(typing_place: Workplace) -> None:
    """Bad usage is told before anything that takes seconds is imported."""
    script = f"""\
        import sys
        from colab_keras_bg.cli.main import main
        for typed in {[typed for typed, _ in BAD]!r}:
            assert main(typed.split(" ")) == 64
        print([name for name in {HEAVY!r} if name in sys.modules])
    """
    program = typing_place.program(script, name="all.py")
    ended = typing_place.run(python=program)
    assert ended.out.decode() == "[]\n", ended.err


def test_a_line_stays_one_line(
    typing_place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was typed can neither break the line nor command the terminal."""
    assert main(["train", "--bogus=a\nb\x1b[2J"]) == exit_status.USAGE
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\\x1b[2J" in told
    assert "\x1b" not in told


def test_flagfile(place: Workplace) -> None:
    """Flags may stand in a file, one a line, with comments."""
    place.program(
        """\
        # How it is run every night.
        --save_freq=10m
        --seed=7
        --run_dir=elsewhere
        """,
        name="night.flags",
    )
    # The flags are right, and reach further than any program does.
    told = place.run("train", "--flagfile=night.flags", "nowhere.py").err
    assert "'nowhere.py' was not found" in told
    place.program("--save_freq=never\n", name="bad.flags")
    told = place.run("train", "--flagfile=bad.flags").err
    assert "--save_freq='never'" in told


def test_settings_reach_the_run(place: Workplace) -> None:
    """What the flags say is what the program's run is made with."""
    program = place.program(
        """\
        import colab_keras_bg as bg
        run = bg.current_run()
        print(run.path, run.seed, vars(run.saves))
        """
    )
    flags = "--save_freq=7\n--keep_last=3\n--keep_every=50\n"
    place.program(flags, name="flags")
    printed = place.train("--flagfile=flags", program).out.decode()
    assert printed.startswith(f"{place.run_dir} None ")
    for setting in ("EveryNSteps(steps=7)", "KeepLast(count=3)", "steps=50"):
        assert setting in printed


def test_default_run_directory(place: Workplace) -> None:
    """Without --run_dir, a run lives in runs/ under its program's name."""
    place.program("print('ran')", name="jobs/mnist.py")
    (place.path / "jobs" / "__init__.py").touch()
    assert place.run("train", "jobs/mnist.py").out == b"ran\n"
    assert (place.path / "runs" / "mnist" / "DONE").is_file()
    place.program("def main(): print('ran')", name="jobs/cifar.py")
    assert place.run("train", "jobs.cifar:main").out == b"ran\n"
    assert (place.path / "runs" / "cifar" / "DONE").is_file()


def test_bad_usage_in_python() -> None:
    """An address that cannot be meant is a `ValueError`, too."""
    from colab_keras_bg.run import Run

    with pytest.raises(ValueError, match="gs://BUCKET/FOLDER"):
        Run("gs://bucket")
    with pytest.raises(ValueError, match="False cannot be meant"):
        Run(Path("run"), save_freq=False)
