"""No core dumps: a copy of the memory would hold templates, photographs and keys.

Source: core(5) (a limit of zero is not enforced where a program takes the dumps), prctl(2) PR_SET_DUMPABLE.
"""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Let the kernel write no memory of this process, to no file and no program; each process says so for itself.

    Another process of the same user cannot look into it either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
