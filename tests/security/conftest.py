"""One target for the attacks that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.security.target import Target, target


@pytest.fixture(scope="package")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("security")) as found:
        yield found
