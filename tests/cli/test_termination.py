"""SIGTERM ends the program as `sys.exit` would; its children, as ever."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program."""
    begun = """
        import os, signal, threading, time
        from colab_keras_bg.cli.termination import exit_on_sigterm
    """
    return subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(begun) + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ends_the_program_as_sys_exit_would() -> None:
    """
    What stands behind `finally` runs, and the exit status is as given.
    """
    done = run(
        """
        exit_on_sigterm(75)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        finally:
            print("cleaned up")
        """
    )

    assert (done.returncode, done.stdout) == (75, "cleaned up\n")


@pytest.mark.parametrize("where", ["fork()", "in_a_thread(fork)"])
def test_a_child_dies_of_it_from_its_first_moment_on(where: str) -> None:
    """
    A child dies of a SIGTERM that comes before Python's hooks after the fork
    have been run, and its parent goes on ending as it did.
    """
    done = run(
        f"""
        parent = os.getpid()

        def strike():
            os.kill(os.getpid(), signal.SIGTERM)

        def fork():
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(1)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)

        def in_a_thread(work):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        os.register_at_fork(after_in_child=strike)
        exit_on_sigterm(75)
        {where}
        os.kill(parent, signal.SIGTERM)
        time.sleep(20)
        """
    )

    assert (done.stdout, done.returncode) == ("-15\n", 75), done.stderr
