"""Views: what people see, in a terminal and in Jupyter. What is shown is not trusted."""

import re
from html.parser import HTMLParser

import pytest

import ibidem
from ibidem import Guard, Pure, Read
from ibidem.report import views, words
from ibidem.report.statistics import Stats, ToolStats
from ibidem.report.views import Bar, Long, Table

TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "details", "summary", "pre", "code"}
ATTRIBUTES = {"style", "class", "role", "aria-label", "aria-hidden", "title", "scope"}

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><iframe src=http://example.org></iframe>",
    '" onmouseover="alert(1)" style="background:url(http://example.org)',
    "' onclick='alert(1)",
    "</pre></details><style>*{display:none}</style>",
    "<!--",
    "&lt;script&gt;",
    "<svg/onload=alert(1)>" * 400,
]


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.styles, self.open, self.strange = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        if tag not in TAGS:
            self.strange.append(tag)
        self.strange += [f"{tag} {name}" for name, _ in attrs if name not in ATTRIBUTES]
        self.styles += [value for name, value in attrs if name == "style"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.strange.append(f"/{tag}")

    def handle_comment(self, data):
        self.strange.append("comment")

    handle_decl = unknown_decl = handle_pi = handle_comment


def strange(markup):
    """What a page holds that no view may: unknown tags and attributes, unbalanced tags, resources from elsewhere."""
    page = _Page()
    page.feed(markup)
    page.close()
    return [
        *page.strange,
        *page.open,
        *(style for style in page.styles if re.search(r"url|import|expression|//", style)),
    ]


class _Odd:
    """A value whose representation is the given text."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    def __deepcopy__(self, memo):
        return self


def hostile_guard(text):
    """A guard that has met a hostile tool, arguments, value, conversation, reason and layer."""

    class Layer:
        async def __call__(self, call, inner):
            return await inner(call)

        def __repr__(self):
            return text

    guard = Guard(inside=[Layer()], default=Read(identity=text))

    def get(key):
        return _Odd(text)

    get.__name__ = text
    with guard.conversation(text):
        ibidem.wrap(get, guard)(text)
    guard._reporter._recorder.not_remembered(text, text)
    return guard


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_hostile_names_arguments_and_values_are_shown_and_not_obeyed(text):
    guard = hostile_guard(text)
    assert len(guard.entries()) == 1
    for view in (guard, guard.stats(), guard.entries(), guard.explain()):
        assert strange(view._repr_html_()) == []


FORBIDDEN = [
    "<script></script>",
    "<style></style>",
    "<img>",
    "<a></a>",
    '<td onclick="x"></td>',
    '<div style="background:url(x)"></div>',
    '<div style="background:image(//example.org)"></div>',
    "</td>",
    "<td>",
    "<!-- x -->",
]


@pytest.mark.parametrize("markup", FORBIDDEN)
def test_the_look_for_what_no_view_may_hold_can_fail(markup):
    assert strange(markup)


def test_a_hostile_text_is_there_to_be_read():
    assert "&lt;img src=x onerror=alert(1)&gt;" in hostile_guard(HOSTILE[1]).entries()._repr_html_()


def test_dollar_signs_are_not_typeset_as_formulas():
    assert 'class="ibidem tex2jax_ignore mathjax_ignore"' in Guard().stats()._repr_html_()


def test_what_a_terminal_would_obey_is_spelled_out():
    guard = hostile_guard("a\x1b[2J\r\nb\u202ec\ud800")
    for view in (guard.stats(), guard.entries(), guard.explain()):
        text = repr(view)
        assert text.replace("\n", "").isprintable()
        assert "\\x1b[2J" in text
        view._repr_html_().encode()


def test_a_value_whose_repr_fails_is_still_shown():
    class Broken:
        def __repr__(self):
            raise KeyError("no")

    guard = Guard(effects={"get": Read(identity="g")})
    ibidem.wrap(_named("get", lambda key: Broken()), guard)("a")
    assert "<Broken, whose repr raises KeyError>" in repr(guard.entries())


def test_long_values_are_folded_on_a_page_and_cut_in_a_terminal():
    guard = Guard(effects={"get": Read(identity="g")})
    ibidem.wrap(_named("get", lambda key: "x" * 1000), guard)("a")
    entries = guard.entries()
    assert "<details>" in entries._repr_html_() and "x" * 1000 in entries._repr_html_()
    assert max(map(len, repr(entries).splitlines())) < 200 and "…" in repr(entries)


def test_a_huge_value_does_not_make_a_huge_page():
    table = Table("t", ["value"], [[Long("x" * 10_000_000)]])
    assert len(table.html()) < 30_000
    assert "10,000,000 characters in all" in table.html()


def test_a_short_value_is_not_folded():
    assert "<details>" not in Table("t", ["value"], [[Long("short")]]).html()


def test_of_many_rows_the_first_are_drawn_and_the_rest_is_counted():
    guard = Guard(effects={"get": Read(identity="g")})
    get = ibidem.wrap(_named("get", lambda key: key), guard)
    for key in range(views.ROWS + 7):
        get(key)
    entries = guard.entries()
    assert len(entries) == views.ROWS + 7
    assert entries._repr_html_().count("<tr") == views.ROWS + 1
    assert "and 7 more" in entries._repr_html_() and repr(entries).endswith("and 7 more")


def test_numbers_stand_to_the_right():
    table = Table("t", ["name", "n"], [["a", 5], ["b", 12_000]])
    assert table.html().count("text-align:right") == 3
    assert table.text().splitlines()[3:] == ["a         5", "b     12000"]
    gaps = Table("t", ["name", "n"], [["a", 5], ["b", ""], ["c", 12_000]])
    assert gaps.html().count("text-align:right") == 4, "a cell without content is no text"


def test_a_secret_argument_is_called_one():
    guard = Guard({"get": Read(secret=["pin"])})

    def get(key, pin):
        return key

    guard.run(get, "a", "hunter2")
    assert re.search(r'{"key":"a","pin":"\[secret [0-9a-f]{8}\]"}  ', repr(guard.entries()))
    assert "u0000" not in guard.entries()._repr_html_()


def test_an_empty_table_says_so():
    assert "nothing yet" in Guard().entries()._repr_html_()
    assert strange(Guard().entries()._repr_html_()) == []
    for empty in (Guard().stats(), Guard().last_turn()):
        assert "nothing yet" not in repr(empty) + empty._repr_html_(), "the sentence has said so"
    assert repr(Guard().stats()) == "ibidem: no calls yet"


def test_colours_are_the_page_s_own():
    """Text and background are inherited, so that both themes read well; only the bars bring colours."""
    page = _Page()
    page.feed(hostile_guard("t").stats()._repr_html_())
    own = [style for style in page.styles if re.search(r"(?<![-\w])(color|background):(?!inherit|transparent)", style)]
    assert own
    assert all(any(fill in style for fill in views._FILLS.values()) for style in own)


def test_a_bar_says_in_words_what_it_shows_in_colours():
    drawn = Bar({"ran": 3, "memo": 6, "shared": 1}, 20).html()
    assert 'aria-label="3 ran, 6 memo, 1 shared"' in drawn and 'role="img"' in drawn
    assert re.findall(r"width:([\d.]+)%", drawn) == ["15.00", "30.00", "5.00"]
    assert Table("t", ["", "ran"], [[Bar({"ran": 1}, 1), 1]]).html().count(views._FILLS["ran"]) == 2, "bar and legend"


def test_a_bar_is_for_pages_only():
    guard = hostile_guard("t")
    assert "aria-label" in guard.stats()._repr_html_()
    assert (
        repr(guard.stats()).splitlines()[1].split()
        == "tool calls ran memo shared failed stopped saved s not remembered".split()
    )


def stats(**counts):
    return Stats({"get": ToolStats(**counts)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (stats(), "no calls yet"),
        (stats(calls=1, ran=1), "1 of 1 call reached a tool"),
        (stats(calls=3, ran=3, failed=2), "3 of 3 calls reached a tool (2 failed)"),
        (
            stats(calls=25, ran=12, memo=13, saved_seconds=1.23),
            "12 of 25 calls reached a tool; 13 were answered from the memo, 1.2 s saved",
        ),
        (
            stats(calls=4, ran=1, memo=1, shared=1, stopped=1, saved_seconds=0.25),
            "1 of 4 calls reached a tool; 1 was answered from the memo, 1 shared another call's run, 1 was interrupted, 250 ms saved",
        ),
    ],
    ids=["none", "one", "failed", "memo", "all"],
)
def test_a_sentence_says_what_came_of_the_calls(given, said):
    assert given.headline == said
    assert repr(given).splitlines()[0] == f"ibidem: {said}"
    assert words.plain(said).replace("'", "&#x27;") in given._repr_html_()


def test_the_total_stands_last_where_there_are_several_tools():
    guard = Guard(effects={"get": Pure(), "put": Pure()})
    for name in ("get", "put"):
        ibidem.wrap(_named(name, lambda key: key), guard)("a")
    assert repr(guard.stats()).splitlines()[-1].split()[:2] == ["total", "2"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "less than 1 ms"), (0.0012, "1 ms"), (0.9996, "1.0 s"), (59, "59.0 s"), (600, "10 min")]
)
def test_times_are_written_as_people_say_them(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"),
    [(1, "1 byte"), (900, "900 bytes"), (16_978, "16.6 KB"), (64 * 2**20, "64.0 MB"), (2**31, "2.0 GB")],
)
def test_sizes_are_written_as_people_say_them(size, said):
    assert words.amount(size) == said


def test_the_overview_of_a_guard_holds_its_layers_stats_and_declarations():
    page = hostile_guard("t")._repr_html_()
    assert "Memo(" in page and "reached a tool" in page and "what is declared" in page


def _named(name, function):
    function.__name__ = name
    return function
