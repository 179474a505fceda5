"""The page in a real browser: nothing sticks out, nothing is missing, nothing is fetched, and it prints.

Runs where Chromium is installed and skips, saying so, elsewhere.
"""

import html
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pypdf
import pytest

from audit.report import build_report, render_html
from tests.audit.report.pages import rich_run

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; the page was not rendered")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
]

MEASURE = """
const missing = (page, characters) => {
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const drawn = (character) => {
    context.clearRect(0, 0, 40, 40);
    context.font = '24px Georgia, "Times New Roman", serif';
    context.fillText(character, 5, 30);
    return context.getImageData(0, 0, 40, 40).data.join();
  };
  const absent = drawn('\\u0378');
  return characters.filter((character) => drawn(character) === absent);
};
const measure = (frame) => {
  const page = frame.contentDocument, root = page.documentElement, out = [];
  for (const element of page.querySelectorAll('body *')) {
    const box = element.getBoundingClientRect();
    const scrolled = element.closest('.scroll') && element.closest('.scroll') !== element;
    if (!scrolled && !element.closest('svg') && box.width && box.right > root.clientWidth + 1)
      out.push(element.tagName + ' ' + element.textContent.slice(0, 40));
  }
  for (const text of page.querySelectorAll('svg text')) {
    const box = text.getBoundingClientRect(), canvas = text.closest('svg').getBoundingClientRect();
    if (box.left < canvas.left - 1 || box.right > canvas.right + 1 || box.bottom > canvas.bottom + 1)
      out.push('svg: ' + text.textContent);
  }
  const size = (drawn) => drawn.getBoundingClientRect().width / drawn.viewBox.baseVal.width
    * parseFloat(drawn.getAttribute('font-size'));
  const letters = Math.min(...[...page.querySelectorAll('svg')].map(size));
  const characters = [...new Set(root.textContent + '\\u2713\\u2717\\u2013')].filter((c) => c > '~');
  return {
    width: root.clientWidth, wide: root.scrollWidth, out, missing: missing(page, characters), characters,
    scripts: page.scripts.length, height: root.scrollHeight, letters,
  };
};
window.onload = () => {
  document.getElementById('found').textContent =
    JSON.stringify([...document.querySelectorAll('iframe')].map(measure));
};
"""


def chromium(tmp_path, *arguments):
    profile = tmp_path / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    return result.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render_html(build_report(rich_run(folder))))
    return path


def test_nothing_sticks_out_is_missing_or_is_fetched_on_any_screen(page, tmp_path):
    frames = "".join(
        f'<iframe width="{width}" height="800" srcdoc="{html.escape(page.read_text())}"></iframe>'
        for width in (320, 390, 768, 1200)
    )
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<meta charset="utf-8"><script>{MEASURE}</script>{frames}<script id="found" type="application/json"></script>'
    )
    dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri())
    (text,) = re.findall(r'<script id="found" type="application/json">(.*?)</script>', dom, re.S)
    found = json.loads(text)
    assert [frame["width"] for frame in found] == [320, 390, 768, 1200]
    for frame in found:
        assert frame["out"] == []
        assert frame["wide"] <= frame["width"]
        assert frame["letters"] > 11.9  # pixels, of text in charts
        assert frame["scripts"] == 0
        assert frame["height"] > 3000
        assert "\u2013" in frame["characters"]
        assert frame["missing"] == []


def test_the_measurement_notices_what_is_wrong(tmp_path):
    """A page that is too wide or lacks a glyph does not pass for a good one."""
    bad = '<p style="width: 900px">wide \u0378</p>'
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<meta charset="utf-8"><script>{MEASURE}</script><iframe width="320" srcdoc="{html.escape(bad)}"></iframe>'
        '<script id="found" type="application/json"></script>'
    )
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    command += ["--dump-dom", wrapper.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (frame,) = json.loads(re.findall(r'<script id="found" type="application/json">(.*?)</script>', dom, re.S)[0])
    assert frame["out"]
    assert frame["wide"] > frame["width"]
    assert frame["missing"] == ["\u0378"]


def requests_of(tmp_path, content):
    """Serve a page, open it with every host name leading to this server, and return what was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/report.html" or "Referer" in self.headers:  # not what the browser asks for itself
                asked.append(self.path)
            self.send_response(200 if self.path == "/report.html" else 404)
            self.send_header("Content-Type", "text/html" if self.path == "/report.html" else "text/css")
            self.end_headers()
            self.wfile.write(content.encode() if self.path == "/report.html" else b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_address[1]
        rule = f"--host-resolver-rules=MAP * 127.0.0.1:{port}"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", rule, "--virtual-time-budget=3000"]
        command += ["--dump-dom", f"http://127.0.0.1:{port}/report.html"]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        server.shutdown()
        thread.join()
    return [path for path in asked if path != "/favicon.ico"]


def test_it_asks_nobody_for_anything(page, tmp_path):
    assert requests_of(tmp_path, page.read_text()) == ["/report.html"]


def test_a_request_would_be_noticed(tmp_path):
    asked = requests_of(tmp_path, '<link rel="stylesheet" href="s.css"><img src="pixel.png">')
    assert sorted(asked) == ["/pixel.png", "/report.html", "/s.css"]


def test_it_prints_whole_with_text_that_can_be_selected(page, tmp_path):
    target = tmp_path / "printed.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri())
    pages = pypdf.PdfReader(target).pages
    text = " ".join(" ".join(sheet.extract_text().split()) for sheet in pages)
    assert 4 <= len(pages) <= 20
    for expected in ("Audit report", "tumour typing <b>", "12. Risks and open items", "data protection officer"):
        assert expected in text
    assert {round(float(sheet.mediabox.width)) for sheet in pages} == {595}


def test_it_opens_without_a_word_on_the_console(page, tmp_path):
    chromium(tmp_path, "--window-size=390,844", f"--screenshot={tmp_path / 'phone.png'}", page.as_uri())
    assert (tmp_path / "phone.png").stat().st_size > 10_000
