"""Arithmetic as in school books, told from the scenes of school.txt in many voices."""

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from semcot.data.drawing import SPLITS, draw, in_eval
from semcot.data.equations import RESULTS, Number, worked_problem, written
from semcot.data.language import WORDS, draw_words, expand, join_clauses, polish
from semcot.data.stories import NUMBERS, Story, of_length, operands, read_stories, result_told, slots

SCENES = read_stories(Path(__file__).with_name("school.txt"), reasoned=False)
_SIZES = ((12, 5, 8), (40, 9, 12), (99, 12, 20), (900, 12, 40))  # of large numbers, factors and small ones
_DECIMALS = "ghi"


def _draw_numbers(story: Story, names: list[str], decimals: int, rng: random.Random) -> dict[str, Number]:
    """Draws numbers until what is told can be, and every result is above 0 and at most 99999."""
    large, factor, small = rng.choices(_SIZES, (3, 4, 4, 1))[0]
    thousands = rng.choice((999, 9999, 9999, 99999))
    most = 1 if rng.random() < 0.3 else min(large, 99)  # parts of one, now and then

    def number(name: str) -> Number:
        if name in _DECIMALS:
            whole = most > 1 and rng.random() < 0.1
            return rng.randint(1, most) if whole else Fraction(rng.randint(1, most * 10**decimals - 1), 10**decimals)
        if name in "AB":
            return rng.randint(thousands // 10, thousands)
        highest = factor if name in "klm" else small if name in "stu" else min(large, 99) if name in "ef" else large
        return rng.randint(2, highest)

    chains = [story.equations, *(part for part in story.conditions if {*names, *RESULTS}.issuperset(operands(part)))]
    while True:
        given = {name: number(name) for name in names}
        solved = []
        for chain in chains:
            values = dict(given)
            for name, equation in zip(RESULTS, chain, strict=False):
                if not (result := result_told(equation, values)):
                    break
                values[name] = result
            else:
                solved.append(values)
        if len(solved) == len(chains) and max(solved[0].values()) <= 99999:
            return solved[0]


def _arrange(facts: list[str], aside: list[str], question: str, rng: random.Random) -> str:
    """Facts and question as sentences, in one sentence, joined now and then, or the question first."""
    how = rng.random()
    told = " and ".join(facts)
    asks = (
        question.startswith("how ")
        and " if " not in question
        and re.search(r" (?:is|are|was|were|has|have|do|does|did|can|must)\b", question)
    )
    if asks and how < 0.25 and not re.search(r"\bwill\b", told):
        return f"{question} if {told}?" if how < 0.1 and len(told) < 120 else join_clauses(facts, aside, question, rng)
    if rng.random() < 0.12:
        question = f"{rng.choice(('so', 'now', 'then', 'in that case,', 'tell me,'))} {question}"
    if how < 0.4 and len(told) < 150:
        facts = [", and ".join(facts)]
    elif how < 0.45:
        facts = [", ".join(facts)]
    return ". ".join([facts[0], *aside, *facts[1:], question]) + "?"


def tell_lesson(story: Story, rng: random.Random) -> dict[str, str]:
    """A problem of this scene: question, reasoning, condensed_reasoning, answer."""
    needed = {*operands(story.equations)} - {*RESULTS}
    facts = [text for text, always in story.facts if always or needed & slots(text) or rng.random() < 0.4]
    text = " ".join([*facts, story.question])
    names = sorted(needed | slots(text) & {*NUMBERS})
    values = _draw_numbers(story, names, 2 if "$" in text else rng.choice((1, 1, 2, 2, 3)), rng)
    told = {name: written(value) for name, value in values.items()}
    if "$" in text:  # as prices are written, which the reasoning shortens: 4.50 is 4.5
        told |= {name: f"{float(values[name]):.2f}" for name in values.keys() & {*_DECIMALS} if "." in told[name]}
    filled = draw_words(story.kinds, story.words, rng) | told
    aside = [rng.choice(WORDS.asides)] if "{n}" in facts[0] and rng.random() < 0.05 else []
    facts, aside, (question,) = (
        [expand(text, rng).format_map(filled) for text in texts] for texts in (facts, aside, [story.question])
    )
    question = polish(_arrange(facts, aside, question, rng))
    if rng.random() < 0.1:  # as tokenised corpora have it
        question = re.sub(r"([.,?]|'s)(?= |$)", r" \1", question).replace("$", "$ ")
    return worked_problem(question, story.equations, values)


def arithmetic_school(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Problems as in school books, each of a scene drawn evenly, with numbers to five digits and with decimals.

    Arguments, columns and errors as for [`semcot.data.arithmetic_stories`], but the two splits share no scene, and so
    no wording; the reasoning is the equations alone.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}")
    rng = random.Random(seed)
    scenes: dict[object, list[Story]] = {}
    for story in of_length(SCENES, steps):
        if in_eval(story.facts[0][0]) == (split == "eval"):
            scenes.setdefault(story.facts, []).append(story)
    told = list(scenes.values())
    yield from draw(lambda: tell_lesson(rng.choice(rng.choice(told)), rng), num_samples)
