"""
The page on which a person asks a question and sees it answered directly, with implicit tokens and with written
reasoning: Gradio around a [`Comparison`]. Needs `.[app]`.
"""

import math
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

import gradio as gr

from semcot.serving.comparison import Comparison, TimedAnswer

LONGEST = 1000  # characters of a question
REFRESH = 250  # milliseconds of written reasoning; shown after each token, it took a third longer
TITLES = {
    "direct": ("Direct", "answers at once"),
    "semcot": ("SemCoT", "thinks in implicit tokens, then answers"),
    "cot": ("Explicit chain of thought", "writes its reasoning, then answers"),
}


class Example(NamedTuple):
    """A problem of a real set, with its gold answer."""

    source: str
    question: str
    answer: str


EXAMPLES = (
    Example(
        "MultiArith",
        "Isabel was selling her necklaces at a garage sale. She sold 3 bead necklaces and 3 gem stone necklaces. If "
        "each necklace cost 6 dollars, how much money did she earn?",
        "36",
    ),
    Example(
        "GSM8K",
        "Carly collected 7 starfish with 5 arms each and one seastar with 14 arms. How many arms do the animals she "
        "collected have in total?",
        "49",
    ),
    Example(
        "Coin flips",
        "Q: A coin is heads up. shayne-patrick flips the coin. lindarose does not flip the coin.  Is the coin still "
        "heads up?",
        "no",
    ),
    Example(
        "AddSub",
        "Joan has 9 blue balloons , Sally has 5 blue balloons , and Jessica has 2 blue balloons . How many blue "
        "balloons do they have in total ?",
        "16",
    ),
)
GOLD = {example.question: example.answer for example in EXAMPLES}

INTRODUCTION = """# SemCoT
The same frozen language model answers three times: at once, after {num_thoughts} implicit tokens that a small generator
thinks in parallel, and after writing its reasoning out."""
EXAMPLES_NOTE = """The first three are of kinds that the default checkpoint was trained on. The one from AddSub is not:
SemCoT answers it wrongly, 14 instead of 16, and does not say so."""
NOTES = """**Times** are those of this machine ({device}). One answer at a time is computed, so that each is timed
alone: the written reasoning pauses for the two others, and its clock stands still meanwhile.

**What the thoughts say**: of each implicit token, in the order in which the base reads them, the nearest word of its
vocabulary and that word's probability. They spell the condensed reasoning, and nothing more behind its end.

**Checkpoint** {checkpoint}; **base** {base}. Answers are greedy, and may be wrong."""
CSS = """
.html-container {padding: 0 !important}
.answer {border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px 14px; min-height: 130px;
  background: var(--block-background-fill)}
.answer h3 {margin: 0; font-size: 1rem}
.answer p {margin: 8px 0 6px; white-space: pre-wrap; overflow-wrap: anywhere}
.answer .grey {display: block; opacity: .7; font-size: .85rem; font-variant-numeric: tabular-nums}
.answer .short {font-size: 1.15rem; font-weight: 600}
.answer .right {color: #15803d; opacity: 1; font-weight: 600}
.answer .wrong {color: #b91c1c; opacity: 1; font-weight: 600}
.dark .answer .right {color: #4ade80}
.dark .answer .wrong {color: #f87171}
.thoughts {display: flex; flex-wrap: wrap; gap: 6px; margin: 4px 0 0; padding: 0; list-style: none}
.thoughts li {margin: 0; padding: 3px 8px; border-radius: 6px; text-align: center; min-width: 40px;
  background: color-mix(in srgb, var(--primary-500) calc(var(--score) * 30%), transparent);
  border: 1px solid var(--border-color-primary)}
.thoughts b {display: block}
"""


def card(name: str, text: str = "", cost: str = "", verdict: str = "", thoughts: str = "") -> str:
    """One of the three answers as HTML."""
    title, subtitle = TITLES[name]
    kind, text = ("", text.strip()) if name == "cot" else (' class="short"', " ".join(text.split()))
    return (
        f'<section class="answer" data-method="{name}"><h3>{title}</h3><span class="grey">{subtitle}</span>'
        f'<p{kind}>{escape(text)}</p><span class="grey cost">{escape(cost)}</span>'
        f'<span class="grey {verdict.partition(",")[0]}">{escape(verdict)}</span>{thoughts}</section>'
    )


def thoughts_list(thoughts: list[tuple[str, float]]) -> str:
    """The implicit tokens as HTML: the nearest word of each, and its probability."""
    items = (
        f'<li style="--score: {score:.2f}"><b>{escape(word.strip() or repr(word))}</b>'
        f'<span class="grey">{score:.2f}</span></li>'
        for word, score in thoughts
    )
    return f'<p class="grey">What the thoughts say</p><ol class="thoughts">{"".join(items)}</ol>'


class Page:
    """What the page does, without Gradio's components: each function returns what its card shows."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.num_thoughts = comparison.model.config.num_thoughts

    def ask(self, question: str, visitor: dict[str, int]) -> tuple[str, str, str]:
        """Cards that wait; `gr.Error` for a question that cannot be asked. Counts the visitor's questions."""
        self._check(question)
        visitor["asked"] += 1
        return tuple(card(name, "…") for name in TITLES)

    def direct(self, question: str) -> str:
        self._check(question)
        return self._card("direct", question, self.comparison.answer("direct", question))

    def semcot(self, question: str) -> Iterator[str]:
        """First the answer, then with what the thoughts say."""
        self._check(question)
        answer = self.comparison.answer("semcot", question)
        yield self._card("semcot", question, answer)
        yield self._card("semcot", question, answer, thoughts_list(self.comparison.read_thoughts(question)))

    def cot(self, question: str, visitor: dict[str, int]) -> Iterator[str]:
        """Every `REFRESH` milliseconds, until the visitor asks something else."""
        self._check(question)
        number, shown = visitor["asked"], -math.inf
        for part in self.comparison.stream("cot", question):
            if visitor["asked"] != number:
                return
            if part.milliseconds - shown >= REFRESH:
                yield self._card("cot", question, part, is_whole=False)
                shown = part.milliseconds
        yield self._card("cot", question, part)

    def _check(self, question: str) -> None:
        try:
            if len(question) > LONGEST:
                raise ValueError(f"The question has {len(question):,} characters; here it may have {LONGEST:,}.")
            self.comparison.check(question)
        except ValueError as error:
            # Shown as HTML.
            raise gr.Error(escape(str(error)), print_exception=False) from error

    def _card(self, name: str, question: str, answer: TimedAnswer, thoughts: str = "", is_whole: bool = True) -> str:
        cost = f"{answer.num_tokens} tokens · {answer.milliseconds:,.0f} ms"
        if name == "semcot":
            cost = f"{self.num_thoughts} implicit and {cost}"
        text = f"{answer.text.rstrip()} …" if answer.cut_off else answer.text
        gold = GOLD.get(question, "") if is_whole else ""
        verdict = self.comparison.verdict(name, answer.text, gold)
        return card(name, text, cost, f"wrong, it is {gold}" if verdict == "wrong" else verdict, thoughts)


def build_page(comparison: Comparison, checkpoint: str) -> gr.Blocks:
    """The page, ready to `launch`. `checkpoint` is what it is called there."""
    page, model = Page(comparison), comparison.model
    with gr.Blocks(title="SemCoT", analytics_enabled=False) as blocks:
        gr.Markdown(INTRODUCTION.format(num_thoughts=page.num_thoughts))
        question = gr.Textbox(
            label="Question", lines=2, max_lines=6, max_length=LONGEST, placeholder="A story with numbers …"
        )
        button = gr.Button("Answer", variant="primary")
        gr.Examples(
            [[example.question] for example in EXAMPLES],
            question,
            cache_examples=False,
            example_labels=[example.source for example in EXAMPLES],
        )
        gr.Markdown(EXAMPLES_NOTE)
        with gr.Row():
            cards = []
            for name in TITLES:
                with gr.Column(min_width=280):
                    cards.append(gr.HTML(card(name)))
        gr.Markdown(
            NOTES.format(
                device=model.device,
                checkpoint=checkpoint,
                base=model.config.base_model_name_or_path or "its own",
            )
        )
        visitor = gr.State({"asked": 0})
        # Each has a function of its own: Gradio runs one call of a function at a time, and these side by side.
        quietly = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "multiple"}
        asked = gr.on([button.click, question.submit], page.ask, [question, visitor], cards, **quietly)
        asked.success(page.direct, question, cards[0], **quietly)
        asked.success(page.semcot, question, cards[1], **quietly)
        asked.success(page.cot, [question, visitor], cards[2], **quietly)
    return blocks.queue(max_size=64)


def launch_options() -> dict:
    """How the page looks; nothing of it comes from another host."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return {"theme": gr.themes.Default(**fonts), "css": CSS, "footer_links": [], "run_history": False}
