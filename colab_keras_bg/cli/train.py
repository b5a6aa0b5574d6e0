"""`train`: the supervisor. Starts the trainer and stays light beside it.

Invariant: this process never imports Keras, TensorFlow or JAX, and holds the
run from before the trainer starts until after it has ended. If it is killed,
the kernel kills the trainer with it: a run has no life that nobody sees, and
the same command can be run again at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.cli.supervisor import Supervisor
from colab_keras_bg.cli.termination import interrupted_by
from colab_keras_bg.errors import (
    StorageRefusedError,
    StorageUnavailableError,
    UsageError,
)
from colab_keras_bg.journal.announce import said_after, say
from colab_keras_bg.journal.masking import masked_command
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.run_options import KEPT, SHIPPED, WATCHED, RunOptions
from colab_keras_bg.stored_run import StoredRun, stored_run

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
    def whole(name: str, text: str, **limits: int) -> None:
        flags.DEFINE_integer(name, None, text, flag_values=values, **limits)

    flags.DEFINE_string(
        "run_dir",
        None,
        "Where the run lives: a path, gs://bucket/folder, drive://folder/path, "
        "or a folder of a mounted Drive. Default: runs/ and the program's "
        "name.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "save_freq",
        "auto",
        "When to save: epoch, a number of batches, a time such as 30s or "
        "10m, or auto: as often as the cost of a save, once measured, allows; "
        "several with + between.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "keep_last",
        2,
        "How many of the newest checkpoints to keep; at least 2, so that "
        "there is one to fall back to.",
        lower_bound=2,
        flag_values=values,
    )
    flags.DEFINE_string(
        "keep_every",
        None,
        "Besides, keep one checkpoint in each stretch of this many steps, or "
        "of a time such as 2h; both, with + between.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "keep_best",
        0,
        "Besides, keep so many of the best by --monitor, as measured at the "
        "ends of epochs.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "monitor",
        "val_loss",
        "The metric that --keep_best goes by.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        "auto",
        ["auto", "min", "max"],
        "Whether less or more of --monitor is better; auto: by its name.",
        flag_values=values,
    )
    whole(
        "seed",
        "Seeds Python, NumPy and Keras before the program starts.",
        lower_bound=0,
        upper_bound=2**32 - 1,
    )
    flags.DEFINE_boolean(
        "deterministic",
        False,
        "Has every operation give the same bits each time it is run, also on "
        "a GPU, at some cost in speed; one that cannot raises. Without --seed, "
        "seeds with 0.",
        flag_values=values,
    )
    whole("epochs", "Epochs of the built-in job. Default: 20.", lower_bound=1)
    whole(
        "batch_size",
        "Images a batch in the built-in job. Default: 32.",
        lower_bound=1,
    )
    flags.DEFINE_boolean(
        "start_over",
        False,
        "Begin anew: the run that is there gets another name beside it; "
        "nothing is deleted. Not in a bucket.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "take_over",
        False,
        "Take a run in a bucket from a machine that seems to live; what that "
        "one still commits is void.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "max_undurable",
        None,
        "End, with exit status 75, when nothing has become durable for so "
        "long, such as 30m. Default: train on for as long as it takes.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "fallback_dir",
        None,
        "Where to ship to for as long as the run directory stays dead: "
        "another gs:// or drive:// address, or folder of a mounted Drive.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "fallback_after",
        "5m",
        "For how long the run directory has to be dead before.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "bandwidth",
        None,
        "How many bytes a second are sent at most, such as 5MB. Default: as "
        "many as can be.",
        flag_values=values,
    )

    flags.DEFINE_string(
        "console",
        "64MB",
        "How much is kept of what an attempt prints: the beginning and the "
        "end; off: nothing.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "resources",
        "10s",
        "How often it is measured what is used (processor, memory, disk, "
        "GPU), or off.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "report",
        "10m",
        "How often report.html is written to the run directory, or off.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "show",
        "auto",
        ["auto", "all", "thin"],
        "What is shown here of what the program prints: all, or a few lines a "
        "minute of what is much; auto: thin in a notebook, which keeps it all.",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    """Trains; while it does, the supervisor sees to signals itself."""
    try:
        with interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            return _train(values, names)
    except KeyboardInterrupt:
        say(
            "interrupted while nothing was trained; run the same command again "
            "to continue"
        )
        return exit_status.RESUMABLE


def _train(values: Any, names: Sequence[str]) -> int:
    program = _program(values, names)
    run_dir = values.run_dir
    if run_dir is None:
        run_dir = os.path.join("runs", program.title)
    try:
        options = RunOptions.of(
            run_dir,
            save_freq=values.save_freq,
            **_given(values, KEPT + SHIPPED + WATCHED),
        )
    except UsageError as error:
        is_named = str(error).partition("=")[0].isidentifier()
        if not is_named:
            raise
        raise UsageError(f"--{error}") from None  # The argument of `Run`.
    directory = RunDirectory(
        run_dir,
        keep=options.keep,
        shipping=options.shipping,
        watch=options.watch,
    )
    command = [program.kind, program.name, *program.arguments]
    seed = values.seed
    if seed is None and values.deterministic:
        seed = 0
    if seed is not None:
        command.append(f"--seed={seed}")
    if values.deterministic:
        command.append("--deterministic")
    if values.start_over:
        needed = [program.name] if program.kind == "file" else []
        directory.set_aside(needed=needed)
    try:
        with said_after(8.0, f"{directory.address} has not answered yet"):
            was_done = _was_done(stored_run(run_dir), command)
    except StorageRefusedError:
        raise
    except StorageUnavailableError as error:
        if not options.shipping.fallback:
            raise
        say(str(error))  # It may have gone on there.
        was_done = _was_done(stored_run(options.shipping.fallback), command)
    if was_done:
        return exit_status.DONE
    return Supervisor(
        directory,
        program,
        command=command,
        settings={
            "save_freq": values.save_freq,
            **_given(values, KEPT + WATCHED),
            "seed": seed,
        },
        deterministic=values.deterministic,
        thin={"auto": None, "all": False, "thin": True}[values.show],
    ).run()


def _given(values: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(values, name) for name in names}


def _was_done(stored: StoredRun, command: Sequence[str]) -> bool:
    """Whether this very command was done there; says so if it was.

    What was asked for is stored without its secrets, and compared so.
    """
    done = stored.done() or {}
    told = done.get("command")
    if not isinstance(told, list) or not all(isinstance(a, str) for a in told):
        return False
    if masked_command(told) != masked_command(command):
        return False
    at = "" if done.get("step") is None else f", at step {done['step']}"
    say(
        f"{stored.address} is done since {_when(done.get('time'))}{at}; "
        "nothing is left to do; to train on, change its arguments, and to "
        "begin anew, add --start_over"
    )
    return True


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
    try:
        then = time.localtime(float(seconds))
    except (TypeError, ValueError, OverflowError, OSError):
        return "a time that is not recorded"
    return time.strftime("%Y-%m-%d %H:%M:%S", then)


COMMAND = Command(
    name="train",
    synopsis="[flags] [PROGRAM] [-- PROGRAM'S ARGUMENTS]",
    summary="Start a training, or continue it; the same command does both.",
    define=_define,
    run=_run,
    details="""\
PROGRAM is a Python file, or package.module, or package.module:function.
Inside it, `colab_keras_bg.current_run()` is the run, and its callbacks()
protect a `fit`. Without a program, a small classifier of handwritten digits
is trained, on images that ship with this package.

examples:
  colab-keras-bg train --run_dir=runs/digits
  colab-keras-bg train --save_freq=10m train.py -- --learning_rate=0.1""",
)
