"""Settings come from the environment, and a wrong one stops the service with a line that helps."""

import pytest
from pydantic import ValidationError

from service.domain import FacePolicy
from service.errors import SettingsInvalid
from service.settings import Settings, load_settings, setting_names


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environ)
    return refused.value.message


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load_settings({}) == Settings()


def test_other_programs_variables_are_ignored() -> None:
    assert load_settings({"HOME": "/home/ada", "PORT": "99", "BIOPERL": "1"}) == Settings()


@pytest.mark.parametrize(
    ("mistyped", "nearest"),
    [
        ("BIODEDUP_REVIEW_FPR", "BIODEDUP_REVIEW_FPIR"),
        ("BIODEDUP_REVEIW_FPIR", "BIODEDUP_REVIEW_FPIR"),
        ("BIODEDUP_ACCEPTED_LICENSES", "BIODEDUP_ACCEPTED_LICENCES"),
        ("BIODEDUP_DATABASEURL", "BIODEDUP_DATABASE_URL"),
        ("BIODEDUP_ULR", "BIODEDUP_URL"),
        ("biodedup_port", "BIODEDUP_PORT"),
        ("BIODEUP_PORT", "BIODEDUP_PORT"),
        ("BIODEDUP", "BIODEDUP_"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest_right_one(mistyped: str, nearest: str) -> None:
    assert refusal(**{mistyped: "1"}).startswith(f"{mistyped} is not a setting; did you mean {nearest}")


@pytest.mark.parametrize("name", setting_names())
def test_each_name_with_a_letter_missing_is_refused_with_itself(name: str) -> None:
    for position in range(len("BIODEDUP_") + 1, len(name)):
        mistyped = name[:position] + name[position + 1 :]
        assert refusal(**{mistyped: "1"}).endswith(f"did you mean {name}?")


def test_all_mistyped_names_are_told_at_once() -> None:
    assert len(refusal(BIODEDUP_HOSTT="a", BIODEDUP_PRT="1").splitlines()) == 2


def test_the_variables_of_kubernetes_are_explained() -> None:
    assert "enableServiceLinks: false" in refusal(BIODEDUP_SERVICE_HOST="10.0.0.1")
    assert "enableServiceLinks: false" in refusal(BIODEDUP_PORT_8000_TCP="tcp://10.0.0.1:8000")


def test_the_variables_of_the_command_line_and_the_tests_are_allowed() -> None:
    environ = {"BIODEDUP_URL": "http://127.0.0.1:1", "BIODEDUP_TEST_FACES": "/faces"}
    assert load_settings(environ) == Settings()


def test_an_empty_value_counts_as_not_set() -> None:
    assert load_settings({"BIODEDUP_REVIEW_FPIR": "", "BIODEDUP_DATABASE_URL": " "}) == Settings()


def test_values_are_read_as_their_types() -> None:
    settings = load_settings(
        {
            "BIODEDUP_PORT": "9000",
            "BIODEDUP_KEEP_SAMPLES": "true",
            "BIODEDUP_EXTRA_PACKS": "buffalo_s, opencv-zoo,",
            "BIODEDUP_FACE_POLICY": "Largest",
            "BIODEDUP_REVIEW_FPIR": "5e-2",
        }
    )
    assert (settings.port, settings.keep_samples, settings.review_fpir) == (9000, True, 0.05)
    assert settings.extra_packs == ("buffalo_s", "opencv-zoo")
    assert settings.face_policy is FacePolicy.LARGEST


def test_every_pack_is_loaded_once_the_default_first() -> None:
    assert Settings(pack="a", extra_packs=("b", "a")).packs == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIODEDUP_REVIEW_FPIR", "1"),
        ("BIODEDUP_REVIEW_FPIR", "0"),
        ("BIODEDUP_REVIEW_FPIR", "nan"),
        ("BIODEDUP_REVIEW_FPIR", "1 %"),
        ("BIODEDUP_PORT", "65536"),
        ("BIODEDUP_FNIR_WARNING", "-0.1"),
        ("BIODEDUP_INDEX", "hnsw"),
        ("BIODEDUP_FACE_POLICY", "smallest"),
        ("BIODEDUP_KEEP_SAMPLES", "perhaps"),
        ("BIODEDUP_DEFAULT_GALLERY", "../else"),
        ("BIODEDUP_MAX_PIXELS", "1e12"),
        ("BIODEDUP_WORKERS", "inf"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_value(name: str, value: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name}: ")
    assert repr(value) in message


def test_every_wrong_value_gets_a_line_of_its_own() -> None:
    assert len(refusal(BIODEDUP_PORT="x", BIODEDUP_WORKERS="y").splitlines()) == 2


def test_a_duplicate_rate_above_the_review_rate_is_refused() -> None:
    message = refusal(BIODEDUP_DUPLICATE_FPIR="0.02")
    assert message == "BIODEDUP_DUPLICATE_FPIR must not be greater than BIODEDUP_REVIEW_FPIR"


def test_a_sample_larger_than_a_request_is_refused() -> None:
    assert "BIODEDUP_MAX_SAMPLE_BYTES" in refusal(BIODEDUP_MAX_REQUEST_BYTES="2048")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_nobody_is_asked_on_this_machine_alone(host: str) -> None:
    assert load_settings({"BIODEDUP_AUTH": "off", "BIODEDUP_HOST": host}).auth == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "service.example.org", "localhost.example.org"])
def test_where_others_reach_the_service_it_asks_who_calls(host: str) -> None:
    message = refusal(BIODEDUP_AUTH="off", BIODEDUP_HOST=host)
    assert message.startswith("BIODEDUP_AUTH=off asks nobody who they are, so BIODEDUP_HOST must be an address of")
    assert host in message
    assert load_settings({"BIODEDUP_HOST": host}).auth == "on"


def test_a_provider_and_its_audience_belong_together() -> None:
    both = {"BIODEDUP_OIDC_ISSUER": "https://login.example.org/realm", "BIODEDUP_OIDC_AUDIENCE": "biodedup"}
    assert load_settings(both).oidc_roles_claim == "biodedup_roles"
    for name, value in both.items():
        assert "belong together" in refusal(**{name: value})


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.org",
        "login.example.org",
        "file:///etc/passwd",
        "https://",
        "https://ada:hunter2@login.example.org",
        "https://login.example.org?x=1",
        "http://127.0.0.1.example.org",
    ],
)
def test_an_issuer_that_others_could_speak_for_is_refused(issuer: str) -> None:
    assert refusal(BIODEDUP_OIDC_ISSUER=issuer, BIODEDUP_OIDC_AUDIENCE="biodedup").startswith("BIODEDUP_OIDC_ISSUER: ")


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:9400", "http://[::1]:9400", "http://localhost:9400"])
def test_a_provider_on_this_machine_needs_no_certificate(issuer: str) -> None:
    environ = {"BIODEDUP_OIDC_ISSUER": issuer, "BIODEDUP_OIDC_AUDIENCE": "biodedup"}
    assert load_settings(environ).oidc_issuer == issuer


def test_a_wrong_database_address_is_refused_without_showing_its_password() -> None:
    message = refusal(BIODEDUP_DATABASE_URL="mysql://ada:hunter2@host/name")
    assert message.startswith("BIODEDUP_DATABASE_URL: ")
    assert "hunter2" not in message


def test_a_password_is_never_printed() -> None:
    settings = load_settings({"BIODEDUP_DATABASE_URL": "postgresql://ada:hunter2@host/name"})
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_PORT", "9999")
    assert Settings().port == 8000


def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1
