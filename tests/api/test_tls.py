"""https by the built-in server: only what is safe, certificates that change while it runs, and clear refusals."""

import json
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from service.api.tls import Certificate
from service.cli.client import ServiceClient
from service.cli.failures import CommandFailed
from service.errors import SettingsInvalid
from tests.api.certificates import Files, make_files
from tests.api.live import fake_settings, served, wait_until_ready
from tests.server import Server


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path / "tls")


def trusting(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.authority))


@pytest.fixture
def certificate(files: Files) -> Certificate:
    return Certificate(files.certificate, files.key)


@pytest.fixture
def url(tmp_path: Path, certificate: Certificate) -> Iterator[str]:
    with served(fake_settings(tmp_path / "var"), certificate) as port:
        yield f"https://127.0.0.1:{port}"


def names_of(url: str) -> str:
    """The common name in the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    parsed = httpx.URL(url)
    with (
        socket.create_connection((parsed.host, parsed.port or 0), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        encoded = secured.getpeercert(binary_form=True)
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).subject.rfc4514_string()


def test_https_is_answered_and_browsers_are_told_to_stay_with_it(url: str, files: Files) -> None:
    with httpx.Client(base_url=url, verify=trusting(files), timeout=30) as client:
        wait_until_ready(client)
        found = client.get("/v1/galleries")
    assert found.status_code == 200
    assert found.headers["strict-transport-security"] == "max-age=31536000"


def test_old_versions_and_weak_ciphers_are_refused(url: str, files: Files) -> None:
    old = trusting(files)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert httpx.get(f"{url}/healthz", verify=old, timeout=10).status_code == 200
    old.set_ciphers("ECDHE-ECDSA-AES128-SHA256")  # without authenticated encryption
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", verify=old, timeout=10)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", verify=old, timeout=10)


def test_http_on_the_port_of_https_gets_nothing(url: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http") + "/healthz", timeout=10)


def test_a_handshake_that_never_comes_is_not_waited_for(tmp_path: Path, certificate: Certificate) -> None:
    settings = fake_settings(tmp_path / "var", header_timeout_s=0.5)
    with served(settings, certificate) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
        assert silent.recv(1) == b""  # asyncio's own patience is a minute


def test_a_new_certificate_is_for_new_connections(
    url: str, files: Files, certificate: Certificate, tmp_path: Path
) -> None:
    with httpx.Client(base_url=url, verify=trusting(files), timeout=30) as old_client:
        assert old_client.get("/healthz").status_code == 200
        other = make_files(tmp_path / "other", "two")
        shutil.copy(other.certificate, files.certificate)
        shutil.copy(other.key, files.key)
        certificate.reload_if_changed()
        assert names_of(url) == "CN=two"
        assert old_client.get("/healthz").status_code == 200  # on the connection it has
    assert httpx.get(f"{url}/healthz", verify=trusting(other), timeout=10).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", verify=trusting(files), timeout=10)


@pytest.mark.parametrize("fault", ["garbage", "foreign key", "missing", "key for all"])
def test_wrong_files_leave_the_certificate_in_use(
    url: str, files: Files, certificate: Certificate, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = names_of(url)
    other = make_files(tmp_path / "other", "two")
    if fault == "garbage":
        files.certificate.write_text("no certificate")
    elif fault == "foreign key":
        shutil.copy(other.certificate, files.certificate)
    elif fault == "missing":
        files.key.unlink()
    else:
        shutil.copy(other.certificate, files.certificate)
        shutil.copy(other.key, files.key)
        files.key.chmod(0o644)
    certificate.reload_if_changed()
    assert names_of(url) == before == "CN=one"
    assert [record.message for record in caplog.records if record.name == "service.api.tls"] == [
        "tls.certificate_refused"
    ]
    shutil.copy(other.certificate, files.certificate)
    shutil.copy(other.key, files.key)
    files.key.chmod(0o600)
    certificate.reload_if_changed()
    assert names_of(url) == "CN=two"


def test_files_that_did_not_change_are_not_read_again(files: Files, certificate: Certificate) -> None:
    def fail() -> None:
        raise AssertionError("read again")

    certificate._load = fail  # type: ignore[assignment, method-assign]  # stands in for reading
    certificate.reload_if_changed()
    files.certificate.touch()
    with pytest.raises(AssertionError):
        certificate.reload_if_changed()


def test_wrong_files_stop_the_start_and_say_why(files: Files, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="TLS_CERT_FILE: there is no such file"):
        Certificate(tmp_path / "nothing.pem", files.key)
    with pytest.raises(SettingsInvalid, match="not a certificate chain and its own key"):
        Certificate(files.authority, files.key)
    files.key.chmod(0o604)
    with pytest.raises(SettingsInvalid, match="everybody on this machine"):
        Certificate(files.certificate, files.key)


def test_a_key_with_a_password_is_refused_without_asking(files: Files) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(SettingsInvalid, match="without a password"):
        Certificate(files.certificate, files.key)


def test_the_command_line_trusts_the_authority_that_it_is_told(
    url: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIODEDUP_CA_FILE", raising=False)
    with pytest.raises(CommandFailed) as refusal, ServiceClient(url) as client:
        client.get("/healthz")
    assert refusal.value.code == "certificate_untrusted"
    monkeypatch.setenv("BIODEDUP_CA_FILE", str(files.authority))
    with ServiceClient(url) as client:
        assert client.get("/healthz")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing")
    monkeypatch.setenv("BIODEDUP_CA_FILE", str(garbage))
    with pytest.raises(CommandFailed) as refusal, ServiceClient(url):
        pass
    assert refusal.value.code == "ca_file_unusable"


@pytest.mark.models
def test_the_real_service_speaks_https_and_follows_its_certificate(
    tmp_path: Path, files: Files, models_dir: Path
) -> None:
    settings = {"BIODEDUP_TLS_CERT_FILE": str(files.certificate), "BIODEDUP_TLS_KEY_FILE": str(files.key)}
    server = Server(tmp_path / "var", {**settings, "BIODEDUP_MODELS_DIR": str(models_dir)})
    url = server.url.replace("http:", "https:")
    try:
        with httpx.Client(base_url=url, verify=trusting(files), timeout=5) as client:
            _wait_for(lambda: client.get("/readyz").status_code == 200)
        other = make_files(tmp_path / "other", "two")
        shutil.copy(other.certificate, files.certificate)
        shutil.copy(other.key, files.key)
        _wait_for(lambda: names_of(url) == "CN=two")
    finally:
        code = server.stop()
    assert code == 0
    events = [json.loads(line)["event"] for line in server.log_path.read_text().splitlines() if line.startswith("{")]
    assert "tls.certificate_loaded" in events


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if is_so():
                return
        except (httpx.TransportError, OSError):
            pass  # it has not begun to listen
        time.sleep(0.1)
    raise AssertionError("it did not come about in time")
