"""The page as text: structure, escaping, offsets, errors, plots."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from chestx_jax.evaluation.page import Cell, Evidence, Item, PageError, Span, Table, Text, render
from chestx_jax.evaluation.page.parts import VERDICTS
from chestx_jax.evaluation.page.plots import Point, Series, calibration, dots
from chestx_jax.rewards.evidence import SENTENCES
from tests.evaluation.page_cases import ATTACKS, hostile, items


class Elements(HTMLParser):
    """All elements with their attributes, and the text of the scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
            self.in_script = True

    def handle_endtag(self, tag):
        self.in_script = False

    def handle_data(self, data):
        if self.in_script:
            self.scripts[-1] += data


def data_of(page: str) -> dict:
    return json.loads(Elements(page).scripts[0])


def one(**changes) -> Item:
    case = items(1)[0]
    return Item(**{**vars(case), **changes})


def test_tables_warnings_and_cases_are_there():
    table = Table("Accuracy", ("Task", "Share"), [["binary", Cell("0.5", "bad", "why")]], "a note")
    page = render("A run", [table], [], items(3), warnings=["mind this"], subtitle="3 samples")
    for words in ("A run", "3 samples", "mind this", "Accuracy", "a note", 'title="why"'):
        assert words in page
    assert [case["id"] for case in data_of(page)["cases"]] == ["case-0", "case-1", "case-2"]


def test_parts_that_are_absent_leave_no_heading():
    page = render("A run", [], [], [])
    for words in ("Scores", "Plots", "Cases", "Read this first"):
        assert f">{words}" not in page


def test_hostile_text_adds_no_element_and_survives_as_text():
    plain = Elements(render("t", [Table("t", ("c",), [["x"]])], [], [hostile()], warnings=["w"]))
    tables = [Table(attack, (attack,), [[Cell(attack, title=attack)]], attack) for attack in ATTACKS[:1]]
    page = render(ATTACKS[1], tables, [], [hostile()], warnings=[ATTACKS[2]], subtitle=ATTACKS[4])
    assert "<script>window" not in page and "<img src=x" not in page and "<svg onload" not in page
    elements = Elements(page)
    kinds = [tag for tag, _ in elements.found if tag != "p"]
    assert kinds == [tag for tag, _ in plain.found if tag != "p"]
    assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on")]
    assert data_of(page)["cases"][0]["question"] == hostile().question.replace("\ud83e\udec1", "\U0001fac1")


def test_only_the_pages_own_script_may_run():
    page = render("t", [], [], items(1))
    elements = Elements(page)
    policy = next(
        a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(elements.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_nothing_is_fetched():
    page = render("t", [], [dots("p", ["a"], [Series("s", [Point(0.5)])], "x")], items(2))
    for _, attributes in Elements(page).found:
        for name in ("src", "href", "xlink:href"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or "")
    assert "@import" not in page and "url(http" not in page


def test_a_picture_of_two_cases_is_embedded_once():
    page = render("t", [], [], items(50))
    assert page.count("data:image/jpeg") == 2


def test_offsets_count_utf_16_units():
    text = "\U0001fac1 Lungs clear."
    reference = Text("Gold", "\U0001fac1\U0001fac1 clear")
    span = Span(2, len(text), "supported", [Evidence("e", (0, 3, 8)), Evidence("own", (-1, 2, 7))])
    page = render("t", [], [], [one(references=[reference], texts=[Text("m", text, [span])])])
    start, end, _, evidence = data_of(page)["cases"][0]["texts"][0]["spans"][0]
    units = text.encode("utf-16-le")
    assert units[2 * start : 2 * end].decode("utf-16-le") == "Lungs clear."
    assert evidence == [["e", 0, 5, 10], ["own", -1, 3, 8]]


def test_numbers_that_json_cannot_hold_are_left_out():
    text = Text("m", "x", numbers={"a": float("nan"), "b": float("inf"), "c": 0.25})
    assert data_of(render("t", [], [], [one(texts=[text])]))["cases"][0]["texts"][0]["numbers"] == {"c": 0.25}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (one(texts=[Text("m", "abc", [Span(1, 9)])]), "span 1 to 9 of 3 characters"),
        (one(texts=[Text("m", "abc", [Span(0, 3, "splendid")])]), "verdict 'splendid'"),
        (
            one(texts=[Text("m", "abc", [Span(0, 3, "supported", [Evidence("e", (7, 0, 1))])])]),
            "evidence in reference 7 of 2",
        ),
    ],
)
def test_a_case_that_cannot_be_shown_is_named(case, message):
    with pytest.raises(PageError, match="case 'case-0', text 'm'.*" + message):
        render("t", [], [], [case])


def test_two_cases_of_one_id():
    with pytest.raises(PageError, match="'case-0' is there twice"):
        render("t", [], [], [one(), one()])


def test_a_row_of_the_wrong_length():
    with pytest.raises(PageError, match=r"table 'Accuracy': 1 cells for 2 columns"):
        render("t", [Table("Accuracy", ("a", "b"), [["x"]])], [], [])


def test_every_verdict_of_the_offline_score_has_its_sign():
    page = render("t", [], [], items(1))
    assert {verdict.replace("_", " ") for verdict in SENTENCES} <= set(VERDICTS)
    script = Elements(page).scripts[1]
    for table in ("SIGNS", "MEANING"):
        body = re.search(rf"const {table} = {{(.*?)}};", script, re.DOTALL)[1]
        known = set(re.findall(r'"?([a-z ]+)"?: "', body))
        assert {name.strip() for name in known} == set(VERDICTS)
    for verdict in VERDICTS:
        assert f".{verdict.replace(' ', '-')} .words" in page


def test_plots_take_the_pages_colours_and_do_not_share_ids():
    series = [Series("model $x$ <b>", [Point(0.5, 0.4, 0.6), None]), Series("prior", [Point(0.3)] * 2, True)]
    plots = [
        dots("One", ["a & b", "c"], series, "x"),
        dots("Two", ["a", "c"], series, "x"),
        calibration("Three", [("m", [(0.2, 0.3, 5), (0.9, 0.7, 20)])], "caption"),
    ]
    page = render("t", [], plots, [])
    ids = [a["id"] for tag, a in Elements(page).found if "id" in a]
    assert len(ids) == len(set(ids))
    for plot in plots:
        assert "var(--ink)" in plot.svg and "var(--a)" in plot.svg
        assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", plot.svg)
        for used in re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', plot.svg):
            assert f'id="{used}"' in plot.svg
    assert "model $x$ &lt;b&gt;" in plots[0].svg


def test_the_same_parts_give_the_same_page():
    plot = [Series("m", [Point(0.5)])]
    pages = [render("t", [], [dots("p", ["a"], plot, "x")], items(5)) for _ in range(2)]
    assert pages[0] == pages[1]
