"""Diagrams of what waits for what: right, harmless, and left out where they would be no picture."""

import re
from xml.etree import ElementTree as ET

from ibidem import Plan
from ibidem.report.diagram import MOST, Arrow, Box, diagram


def lefts(svg):
    """The left edge of each box, by its title."""
    root = ET.fromstring(svg)
    return {g.findtext("title"): float(g.find("rect").get("x")) for g in root.iter("g") if g.find("rect") is not None}


def test_a_box_stands_right_of_everything_that_it_waits_for():
    arrows = [Arrow(0, 1), Arrow(1, 3), Arrow(0, 3), Arrow(2, 3)]
    found = lefts(diagram("", [Box(name) for name in "abcd"], arrows))
    assert found["a "] == found["c "] < found["b "] < found["d "]


def test_an_arrow_past_other_boxes_goes_between_the_rows():
    boxes = [Box(name) for name in "abc"]
    (straight, past) = re.findall(r'<path d="([^"]*)" fill="none"', diagram("", boxes, [Arrow(0, 1), Arrow(0, 2)]))[:2]
    assert "L" not in straight  # b and c are both in the second column
    past = re.findall(r'<path d="([^"]*)" fill="none"', diagram("", boxes, [Arrow(0, 1), Arrow(1, 2), Arrow(0, 2)]))[2]
    assert "L" in past
    (lane,) = {float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", past)}
    assert lane > 2 + 34  # below the boxes of the first row, which end there


def test_what_tools_are_called_is_text_and_nothing_else():
    svg = diagram("<t>", [Box("<script>x</script>", "\u202e"), Box('"&')], [Arrow(0, 1, "<b>\x1b")])
    assert "<script" not in svg
    assert "<b>" not in svg
    root = ET.fromstring(svg)
    assert [t.text for t in root.iter("text")] == ["<script>x</script>", "\\u202e", '"&']


def test_what_would_be_no_picture_is_none():
    two, many = [Box("a"), Box("b")], [Box("x")] * (MOST + 1)
    assert diagram("", two, [Arrow(0, 1)])
    assert diagram("", two, []) == diagram("", two, [Arrow(0, 1), Arrow(1, 0)]) == ""
    assert diagram("", many, [Arrow(0, 1)]) == ""


def test_a_plan_draws_what_needs_what():
    plan = Plan()
    place = plan.call(lambda city: city, city="Paris")
    sky = plan.call(lambda at, when: at, at=place["lat"], when=[place["now"]])
    plan.call(lambda: 1).after(sky).when(sky, "exists")
    drawn = plan._repr_html_()
    root = ET.fromstring(re.search(r"<svg.*</svg>", drawn, re.DOTALL).group())
    assert [
        (g.findtext("title"), g.find("path").get("stroke-dasharray")) for g in root.iter("g") if g.find("rect") is None
    ] == [
        ("$step__lambda_.lat", None),
        ("$step__lambda__2", None),
    ]
