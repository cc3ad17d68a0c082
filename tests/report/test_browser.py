"""The pages in a real browser: nothing in them is refused or fails, and a phone shows them without scrolling sideways."""

import html
import json
import re
import shutil
import subprocess

import pytest

from adapterkit import compare_runs, write_report
from adapterkit.report.rendering import _file
from tests.report.pages import Page, hash_of
from tests.report.run_folders import make_run, records
from tests.report.test_page import evil_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
addEventListener("load", () => {
  const chart = document.querySelector(".chart"), tips = [];
  if (chart) {
    const box = chart.querySelector(".plot").getBoundingClientRect();
    chart.querySelector(".plot").dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2 }));
    tips.push(chart.querySelector(".tip")?.textContent ?? "");
    for (const key of ["ArrowRight", "Escape"]) {
      chart.querySelector(".plot").dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
      tips.push(chart.querySelector(".tip")?.textContent ?? "");
    }
  }
  const folded = document.documentElement.scrollWidth;
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const wide = document.documentElement.scrollWidth, ink = getComputedStyle(document.body).color;
  parent.postMessage({ name: NAME, folded, wide, width: innerWidth, tips, ink }, "*");
});
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")


def opened(folder, pages, *options):
    """What each page, in a frame of some width, says of itself, and what the browser complained of.

    Args:
        folder: Where copies of the pages with the probe in them are put.
        pages: By name, the text of a page and the width of its frame.
        options: More options of the browser.
    """
    frames = []
    for name, (text, width) in pages.items():
        probe = PROBE.replace("NAME", json.dumps(name))
        allowed = text.replace("script-src ", f"script-src {html.escape(hash_of(probe))} ", 1)
        allowed = allowed.replace("</body>", f"<script>{probe}</script></body>")
        (folder / f"{name}.html").write_text(allowed, encoding="utf-8")
        frames.append(f'<iframe src="{name}.html" width="{width}" height="800"></iframe>')
    gather = "addEventListener('message', (said) => { out.textContent += JSON.stringify(said.data) + '\\n'; });"
    (folder / "all.html").write_text(f"<pre id=out></pre><script>{gather}</script>{''.join(frames)}")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run(
        [*command, (folder / "all.html").as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    lines = html.unescape(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)[1]).splitlines()
    said = {one["name"]: one for one in map(json.loads, lines)}
    assert set(said) == set(pages)
    return said, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    plain, evil = make_run(folder / "a-run-whose-folder-has-a-rather-long-name-of-its-own"), evil_run(folder / "evil")
    long = make_run(folder / "long", log=records(20_000), last_step=20_000)
    empty = make_run(folder / "empty", log=[], evaluation=None, status="running", data=None)
    texts = {one.name[:5]: write_report(one).read_text(encoding="utf-8") for one in (plain, evil, long, empty)}
    return {**texts, "runs": compare_runs([plain, evil, long, empty]).to_html()}


def test_pages_work_and_fit_a_phone_and_a_desk(texts, tmp_path):
    pages = {f"{name}-{width}": (text, width) for name, text in texts.items() for width in (390, 1280)}
    said, complaints = opened(tmp_path, pages)
    assert complaints == []
    for name, one in said.items():
        assert one["width"] in {390, 1280}
        assert one["folded"] <= one["width"], name
        assert one["wide"] <= one["width"], name
        if not name.startswith("empty"):
            first, second, third = one["tips"]
            assert re.match(r"step [\d,]+●", first), name
            assert re.match(r"step [\d,]+●", second), name
            assert third == ""


def test_the_theme_is_the_reader_s(texts, tmp_path):
    pages = {"plain": (texts["runs"], 390)}
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    light, _ = opened(tmp_path / "light", pages)
    dark, complaints = opened(tmp_path / "dark", pages, "--blink-settings=preferredColorScheme=0")
    assert complaints == []
    assert {light["plain"]["ink"], dark["plain"]["ink"]} == {"rgb(27, 31, 36)", "rgb(232, 234, 237)"}


def test_what_the_policy_forbids_and_what_is_too_wide_would_be_seen(texts, tmp_path):
    broken = texts["runs"].replace(
        "<footer>", '<p onclick="x()" style="width: 900px">wide</p><script>alert(1)</script><footer>'
    )
    broken = broken.replace(_file("style.css"), _file("style.css") + "footer { width: 900px; }")
    said, complaints = opened(tmp_path, {"broken": (broken, 390)})
    assert sum("Content Security Policy" in line for line in complaints) >= 3
    text = texts["runs"].replace("<footer>", '<svg width="900" height="9"></svg><footer>')
    (tmp_path / "wide").mkdir()
    said, complaints = opened(tmp_path / "wide", {"wide": (text, 390)})
    assert complaints == []
    assert said["wide"]["folded"] > 390
    assert Page(text).fetched() == []
