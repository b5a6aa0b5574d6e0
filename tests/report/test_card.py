"""How a run shows itself in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_page import HOSTILE

import colab_keras_bg as bg

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
    assert "not open" in Text(run._repr_html_()).text
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
    assert "not open" in Text(run._repr_html_()).text
