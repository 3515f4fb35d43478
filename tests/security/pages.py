"""Attacks by and on pages: markup in texts, and other people's pages in a browser on this machine; real Chromium."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Error, Page, sync_playwright

from service.cli.subjects import page_of
from service.evaluation.evaluation import evaluate
from service.evaluation.report import About, render
from tests.api.credentials import header
from tests.evaluation.people import face_set
from tests.security.target import HERE, Target

CHROMIUM = shutil.which("chromium")

MARKUP = (
    "<img src=x data-planted onerror=planted=1>",
    '"><svg data-planted onload=planted=1>',
    "</td></table><b data-planted>planted</b>",
    "<script data-planted>planted=1</script>",
    "'-planted-'{{7*7}}</title><b data-planted>x</b>",
)
_WAIT_MS = 10_000


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser for the attacks of one block."""
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        yield browser


def hostile_reports(target: Target, browser: Browser, folder: Path) -> list[str]:
    """Markup in everything that the pages show which the commands write."""
    found = []
    with browser.new_context() as context:
        page = context.new_page()
        for name, file in _reports(target, folder):
            found += _planted(page, file.as_uri(), name)
    return found


def hostile_answers(target: Target, browser: Browser) -> list[str]:
    """Markup in what the service answers, opened as a page."""
    found = []
    with browser.new_context(extra_http_headers=header(target.key())) as context:
        page = context.new_page()
        for path in _answers(target):
            found += _planted(page, f"{target.url}{path}", path)
    return found


def hostile_addresses(target: Target, browser: Browser) -> list[str]:
    """Markup in the addresses of the service's own pages."""
    found = []
    with browser.new_context() as context:
        page, text = context.new_page(), quote(MARKUP[0] + MARKUP[1])
        hostile = f"?url=data:,{text}&configUrl=data:,{text}&state={text}&error={text}#state={text}&error={text}"
        for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
            found += _planted(page, f"{target.url}{path}{hostile}", path)
    return found


def _planted(page: Page, address: str, name: str) -> list[str]:
    try:
        page.goto(address, timeout=_WAIT_MS)
    except Error as error:
        # what is sent as a file is not shown
        return [] if "ERR_ABORTED" in error.message or "Download" in error.message else [f"{name}: {error.message}"]
    planted = page.evaluate("[window.planted === 1, document.querySelectorAll('[data-planted]').length]")
    return [] if planted == [False, 0] else [f"{name}: a caller's markup becomes part of the page"]


def _reports(target: Target, folder: Path) -> Iterator[tuple[str, Path]]:
    key = target.key()
    path = f"/v1/galleries/{HERE}"
    texts = {"site": MARKUP[0], "operator_ref": MARKUP[1], "labels": json.dumps(dict.fromkeys(MARKUP[2:], MARKUP[3]))}
    data = {"subject_id": "S-markup", "encounter_id": "E-markup", **texts}
    target.ask("POST", f"{path}/enrolments", key, files={"sample": b"gina/1"}, data=data).raise_for_status()
    found = target.ask("GET", f"{path}/subjects/S-markup/access-report", key).raise_for_status().json()
    yield "access report", _written(folder / "access.html", page_of(found))
    faces = face_set([2] * 60, facts=lambda person, _: {"site": MARKUP[person % 2]})
    about = About(MARKUP[0], MARKUP[1], MARKUP[2], MARKUP[3], MARKUP[4], "0", "central", 0)
    yield "evaluation", _written(folder / "report.html", render(evaluate(faces, None, lambda _: None), faces, about))


def _written(file: Path, content: str) -> Path:
    # without the policy of the page itself: it must hold on a reader that has none
    file.write_text(content.replace("Content-Security-Policy", "X-None"), encoding="utf-8")
    return file


def _answers(target: Target) -> list[str]:
    """Return addresses whose answers hold markup: errors, lists, and kept samples that are pages at heart."""
    key, path = target.key(), f"/v1/galleries/{HERE}"
    page = b"<!doctype html><b data-planted>x</b><script>planted=1</script>"
    for number, sample in enumerate((page, b"BM" + page, b"\xff\xd8\xff" + page)):
        data = {"encounter_id": f"E-page-{number}"}
        target.ask("POST", f"{path}/enrolments", key, files={"sample": sample}, data=data)
    samples = [f"{path}/encounters/E-page-{number}/samples/0" for number in range(3)]
    lists = [f"{path}/encounters", f"{path}/audit/export?format=csv"]
    return [*samples, *lists, f"{path}/subjects?{MARKUP[0]}=1", f"/{MARKUP[3]}"]


_FORMS = """<!doctype html><title>elsewhere</title><body><script>
const there = %(there)s, told = [];
async function all() {
  const form = new FormData();
  form.append("sample", new Blob(["planted/1"])); form.append("subject_id", "S-planted");
  const json = JSON.stringify({gallery_id: "planted"});
  const tries = [
    ["/v1/galleries/camp/enrolments", {method: "POST", mode: "no-cors", credentials: "include", body: form}],
    ["/v1/galleries", {method: "POST", mode: "no-cors", credentials: "include", body: json,
      headers: {"Content-Type": "text/plain"}}],
    ["/v1/galleries", {method: "POST", credentials: "include", body: json,
      headers: {"Content-Type": "application/json"}}],
    ["/v1/galleries/camp/subjects/S-here-0", {method: "DELETE", credentials: "include"}],
    ["/v1/galleries", {credentials: "include"}],
    ["/readyz", {}],
  ];
  for (const [path, how] of tries) {
    try { const text = await (await fetch(there + path, how)).text(); if (text) told.push(path); } catch (error) { }
  }
  return told;
}
function send(kind) {
  const frame = document.createElement("iframe"); frame.name = "f" + kind.length; document.body.append(frame);
  const form = document.createElement("form");
  const action = there + "/v1/galleries/camp/enrolments";
  Object.assign(form, {method: "post", enctype: kind, target: frame.name, action: action});
  for (const [name, value] of [["sample", "planted/2"], ["subject_id", "S-planted-too"]]) {
    const input = document.createElement("input"); input.name = name; input.value = value; form.append(input);
  }
  document.body.append(form);
  return new Promise(done => { frame.onload = () => done(); form.submit(); });
}
</script>"""


def cross_site_requests(target: Target, browser: Browser) -> list[str]:
    """A page of somebody else, in a browser on this machine, sends forms and requests, and looks for the answers.

    To a service that asks nobody who they are this is the whole danger; one that asks has no cookie to abuse.
    """
    found = []
    with _elsewhere(_FORMS % {"there": json.dumps(target.url)}) as port, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://elsewhere.localhost:{port}/")
        found += [f"another page reads the answer of {path}" for path in page.evaluate("all()")]
        for kind in ("multipart/form-data", "text/plain", "application/x-www-form-urlencoded"):
            page.evaluate("kind => send(kind)", kind)
        found += _framed(page, target)
        # a name of somebody else's that leads to this machine: the browser takes it for one place with their page
        answer = page.goto(f"http://elsewhere.localhost:{target.port}/v1/galleries")
        if answer is None or answer.ok:
            found.append("a foreign name that leads here is answered")
    key = target.key()
    subjects = target.ask("GET", f"/v1/galleries/{HERE}/subjects", key).text
    galleries = target.ask("GET", "/v1/galleries", key).text
    if "S-planted" in subjects or "planted" in galleries or "S-here-0" not in subjects:
        found.append("a request of another page was worked on")
    return found


def _framed(page: Page, target: Target) -> list[str]:
    """Whether a page of the service can be shown inside another one, to lead somebody's clicks."""
    page.evaluate(
        """address => new Promise(done => { const frame = document.createElement("iframe");
        frame.onload = () => done(); frame.src = address; document.body.append(frame); })""",
        f"{target.url}/docs",
    )
    shown = [frame for frame in page.frames if frame.url.startswith(target.url) and frame.title() != ""]
    return ["the pages can be framed"] if shown else []


@contextmanager
def _elsewhere(content: str) -> Iterator[int]:
    """Serve a page; the value is its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
