"""The trainer: the process in which the user's program runs.

Invariant: the program sees what it would see if it were started by itself,
and `current_run()` besides; however it ends, the save in flight is finished
and the exit status says how.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import sys

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.as_main import (
    NoProgramError,
    print_uncaught,
    run_file,
    run_module,
)
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.cli.supervisor import ENVIRONMENT
from colab_keras_bg.cli.termination import exit_on_sigterm
from colab_keras_bg.errors import (
    BackgroundTrainingError,
    RunHeldError,
    UsageError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.capture import unstoppable
from colab_keras_bg.run import Run

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the program that the supervisor asked for.

    Returns:
        The exit status.
    """
    handover = json.loads(os.environ.pop(ENVIRONMENT))
    _die_with(handover["supervisor"])
    program = Program.from_json(handover["program"])
    exit_on_sigterm(exit_status.RESUMABLE)
    # A full disk is to stop no training that says something.
    sys.stdout, sys.stderr = unstoppable(1), unstoppable(2)
    run = Run(handover["run_dir"], **handover["settings"])
    run.share(attempt=handover["attempt"], lock_handle=handover["lock_handle"])
    status = exit_status.FAILED
    try:
        _choose_backend()
        status = _run_program(
            program, seed=run.seed, deterministic=handover["deterministic"]
        )
        if status == exit_status.DONE and run.saves.problem is not None:
            status = exit_status.FAILED  # Its result would be lost.
        if status == exit_status.DONE:
            run.mark_done("the program ended")
    finally:
        run.close(reason="the program ended")
    return status


def _run_program(
    program: Program, *, seed: int | None, deterministic: bool
) -> int:
    try:
        if program.kind == "built-in":
            _start_backend()
        if deterministic:
            _enable_determinism()
        if seed is not None and program.kind != "built-in":
            _set_seed(seed)
        _execute(program)
    except SystemExit as ended:
        return _status_of(ended)
    except KeyboardInterrupt:
        say("interrupted from the keyboard")
        return exit_status.RESUMABLE
    except NoProgramError as error:
        say(str(error))
        return exit_status.USAGE
    except RunHeldError as error:
        say(str(error))
        return exit_status.HELD
    except UsageError as error:  # Of the program: it wants to know where.
        print_uncaught(error)
        return exit_status.FAILED
    except BackgroundTrainingError as error:
        say(str(error))
        return exit_status.FAILED
    except BaseException as error:  # noqa: BLE001 - printed, and ends the run
        print_uncaught(error)
        return exit_status.FAILED
    return exit_status.DONE


def _start_backend() -> None:
    from colab_keras_bg.digits.quiet import start_backend

    start_backend()


def _enable_determinism() -> None:
    from colab_keras_bg.training_state.surroundings import enable_determinism

    enable_determinism()


def _set_seed(seed: int) -> None:
    import keras

    keras.utils.set_random_seed(seed)


def _execute(program: Program) -> None:
    if program.kind == "file":
        run_file(program.typed, program.arguments)
    elif program.kind == "module":
        run_module(program.name, program.arguments)
    else:
        from colab_keras_bg.digits.program import main as digits

        digits(program.arguments)


def _status_of(ended: SystemExit) -> int:
    if ended.code is None:
        return exit_status.DONE
    if isinstance(ended.code, int):
        return ended.code & 0xFF
    print(ended.code, file=sys.stderr, flush=True)  # As Python does.
    return exit_status.FAILED


def _die_with(supervisor: int) -> None:
    """Has the kernel kill this process when its supervisor dies."""
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # It died before we asked.
        os.kill(os.getpid(), signal.SIGKILL)


def _choose_backend() -> None:
    """Lets Keras run on what is installed: without TensorFlow, on JAX."""
    if "KERAS_BACKEND" in os.environ:
        return
    if importlib.util.find_spec("tensorflow") is not None:
        return
    for backend in ("jax", "torch"):
        if importlib.util.find_spec(backend) is not None:
            os.environ["KERAS_BACKEND"] = backend
            return


if __name__ == "__main__":
    sys.exit(main())
