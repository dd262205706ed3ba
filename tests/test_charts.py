"""Plots are well-formed SVG without styles or scripts, and draw numbers where they belong."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from inference.service.web.charts import (
    Scale,
    bar,
    columns,
    count_ticks,
    line,
    mark,
    path,
    sparkline,
    svg,
    text,
    ticks,
    whisker,
)

SVG = "{http://www.w3.org/2000/svg}"


def every_element() -> Markup:
    """A plot with one of each."""
    parts = [
        line(0, 1, 2.25, 3, "axis"),
        path([(0, 0), (1, 1)], "k"),
        bar(0, 0, 5, 5, "f0"),
        mark("s3", 5, 5, "c3"),
        text(1, 2, "a", "end"),
    ]
    return svg("Name", "What it shows", 100, [*parts, whisker((0, 5), (9, 5), "k"), whisker((5, 0), (5, 9), "k"), path([], "k")])


@pytest.mark.parametrize(
    "drawn", [every_element(), sparkline([3, 0, 5], "t"), columns([0, 2, 1], "t"), sparkline([0], "t"), columns([0], "t")]
)
def test_it_is_xml_without_style_or_script(drawn: Markup):
    """The content security policy forbids both; what a plot says to those who cannot see it is its title."""
    root = ET.fromstring(drawn)
    assert (root.tag, root.get("role"), root[0].tag) == (f"{SVG}svg", "img", f"{SVG}title")
    for element in root.iter():
        assert element.tag not in (f"{SVG}script", f"{SVG}style", f"{SVG}foreignObject")
        assert not [name for name in element.attrib if name == "style" or name.startswith("on")]


def test_a_plot_has_a_name_and_a_description():
    """For a screen reader."""
    root = ET.fromstring(every_element())
    assert [(one.tag.removeprefix(SVG), one.text) for one in root[:2]] == [("title", "Name"), ("desc", "What it shows")]


def test_words_are_escaped():
    """A district's name is what a stranger wrote."""
    drawn = svg("<b>", "\"&'", 10, [text(0, 0, "<script>alert(1)</script>")])
    assert "<script" not in drawn and "<b>" not in drawn
    assert ET.fromstring(drawn)[2].text == "<script>alert(1)</script>"


def test_a_linear_scale():
    """The middle is in the middle; outside is at the border."""
    scale = Scale(0, 10, 100, 200)
    assert [scale(value) for value in (0, 5, 10, -3, 12)] == [100, 150, 200, 100, 200]
    assert Scale(4, 4, 0, 10)(4) == 5


def test_a_logarithmic_scale():
    """Each power of ten is as far as the next; nothing is drawn at minus infinity."""
    scale = Scale(0.01, 10, 0, 300, is_log=True)
    assert [round(scale(value)) for value in (0.01, 0.1, 1, 10, 0, 99)] == [0, 100, 200, 300, 0, 300]


def test_a_scale_may_run_upwards():
    """SVG counts from the top."""
    assert Scale(0, 4, 100, 0)(1) == 75


def test_ticks_are_round():
    """From nought to the first that is enough."""
    assert ticks(7) == [0, 2, 4, 6, 8]
    assert ticks(30) == [0, 10, 20, 30]
    assert ticks(0.05) == [0, 0.02, 0.04, 0.06]
    assert ticks(0) == [0, 1]
    assert (count_ticks(0), count_ticks(3)) == ([0, 1], [0, 1, 2, 3])


@given(st.floats(0.001, 1e6))
def test_ticks_cover_what_is_drawn(high: float):
    """Few of them, all apart."""
    found = ticks(high)
    assert found[0] == 0 and found[-1] >= high * (1 - 1e-9)
    assert 2 <= len(found) <= 6
    assert sorted(set(found)) == found


def test_the_last_day_stands_out():
    """By its fill, besides its place."""
    drawn = ET.fromstring(columns([1, 2, 3], "t"))
    assert [one.get("class") for one in drawn.iter(f"{SVG}rect")] == ["b0", "b0", "f0"]


def test_numbers_are_short():
    """A tenth of a unit is finer than any screen shows."""
    assert 'd="M0 1L2.2 3"' in line(0, 1, 2.249, 3, "")
