"""Becomes another program that cannot outlive the process that started it: `python launch.py [--no-override] PROGRAM ARGUMENT…`.

`--no-override` gives up root's right to write where the file modes forbid it, so that a folder can be made read-only. Linux; elsewhere
the program starts as it is.
"""

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL, _DROP_CAPABILITY = 1, 24  # <sys/prctl.h>
_DAC_OVERRIDE = 1  # <linux/capability.h>


def main() -> None:
    """Give up rights, then replace this program."""
    program = sys.argv[1:]
    parent = os.getppid()
    if sys.platform == "linux":
        control = ctypes.CDLL(None, use_errno=True).prctl
        control(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("launch: the parent has ended already")
        if program[0] == "--no-override" and os.geteuid() == 0 and control(_DROP_CAPABILITY, _DAC_OVERRIDE, 0, 0, 0):
            sys.exit("launch: the right to override file modes cannot be given up here")
    program = program[1:] if program[0] == "--no-override" else program
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
