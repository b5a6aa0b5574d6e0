"""How a run shows itself in a notebook."""

from __future__ import annotations

import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli.directories import attempt, beat, commit
from test_page import HOSTILE

import colab_keras_bg as bg
from colab_keras_bg.storage.lock import DirectoryLock

SETTINGS = {"console": "off", "resources": "off", "report": "off"}


class Text(HTMLParser):
    """The text of a card, and its elements."""

    def __init__(self, card: str) -> None:
        super().__init__()
        self.text, self.elements = "", set[str]()
        self.feed(card)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_before_while_and_after(tmp_path: Path) -> None:
    """
    A run shows where it stands before it is open, while it trains, and when
    it is done, and which commands tell more.
    """
    run = bg.Run(tmp_path / "my run", **SETTINGS)  # type: ignore[arg-type]
    assert "not begun" in Text(run._repr_html_()).text
    with run:
        run.go_on_from(0, epoch=0)
        run.training_begins()
        run.at_step(1234, epoch=3)
        found = Text(run._repr_html_())
        assert "1,234" in found.text
        assert "nothing yet" in found.text
        assert f"!colab-keras-bg status '{tmp_path}/my run'" in found.text
    found = Text(run._repr_html_())
    assert "done" in found.text
    assert found.elements <= {"div", "b", "span", "table", "tr", "td", "code"}


def test_hostile_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What went wrong is shown as text, whatever it says.
    """
    run = bg.Run(tmp_path / "<img src=x>", **SETTINGS)  # type: ignore[arg-type]
    monkeypatch.setattr(run.saves, "problem", HOSTILE)
    found = Text(run._repr_html_())
    assert "<script>alert(1)</script>" in found.text
    assert "<img src=x>" in found.text
    assert not {"script", "img"} & found.elements


def test_damaged_signs(tmp_path: Path) -> None:
    """
    It shows itself, too, when its records are damaged.
    """
    (tmp_path / "status.json").write_text("{")
    run = bg.Run(tmp_path, **SETTINGS)  # type: ignore[arg-type]
    assert "not begun" in Text(run._repr_html_()).text
    with bg.Run(tmp_path / "run", **SETTINGS):  # type: ignore[arg-type]
        pass
    (tmp_path / "run/status.json").write_text("{")
    run = bg.Run(tmp_path / "run", **SETTINGS)  # type: ignore[arg-type]
    assert "done" in Text(run._repr_html_()).text


@pytest.mark.parametrize("state", ["done", "interrupted", "running"])
def test_run_that_this_process_has_not_opened(
    state: str, tmp_path: Path
) -> None:
    """
    What is known of a run is told by whoever looks at it: its step, and which
    step is safe.
    """
    lock = None
    with attempt(
        tmp_path, exit_status=0 if state == "done" else -9
    ) as directory:
        commit(directory, 900)
    beat(tmp_path, step=1080, expected_steps=1200, heartbeat=time.time())
    if state == "running":
        lock = DirectoryLock.acquire(tmp_path, holder="another")
    run = bg.Run(tmp_path, **SETTINGS)  # type: ignore[arg-type]
    card = run._repr_html_()
    text = Text(card).text
    assert state in text
    assert "1,080  of 1,200" in text
    assert "committed" in text
    assert "step 900, " in text
    assert "on this machine" in text
    assert "width:90.0%" in card
    if lock is not None:
        lock.release()
