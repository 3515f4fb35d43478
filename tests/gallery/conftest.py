"""What all tests of the index share."""

from collections.abc import Iterator

import pytest

from service.gallery import side_by_side


@pytest.fixture(autouse=True, scope="module")
def several_threads() -> Iterator[None]:
    """Let all threads search: the few templates of these tests would not be worth a second one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "_BYTES_A_THREAD", 1)
        yield
