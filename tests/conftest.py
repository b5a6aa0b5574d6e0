"""For all tests.

It lies here so that pytest puts this folder on the path, too: each folder of
tests may then `from waiting import until`.
"""

import signal


def pytest_configure() -> None:
    """
    Programs that the tests start are interrupted as those of a person are,
    though the tests themselves be started in the background: a shell has
    those ignore what a key would send, and all their children.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.SIG_DFL
            if number == signal.SIGINT:
                default = signal.default_int_handler
            signal.signal(number, default)
