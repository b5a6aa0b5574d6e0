"""A program finds what it would find if Python had started it by itself."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from commands import SOURCE, Workplace

from colab_keras_bg.cli import exit_status

TELLS = """\
import json, os, pickle, sys

class Kept:
    pass

def tell():
    main = sys.modules["__main__"]
    print(json.dumps({
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "path": sys.path,
        "name": __name__,
        "file": globals().get("__file__"),
        "spec": __spec__ and __spec__.name,
        "package": __package__,
        "doc": __doc__,
        "main": [main.__name__, main.__dict__ is globals()],
        "pickled": type(pickle.loads(pickle.dumps(Kept()))).__name__,
        "names": sorted(globals()),
        "handover": [name for name in os.environ if "KERAS_BG" in name],
        "input": sys.stdin.read(),
    }))
"""

TELLS_AT_ONCE = TELLS + "tell()\n"


def told(out: bytes) -> dict[str, Any]:
    """What a program told in its last line."""
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    # Python leaves `./` in it.
    return {**found, "file": os.path.normpath(found["file"])}


@pytest.mark.parametrize(
    "typed", ["program.py", "./program.py", "jobs/program.py", "link.py", "pro"]
)
def test_file(typed: str, place: Workplace) -> None:
    """
    `train FILE -- ARGUMENTS` gives a file the argv, path, working directory
    and `__main__` that `python FILE ARGUMENTS` gives it.
    """
    place.program(TELLS_AT_ONCE, name="jobs/program.py")
    place.program(TELLS_AT_ONCE, name="program.py")
    place.program(TELLS_AT_ONCE, name="pro")
    (place.path / "link.py").symlink_to("jobs/program.py")
    arguments = ["--my_flag=3", "--", "--save_freq=1", ""]
    expected = told(place.run(*arguments, python=typed).out)
    ended = place.train(typed, "--", *arguments)
    assert told(ended.out) == expected, ended.err
    assert expected["argv"] == [typed, *arguments]


def test_file_by_absolute_path(place: Workplace) -> None:
    """An absolute path is handed on as it was typed."""
    typed = str(place.path / place.program(TELLS_AT_ONCE))
    assert told(place.train(typed).out) == told(place.run(python=typed).out)


@pytest.mark.parametrize("name", ["package.job", "package.inner", "single"])
def test_module(name: str, place: Workplace) -> None:
    """
    `train package.module` gives a module, or a package's `__main__`, what
    `python -m package.module` gives it.
    """
    for file in ("package/job", "package/inner/__main__", "single"):
        place.program(TELLS_AT_ONCE, name=f"{file}.py")
    expected = told(place.run("--my_flag=3", python=f"-m {name}").out)
    ended = place.train(name, "--", "--my_flag=3")
    found = told(ended.out)
    # `python -m` runs a module in the first `__main__`, runpy in a new one.
    expected["names"] = found["names"] = []
    assert found == expected, ended.err


def test_function(place: Workplace) -> None:
    """
    `train package.module:function` imports the module from the working
    directory and calls the function.
    """
    place.program(TELLS, name="package/job.py")
    ended = place.train("package.job:tell", "--", "--my_flag=3")
    found = told(ended.out)
    assert found["argv"] == ["package.job:tell", "--my_flag=3"]
    assert found["path"][:2] == [str(place.path), str(SOURCE)]
    assert (found["name"], found["package"]) == ("package.job", "package")


def test_safe_path(place: Workplace) -> None:
    """Where Python is told to keep the program's folder off `sys.path`."""
    program = place.program(TELLS_AT_ONCE)
    safe = {"PYTHONSAFEPATH": "1"}
    expected = told(place.run(python=program, environment=safe).out)
    ended = place.train(program, environment=safe)
    assert told(ended.out)["path"] == expected["path"], ended.err


def test_threads_find_main(place: Workplace) -> None:
    """A thread that outlives the program's last line still finds it."""
    program = place.program(
        """\
        import sys, threading

        def late():
            threading.main_thread().join(0.1)
            print(sys.modules["__main__"].late is late)

        threading.Thread(target=late).start()
        """
    )
    assert place.train(program).out == b"True\n"


def test_future_imports_are_the_programs_own(place: Workplace) -> None:
    """The program is not compiled with what our modules import."""
    program = place.program("def f(x: 1 + 1): ...\nprint(f.__annotations__)\n")
    assert place.train(program).out == b"{'x': 2}\n"


def test_children_of_a_program(place: Workplace) -> None:
    """A pool that spawns its workers finds the program's functions."""
    program = place.program(
        """\
        import multiprocessing

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
        """
    )
    ended = place.train(program)
    assert ended.out == b"[2, 4]\n", ended.err


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("job:nowhere", "The module 'job' has no function 'nowhere'."),
        ("job:number", "The module 'job' has no function 'number'."),
    ],
)
def test_no_such_function(name: str, line: str, place: Workplace) -> None:
    """A function that is not there is bad usage, told in a clear line."""
    place.program("number = 3\n", name="job.py")
    ended = place.train(name)
    assert ended.status == exit_status.USAGE
    assert ended.out.decode() == f"colab-keras-bg: {line}\n"
    assert place.record("attempts/0001/attempt.json")["exit_status"] == 64


def test_import_error_of_a_program(place: Workplace) -> None:
    """What a program's own imports miss is the program's failure."""
    place.program("import nowhere\ndef main(): ...\n", name="job.py")
    for name in ("job:main", "job.py"):
        ended = place.train(name)
        assert ended.status == exit_status.FAILED
        assert b"ModuleNotFoundError: No module named 'nowhere'" in ended.out


def test_current_run(place: Workplace) -> None:
    """Inside, `current_run()` is the run; outside there is none."""
    program = place.program(
        """\
        import colab_keras_bg as bg
        run = bg.current_run()
        print(run and (str(run.path), run.is_open, run.step))
        """
    )
    assert place.run(python=program).out == b"None\n"
    expected = f"('{place.run_dir}', True, 0)\n"
    assert place.train(program).out.decode() == expected


def test_log_without_keras(place: Workplace) -> None:
    """
    A program that trains without Keras logs through the run, and what it had
    logged when it was killed is there.
    """
    program = place.program(
        """\
        import os, signal, sys
        import colab_keras_bg as bg
        bg.current_run().log(x=1, loss=0.5)
        bg.current_run().log(x=2)
        assert not {"keras", "tensorflow"} & set(sys.modules)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert place.train(program).status == exit_status.RESUMABLE
    lines = (place.run_dir / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    times = [report.pop("time") for report in reports]
    assert reports == [
        {"step": 0, "x": 1.0, "loss": 0.5},
        {"step": 0, "x": 2.0},
    ]
    assert times == sorted(times)


def test_log_of_something_else(place: Workplace) -> None:
    """What cannot be logged raises; the program sees where it went wrong."""
    program = place.program(
        """\
        import colab_keras_bg as bg
        bg.current_run().log(x=["high"])
        """
    )
    ended = place.train(program)
    assert ended.status == exit_status.FAILED
    assert b"UsageError: Only numbers and texts can be logged" in ended.out
    assert b"line 2, in <module>" in ended.out
