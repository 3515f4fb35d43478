"""No attack finds anything; each finds the hole that is planted for it in test_planted_holes.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service.api.access import Scope
from tests import postgres
from tests.security import bombs, pages, rights, texts, times, tokens, wire
from tests.security.operations import operations
from tests.security.target import FAILED_SIGN_INS, Target, target
from tests.server import Server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    databases = {}
    if request.param == "postgresql":
        record, keys = (postgres.fresh_database(is_migrated=False) for _ in range(2))
        databases = {"database_url": record, "key_database_url": keys}
    with target(tmp_path_factory.mktemp("attacked"), **databases) as found:
        yield found


def test_nothing_of_another_gallery_is_told_or_changed(victim: Target) -> None:
    assert rights.foreign_objects(victim) == []
    named = {name for each in operations() if each.rule.scope is Scope.GALLERY for name in each.path_names}
    assert named - rights.exercised_ids(victim) == set(), "target.py: let the other gallery have one of these"


def test_no_forged_token_is_let_in(victim: Target) -> None:
    assert tokens.forged_tokens(victim) == []


def test_what_held_once_is_no_way_in(victim: Target) -> None:
    assert rights.replayed(victim) == []


def test_who_guesses_keys_is_told_nothing_and_stopped(tmp_path: Path) -> None:
    with target(tmp_path, limit_failed_sign_ins_per_minute=FAILED_SIGN_INS) as asked:
        assert rights.guessed_keys(asked) == []


def test_requests_that_are_too_large_are_refused_early(victim: Target) -> None:
    assert wire.oversized_requests(victim) == []


def test_requests_that_take_their_time_are_ended(tmp_path: Path) -> None:
    with target(tmp_path, **wire.DEADLINES) as slow:
        assert wire.slow_requests(slow) == []


def test_requests_within_requests_are_not_worked_on(victim: Target) -> None:
    assert wire.smuggled_requests(victim) == []


def test_texts_stay_in_their_line_and_cell(victim: Target) -> None:
    assert texts.injected_lines(victim) == []


def test_texts_are_no_queries_and_no_paths(victim: Target) -> None:
    assert texts.injected_queries(victim) == []


def test_no_address_of_a_caller_is_asked(victim: Target) -> None:
    assert texts.followed_addresses(victim) == []


def test_the_clock_does_not_tell_who_is_there(victim: Target) -> None:
    assert times.told_by_time(victim) == []


@pytest.mark.models
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        assert bombs.image_bombs(server) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if pages.CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with pages.browsing() as found:
        yield found


@pytest.mark.browser
def test_markup_of_a_caller_is_text_on_every_page(victim: Target, browser: Browser, tmp_path: Path) -> None:
    assert pages.hostile_reports(victim, browser, tmp_path) == []
    assert pages.hostile_answers(victim, browser) == []
    assert pages.hostile_addresses(victim, browser) == []


@pytest.mark.browser
@pytest.mark.parametrize("auth", ["on", "off"])
def test_pages_of_others_can_do_nothing_here(browser: Browser, tmp_path: Path, auth: str) -> None:
    with target(tmp_path, auth=auth) as asked:
        assert pages.cross_site_requests(asked, browser) == []
