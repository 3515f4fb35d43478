"""What a caller may do follows from its grants alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.access import LOCAL, MAX_GRANTS, Caller, Grant, Role, grant_texts, read_grants
from service.acting import SERVICE, Actor, acting_as, current_actor

IN_CAMP = Caller("client:desk", (Grant(Role.ENROLLER, frozenset({"camp"})), Grant(Role.AUDITOR)))


def test_a_role_holds_in_the_galleries_it_is_limited_to() -> None:
    assert IN_CAMP.may({Role.ENROLLER}, "camp")
    assert not IN_CAMP.may({Role.ENROLLER}, "town")


def test_a_role_without_limit_holds_everywhere() -> None:
    assert IN_CAMP.may({Role.AUDITOR}, "town")


def test_what_belongs_to_no_gallery_takes_a_role_in_all_of_them() -> None:
    assert IN_CAMP.may({Role.AUDITOR})
    assert not IN_CAMP.may({Role.ENROLLER})


def test_a_role_that_was_not_granted_is_not_there() -> None:
    assert not IN_CAMP.may({Role.ADMIN, Role.ANALYST}, "camp")


@pytest.mark.parametrize("gallery_id", ["camp", "town"])
def test_a_caller_sees_a_gallery_in_which_it_has_any_role(gallery_id: str) -> None:
    limited = Caller("client:desk", (Grant(Role.ENROLLER, frozenset({"camp"})),))
    assert limited.sees(gallery_id) is (gallery_id == "camp")


@pytest.mark.parametrize("role", Role)
def test_whoever_is_not_asked_may_do_everything(role: Role) -> None:
    assert LOCAL.may({role})


def test_the_service_acts_by_itself_unless_somebody_is_named() -> None:
    assert current_actor() == SERVICE
    with acting_as(Actor("client:desk", purpose="distribution")):
        assert current_actor() == Actor("client:desk", purpose="distribution")
    assert current_actor() == SERVICE


def test_another_thread_acts_for_nobody_of_this_one() -> None:
    with acting_as(Actor("client:desk")), ThreadPoolExecutor(1) as threads:
        assert threads.submit(current_actor).result() == SERVICE


def test_grants_are_written_and_read_as_texts() -> None:
    grants = (Grant(Role.ADMIN), Grant(Role.ENROLLER, frozenset({"camp", "town"})))
    assert grant_texts(grants) == ["admin:*", "enroller:camp", "enroller:town"]
    assert read_grants(grant_texts(grants)) == grants


def test_a_role_everywhere_and_somewhere_holds_everywhere() -> None:
    assert read_grants(["analyst:camp", "analyst:*"]) == (Grant(Role.ANALYST),)


@pytest.mark.parametrize(
    "text", ["chief:*", "ADMIN:*", "admin", "admin:", ":camp", "admin:ca mp", "admin:*x", "admin:a:b", ""]
)
def test_a_text_that_is_no_grant_is_refused_with_the_roles(text: str) -> None:
    with pytest.raises(ValueError, match="the roles are enroller, analyst, supervisor, auditor, operator, admin"):
        read_grants([text])


def test_grants_have_an_end() -> None:
    texts = [f"analyst:camp-{number}" for number in range(MAX_GRANTS)]
    assert len(grant_texts(read_grants(texts))) == MAX_GRANTS
    with pytest.raises(ValueError, match="at most 200"):
        read_grants([*texts, "analyst:town"])
