"""Large arrays are kept in huge pages where the system has them; nothing else changes."""

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from service.gallery import huge_pages
from service.gallery.huge_pages import use_huge_pages

MEBIBYTE = 1 << 20
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kib() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text("ascii"))
    assert found is not None
    return int(found[1])


def test_whole_pages_become_huge_and_keep_what_they_hold() -> None:
    with mmap.mmap(-1, 64 * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)  # whatever the system does of itself
        for start in range(0, len(area), 4096):
            area[start] = start % 251
        before = huge_kib()
        view = ctypes.c_char.from_buffer(area)
        use_huge_pages(ctypes.addressof(view), len(area))
        del view
        if "[never]" not in _THP.read_text("ascii"):
            assert huge_kib() - before >= 32 * 1024
        assert all(area[start] == start % 251 for start in range(0, len(area), 4096))


def test_where_they_are_switched_off_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("always madvise [never]", None):
        switch = tmp_path / f"enabled-{text}"
        if text is not None:
            switch.write_text(text)
        monkeypatch.setattr(huge_pages, "_SWITCH", switch)
        with mmap.mmap(-1, 16 * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
            area.madvise(mmap.MADV_NOHUGEPAGE)
            for start in range(0, len(area), 4096):
                area[start] = 1
            before = huge_kib()
            view = ctypes.c_char.from_buffer(area)
            use_huge_pages(ctypes.addressof(view), len(area))
            del view
            assert huge_kib() - before < 4096


def test_less_than_a_page_is_left_alone() -> None:
    small = bytearray(b"template")
    use_huge_pages(ctypes.addressof(ctypes.c_char.from_buffer(small)), len(small))
    assert small == b"template"
