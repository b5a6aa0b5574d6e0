"""`train`: the supervisor. Starts the trainer and stays light beside it.

Invariant: this process never imports Keras, TensorFlow or JAX, and holds the
run from before the trainer starts until after it has ended. If it is killed,
the kernel kills the trainer with it: a run has no life that nobody sees, and
the same command can be run again at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from colab_keras_bg.checkpoint.policies import keep_policy, save_policy
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.cli.supervisor import Supervisor
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.run_directory import RunDirectory

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "run_dir",
        None,
        "Where the run lives. Default: runs/ and the program's name.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "save_freq",
        "auto",
        "When to save: epoch, a number of batches, a time such as 30s or "
        "10m, or auto: as often as costs less than 1% of the time, at most a "
        "minute apart.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "keep_last",
        2,
        "How many of the newest checkpoints to keep, 2 or more.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "keep_every",
        None,
        "Besides, keep one checkpoint in each stretch of this many steps.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "Seeds Python, NumPy and Keras before the program starts.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "Epochs of the built-in job. Default: 20.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images a batch in the built-in job. Default: 32.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "start_over",
        False,
        "Set what the run directory holds aside, under another name beside "
        "it, and begin anew.",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    program = _program(values, names)
    save_policy(values.save_freq)
    keep_policy(values.keep_last, values.keep_every)
    run_dir = values.run_dir
    if run_dir is None:
        run_dir = os.path.join("runs", program.title)
    directory = RunDirectory(run_dir)
    command = [program.kind, program.name, *program.arguments]
    if values.seed is not None:
        command.append(f"--seed={values.seed}")
    if values.start_over:
        directory.set_aside()
    done = directory.done()
    if done is not None and done.get("command") == command:
        say(
            f"{directory.path} is done since "
            f"{_when(done.get('time'))}, at step {done.get('step')}; nothing "
            "is left to do"
        )
        return exit_status.DONE
    return Supervisor(
        directory,
        program,
        command=command,
        settings={
            "save_freq": values.save_freq,
            "keep_last": values.keep_last,
            "keep_every": values.keep_every,
            "seed": values.seed,
        },
    ).run()


def _program(values: Any, names: Sequence[str]) -> Program:
    own = list(names)
    arguments = own[own.index("--") + 1 :] if "--" in own else []
    own = own[: own.index("--")] if "--" in own else own
    if len(own) > 1:
        raise UsageError(
            f"One program at a time: {' '.join(own)!r}. A program's own "
            "arguments follow `--`."
        )
    built_in = [
        f"--{name}={values[name].value}"
        for name in ("epochs", "batch_size")
        if values[name].value is not None
    ]
    if own and built_in:
        raise UsageError(
            f"{' '.join(built_in)} is for the built-in job only; give a "
            "program its own arguments after `--`."
        )
    if arguments and not own:
        raise UsageError(
            "Arguments after `--` are for a program, and none was given."
        )
    return Program.find(own[0] if own else None, [*built_in, *arguments])


def _when(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


COMMAND = Command(
    name="train",
    synopsis="[--run_dir=...] [flags] [PROGRAM] [-- program arguments]",
    summary="Start a training, or continue it; the same command does both.",
    define=_define,
    run=_run,
    details="""\
PROGRAM is a Python file, or package.module, or package.module:function.
Inside it, `colab_keras_bg.current_run()` is the run, and its callbacks()
protect a `fit`. Without a program, a small classifier of handwritten digits
is trained, on images that ship with this package.""",
)
