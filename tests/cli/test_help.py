"""What the command line says about itself."""

from __future__ import annotations

import pytest
from commands import Workplace

from colab_keras_bg import __version__
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main

COMMANDS = ["train", "status", "logs", "report", "verify"]
FLAGS = [
    "--run_dir",
    "--save_freq",
    "--keep_last",
    "--keep_every",
    "--seed",
    "--deterministic",
    "--epochs",
    "--batch_size",
    "--start_over",
    "--flagfile",
]


@pytest.mark.parametrize("asked", ["--help", "-h", "help", "--helpfull"])
def test_overview(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for help, it lists each command in one line, and ends well."""
    assert main([asked]) == exit_status.DONE
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in printed
    assert "75  interrupted: run the same command again" in printed


def test_nothing_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command it says what there is, as bad usage."""
    assert main([]) == exit_status.USAGE
    assert "usage: colab-keras-bg COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["--help", "-h", "--help=true", "--helpfull"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(
    command: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command shows its usage and fits a terminal of 80 columns."""
    assert main([command, asked]) == exit_status.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: colab-keras-bg {command} ")
    assert [line for line in lines if len(line) > 80] == []
    assert ("  --helpfull" in lines) == (asked == "--helpfull")


def test_help_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of `train` explains every flag below the flag's name."""
    main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for flag in FLAGS:
        [index] = [
            i
            for i, line in enumerate(lines)
            if line.strip().partition("=")[0] == flag
        ]
        assert lines[index + 1].startswith("      ")


def test_help_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Help is given whatever else was typed, in a flag's place or behind."""
    assert main(["train", "--epochs=none", "--help"]) == exit_status.DONE
    assert "usage: colab-keras-bg train" in capsys.readouterr().out


def test_help_of_a_program_is_the_programs(place: Workplace) -> None:
    """A `--help` behind `--` is the program's own."""
    program = place.program("import sys; print(sys.argv[1:])")
    assert place.train(program, "--", "--help").out == b"['--help']\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """It tells its version."""
    assert main(["--version"]) == exit_status.DONE
    assert capsys.readouterr().out == f"colab-keras-bg {__version__}\n"


def test_python_m_is_the_same_program(place: Workplace) -> None:
    """`python -m colab_keras_bg` does what the console script does."""
    script = "from colab_keras_bg.cli.main import console_entry as go; go()"
    asked = ("verify", "nowhere")
    assert place.run(*asked) == place.run(script, *asked, python="-c")
    assert place.run(*asked).status == exit_status.USAGE
