"""The page: what its functions return, and, in a headless Chromium where there is one, what a person sees."""

import shutil
from html import escape
from types import SimpleNamespace

import pytest
from conftest import QUESTIONS, ROOT, tiny_semcot

from semcot.evaluation import load_model
from semcot.serving.comparison import Comparison, TimedAnswer

gr = pytest.importorskip("gradio")
from semcot.serving import page as module  # noqa: E402
from semcot.serving.page import EXAMPLES, LONGEST, TITLES, Page, build_page, card, launch_options  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = {"laptop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def comparison():
    model, tokenizer = tiny_semcot()
    for part in (model, model.language_model):
        part.generation_config.suppress_tokens = [0, 1, 2]  # writes up to the limit
    return Comparison(model, tokenizer)


@pytest.fixture
def page(comparison):
    return Page(comparison)


@pytest.fixture
def visitor():
    return {"asked": 0}


def test_cards_hold_answer_tokens_and_milliseconds(page, comparison, visitor):
    waiting = page.ask(QUESTIONS[2], visitor)
    assert visitor == {"asked": 1} and all("…" in shown for shown in waiting)
    direct = page.direct(QUESTIONS[2])
    answer = comparison.answer("direct", QUESTIONS[2])
    assert escape(" ".join(answer.text.split())) in direct and f"{answer.num_tokens} tokens · " in direct
    without, shown = page.semcot(QUESTIONS[2])
    assert "3 implicit and " in without and "thoughts say" not in without
    for word, score in comparison.read_thoughts(QUESTIONS[2]):
        assert escape(word.strip() or repr(word)) in shown and f"{score:.2f}" in shown


def test_the_written_reasoning_streams_until_something_else_is_asked(page, comparison, visitor, monkeypatch):
    parts = [TimedAnswer("First, " * i, i, 100.0 * i, cut_off=i < 10) for i in range(1, 11)]
    closed = []

    def stream(name, question):
        try:
            yield from parts
        finally:
            closed.append(name)

    monkeypatch.setattr(comparison, "stream", stream)
    cards = list(page.cot(QUESTIONS[0], visitor))
    assert [shown.partition(" tokens")[0].rpartition(">")[2] for shown in cards] == ["1", "4", "7", "10", "10"]
    assert "First, …" in cards[0] and "…" not in cards[-1]
    cards = page.cot(QUESTIONS[0], visitor)
    next(cards)
    page.ask(QUESTIONS[1], visitor)
    assert list(cards) == [] and closed == ["cot", "cot"]


def test_an_answer_that_was_cut_off_says_so(page):
    assert " 7 …" not in page._card("direct", "?", TimedAnswer(" 7", 3, 1.0))
    assert "7 …" in page._card("direct", "?", TimedAnswer(" 7", 16, 1.0, cut_off=True))


def test_only_examples_are_judged(page):
    example = EXAMPLES[0]
    assert ">right<" in page._card("semcot", example.question, TimedAnswer(f" {example.answer}", 3, 1.0))
    assert f">wrong, it is {example.answer}<" in page._card("semcot", example.question, TimedAnswer(" 1", 3, 1.0))
    own = page._card("semcot", "How many?", TimedAnswer(" 1", 3, 1.0))
    assert ">right<" not in own and ">wrong" not in own


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "no question yet"),
        ("Is <thought> a word?", "the question holds &lt;thought&gt;"),
        ("x" * (LONGEST + 1), "has 1,001 characters; here it may have 1,000"),
    ],
)
def test_what_cannot_be_asked_is_said_by_each(page, visitor, question, said):
    for function in (page.ask, page.direct, page.semcot, page.cot):
        with pytest.raises(gr.Error, match=said):
            list(function(question, visitor) if function in (page.ask, page.cot) else function(question))
    assert visitor == {"asked": 0}


def test_what_models_and_people_write_is_never_html():
    shown = card("cot", "<script>alert(1)</script>", thoughts=module.thoughts_list([("<b>", 0.5), (" ", 0.25)]))
    assert "<script>" not in shown and "<b>&lt;b&gt;</b>" in shown
    assert "&#x27; &#x27;" in shown


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    import builtins
    import runpy

    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, "semcot.serving.page")
    with pytest.raises(SystemExit, match=r"needs Gradio: pip install '\.\[app\]'"):
        runpy.run_path(str(ROOT / "app.py"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def served(comparison):
    """The page on loopback, on any free port."""
    blocks = build_page(comparison, "of a test")
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    return SimpleNamespace(blocks=blocks, address=address)


@pytest.fixture(scope="module")
def site(comparison):
    site = served(comparison)
    yield site
    site.blocks.close()


def opened(browser, address, width="laptop"):
    window = browser.new_page(viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    window.hosts = set()
    window.on("request", lambda request: window.hosts.add(request.url.split("/")[2].partition(":")[0]))
    window.goto(address)
    window.wait_for_selector("section[data-method=cot]")
    return window


def ask(window, question):
    window.get_by_label("Question").fill(question)
    window.get_by_role("button", name="Answer").click()


def cost(window, name):
    """Waits for an answer's cost."""
    found = window.wait_for_selector(f"section[data-method={name}] .cost:not(:empty)", timeout=60_000)
    return found.inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_person_asks_and_sees_three_answers(browser, site, comparison, width):
    window = opened(browser, site.address, width)
    ask(window, QUESTIONS[2])
    for name in TITLES:
        assert " ms" in cost(window, name)
    thoughts = window.locator(".thoughts li")
    thoughts.first.wait_for()
    assert thoughts.count() == 3
    answer = comparison.answer("semcot", QUESTIONS[2]).text.split()
    assert window.locator("section[data-method=semcot] .short").inner_text().removesuffix("…").split() == answer
    # Nothing sticks out, and the cards stand side by side or, on a phone, under each other.
    assert window.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
    tops = {box["y"] for box in (window.locator("section").nth(i).bounding_box() for i in range(3))}
    assert len(tops) == (1 if width == "laptop" else 3)
    assert window.hosts == {"127.0.0.1"}
    window.close()


@pytest.mark.slow
def test_the_next_question_ends_the_writing_of_the_last(browser, site, comparison):
    window = opened(browser, site.address)
    ask(window, QUESTIONS[0])
    cost(window, "cot")
    ask(window, QUESTIONS[1])
    limit = comparison.methods["cot"].max_new_tokens
    window.wait_for_selector(f"section[data-method=cot] .cost:text('{limit} tokens')", timeout=60_000)
    window.wait_for_timeout(1000)
    last = escape(comparison.answer("cot", QUESTIONS[1]).text.strip()[:20], quote=False)
    assert last in window.locator("section[data-method=cot] p").inner_html()
    window.close()


@pytest.mark.slow
def test_what_cannot_be_asked_is_shown(browser, site):
    window = opened(browser, site.address)
    ask(window, "Is <thought> a word?")
    window.get_by_text("the question holds <thought>, which marks a place.").wait_for()
    assert window.locator(".cost:not(:empty)").count() == 0
    window.close()


@pytest.mark.slow
def test_the_default_checkpoint_answers_its_examples_as_the_page_says(browser):
    comparison = Comparison(*load_model(str(ROOT), device="cpu"))
    site = served(comparison)
    window = opened(browser, site.address)
    verdicts = []
    for example in EXAMPLES:
        window.get_by_role("button", name=example.source, exact=True).click()
        window.wait_for_function("text => document.querySelector('textarea').value === text", arg=example.question)
        window.get_by_role("button", name="Answer").click()
        window.wait_for_selector("section[data-method=semcot] .thoughts")
        verdicts.append(window.locator("section[data-method=semcot] :is(.right, .wrong)").inner_text())
        window.reload()
        window.wait_for_selector("section[data-method=cot]")
    assert verdicts == ["right", "right", "right", f"wrong, it is {EXAMPLES[-1].answer}"]
    assert comparison.answer("semcot", EXAMPLES[-1].question).text.strip() in module.EXAMPLES_NOTE
    window.close()
    site.blocks.close()
