"""The report in a browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from an_hour import a_run_of_an_hour
from test_page import HOSTILE

from colab_keras_bg.report.page import report_page

CHROMIUM = shutil.which("chromium")

# Written around the report, which itself runs no script: tells whether it can
# be read without swiping sideways, and whether anything in it was run.
FRAME = """\
<iframe id="f" src="report.html" style="width:{width}px;height:800px"></iframe>
<pre id="told"></pre>
<script>
document.getElementById("f").onload = () => {{
  const page = document.getElementById("f").contentDocument.documentElement;
  const told = [page.scrollWidth, page.clientWidth,
    page.querySelectorAll("svg").length,
    page.querySelectorAll("script, img, iframe, link").length,
    getComputedStyle(page.querySelector("body")).backgroundColor];
  document.getElementById("told").textContent = "told:" + told.join("|") + ";";
}};
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits(width: int, tmp_path: Path) -> None:
    """
    On a phone and on a wide screen the page is never wider than the screen,
    however hostile its text, which runs nothing.
    """
    run = a_run_of_an_hour(tmp_path / "run", hostile=HOSTILE).path
    page = report_page(run).encode("utf-8", "replace")
    (tmp_path / "report.html").write_bytes(page)
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    assert CHROMIUM is not None
    dumped = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync"),
            *("--allow-file-access-from-files", "--virtual-time-budget=5000"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *("--dump-dom", (tmp_path / "frame.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    told = re.search("told:(.*?);", dumped)
    assert told is not None, dumped
    scroll, client, charts, others, colour = told[1].split("|")
    assert int(scroll) <= int(client) <= width
    assert (int(charts), int(others)) == (4 + 9, 0)
    assert colour in ("rgb(246, 247, 249)", "rgb(14, 19, 24)")
