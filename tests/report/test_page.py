"""The report: one HTML page that stands alone, whatever was read."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from an_hour import BEGAN, HOUR, a_run_of_an_hour

from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.report.markup import console_html, shown
from colab_keras_bg.report.numbers import as_time
from colab_keras_bg.report.page import MOST_BYTES, page_of, report_page
from colab_keras_bg.report.page_data import read_page_data
from colab_keras_bg.report.status import read_status
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.stored_run import stored_run

HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&amp;'
    "</pre></style><!-- $x_1^2$ \x1b[2J\x1b]0;title\x07 \u202egnp.exe\ud800"
)
SECRET = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7"
# The elements that a page may consist of.
ELEMENTS = set(
    re.findall(
        r"\w+",
        "html head meta title style body main header h1 h2 h3 section div p "
        "span strong b i code pre table thead tbody tr th td footer "
        "svg g path text defs use clippath rect",
    )
)


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(text: str) -> Page:
    """A page, after what holds of each was checked."""
    assert len(text.encode("utf-8", "replace")) < 1e6
    page = Page(text)
    assert page.open == []
    assert set(page.elements) <= ELEMENTS
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "action", "srcdoc", "background")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
        if name == "style":
            assert "url(" not in value or "url(#" in value
        if (tag, name) != ("meta", "content"):
            assert "javascript:" not in value
    assert "://" not in re.sub(r"&[a-z]+;", "", "".join(page.elements))
    policy = [v for t, n, v in page.attributes if "default-src 'none'" in v]
    assert len(policy) == 1
    assert "script-src" not in policy[0]
    ids = [v for _, name, v in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert "\x1b" not in text
    assert "\u202e" not in text
    return page


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an hour."""
    return a_run_of_an_hour(tmp_path_factory.mktemp("hour") / "run").path


def test_what_stands_there(hour: Path) -> None:
    """
    It tells the state, the safe step and its age on top, and all the rest
    below: curves, the time, attempts, resources, checkpoints, the command,
    and the console's end.
    """
    page = checked(report_page(hour, clock=lambda: BEGAN + HOUR + 600))
    assert page.elements.count("svg") == 3 + 9
    places = [
        page.text.index(told)
        for told in (
            *("done", "11,900", "of 15,000", "step 11900, 10 min ago"),
            *("Metrics", "loss", "training", "validation"),
            *("Where the time went", "moved the training forward for good"),
            *("Attempts", "killed, without a word"),
            *("Resources", "Processor", "GPU memory", "Checkpoints", "10,500"),
            *("Configuration", "--learning_rate=0.001", "every 30 s"),
            *("Console", "step  11820", "Written 2026-11-18"),
        )
    ]
    assert places == sorted(places)


def test_hostile_strings(tmp_path: Path) -> None:
    """
    Nothing that was read becomes markup: names, reasons, commands, machines,
    and what was printed are text.
    """
    path = a_run_of_an_hour(tmp_path, hostile=HOSTILE, end="failed").path
    page = checked(report_page(path))
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "\\u202egnp.exe" in page.text
    assert "$x_1^2$" in page.text


def test_no_secrets(tmp_path: Path) -> None:
    """
    Secrets that were printed, or stand in commands and reasons, are masked,
    also where a line is cut.
    """
    for hostile in (
        f" --token={SECRET}",
        f" https://me:{SECRET}@example.com",
        f" hf_{SECRET}",
        " x" * 140 + f" password: {SECRET}" + " x" * 2000,
        " x" * 300 + f" password: {SECRET}" + " x" * 95,
    ):
        path = tmp_path / str(len(hostile))
        a_run_of_an_hour(path, hostile=hostile)
        text = report_page(path)
        assert SECRET not in text
        assert "Zq7Zq7" not in text
        assert "[masked]" in text


def test_no_environment(hour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing of the environment is written.
    """
    monkeypatch.setenv("MY_OWN_SETTING", "of-the-environment")
    assert "of-the-environment" not in report_page(hour)
    assert "MY_OWN_SETTING" not in report_page(hour)


@pytest.mark.parametrize("end", ["interrupted", "failed"])
def test_other_ends(end: str, tmp_path: Path) -> None:
    """
    A run that is not done says so, and why.
    """
    path = a_run_of_an_hour(tmp_path, end=end, gpus=0).path
    page = checked(report_page(path))
    assert end in page.text
    assert "GPU memory" not in page.text


def test_size_stays(tmp_path: Path) -> None:
    """
    However much there is, the page stays small enough to be opened anywhere.
    """
    path = a_run_of_an_hour(tmp_path).path
    metrics = path / "metrics.jsonl"
    many = "".join(f', "m{i}<&>": {i}' for i in range(500))
    lines = metrics.read_text().replace(', "time"', f'{many}, "time"')
    metrics.write_text(lines * 20)
    log = ConsoleLog(path, 3)
    log.append((b"\x1b[31m<&>\"'" * 1000 + b"\n") * 2000, when=BEGAN + HOUR)
    log.append(b"x" * 10**7 + b"\n", when=BEGAN + HOUR)
    for number in range(4, 400):
        folder = path / f"attempts/{number:04d}"
        folder.mkdir()
        source = (path / "attempts/0003/attempt.json").read_bytes()
        (folder / "attempt.json").write_bytes(source)  # Another's: damaged.
    text = report_page(path)
    checked(text)
    assert len(text.encode()) <= MOST_BYTES
    assert "more metrics are" in text


def test_what_does_not_fit_is_left_out(hour: Path) -> None:
    """
    Were charts ever so large, the page is whole and says what it lacks.
    """
    data = read_page_data(stored_run(hour), now=BEGAN)
    drawn = f"<svg><text>{'x' * 400_000}</text></svg>"
    text = page_of(data, draw=lambda *_, **__: drawn)
    checked(text)
    assert "There is more than fits here." in text


def test_a_long_console() -> None:
    """
    Of a console that takes too much room, the newest lines stay.
    """
    lines = [f"{number} {'<' * 390}" for number in range(1000)]
    found = console_html(lines, most_bytes=10_000)
    assert len(found) <= 10_000
    assert found.split("\n")[-1].startswith("999 &lt;")
    assert found.startswith("994 &lt;")


def test_an_attempt_that_has_told_its_end(tmp_path: Path) -> None:
    """
    The last report is written while the run's process still waits for it; it
    shows how the run has ended.
    """
    path = a_run_of_an_hour(tmp_path).path
    lock = DirectoryLock.acquire(path, holder="the supervisor")
    try:
        assert read_status(path).state == "running"
        assert '<span class="pill done">' in report_page(path)
    finally:
        lock.release()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b'{"a"' * 1000, b"x" * 10**6 + b"\n"]
)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    """
    Whatever is damaged, the page is whole, and names the damage.
    """
    path = a_run_of_an_hour(tmp_path).path
    for file in path.rglob("*.*"):
        if file.suffix in (".json", ".jsonl", ".log"):
            file.write_bytes(content)
    (path / "HEAD").write_bytes(content)
    page = checked(report_page(path))
    assert "damaged: status.json cannot be read" in page.text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    """
    A run that has told nothing yet has a report, too.
    """
    (tmp_path / "attempts/0001").mkdir(parents=True)
    (tmp_path / "attempts/0001/attempt.json").write_text("{}")
    checked(report_page(tmp_path))


def test_without_matplotlib(hour: Path) -> None:
    """
    Without matplotlib all but the curves is there, and how to get them.
    """
    script = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'matplotlib':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from colab_keras_bg.cli.main import main\n"
        f"sys.exit(main(['report', {str(hour)!r}, '--out=-']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    page = checked(ended.stdout.decode())
    assert 'pip install "colab_keras_bg[report]"' in page.text
    assert "svg" not in page.elements
    assert "val_loss" in page.text
    assert "killed, without a word" in page.text


def test_colours_of_the_console() -> None:
    """
    Colours become classes; what else a terminal would obey is shown.
    """
    found = console_html(
        ["\x1b[1;31mred\x1b[0m \x1b[38;5;9mx\x1b[39m\x1b[2K\x1b[92m<b>\x1b[m."]
    )
    assert found == (
        '<span class="b c-red">red</span> x\\x1b[2K'
        '<span class="c-green">&lt;b&gt;</span>.'
    )


def test_long_text() -> None:
    """
    What is too long keeps its beginning and its end.
    """
    assert shown("a" * 100 + "<b>", most=9) == "aaaaa…a&lt;b&gt;"


def test_a_page_says_when_it_was_written(tmp_path: Path) -> None:
    """
    Whoever opens it later is not told what was true then as if it were now,
    nor is a part of the run taken for all of it.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    data = read_page_data(stored_run(run), now=BEGAN + HOUR + 6)
    text = Page(page_of(data, draw=None)).text
    written = as_time(BEGAN + HOUR + 6)
    assert text.index(f"as of {written}") < text.index("Attempts")
    assert "before this page" in text
    assert "ago" not in text.split("last sign of life")[1][:80]
    assert "over 3 of" not in text
    past = replace(data.past, left_out=7)
    data = replace(data, past=past, status=replace(data.status, attempts=10))
    text = Page(page_of(data, draw=None)).text
    assert "moved the training forward for good, over 3 of 10 attempts" in text
