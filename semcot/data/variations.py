"""Arithmetic stories in the manner of SVAMP: of all that is told, the question asks for one thing or another.

A scene of variations.txt tells more than any of its questions needs, so that the numbers that matter must be chosen by
reading. SVAMP (Patel et al., 2021, arXiv 2103.07191) varies its problems in the same way; no sentence is taken from it.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from semcot.data.drawing import draw
from semcot.data.equations import RESULTS, Equations, worked_problem
from semcot.data.language import draw_words, expand, join_clauses, polish
from semcot.data.stories import NUMBERS, Story, of_length, operands, read_stories, result_told, slots

VARIATIONS = read_stories(Path(__file__).with_name("variations.txt"), reasoned=False)


def _results(equations: Equations, values: dict[str, int]) -> dict[str, int]:
    """The values and the results, up to the first that a story cannot have: that one is 0."""
    values = dict(values)
    for name, equation in zip(RESULTS, equations, strict=False):
        values[name] = result_told(equation, values)
        if not values[name]:
            break
    return values


def _draw_numbers(variation: Story, names: list[str], rng: random.Random) -> dict[str, int]:
    """Draws numbers until what the scene tells can be, and every result is a whole number from 1 to 999."""
    large, factor, small = rng.choices(((12, 5, 8), (40, 9, 12), (99, 12, 20), (700, 12, 40)), (3, 4, 4, 2))[0]
    highest = {name: factor if name in "klm" else small if name in "stu" else large for name in names}
    told = [part for part in variation.conditions if set(names).issuperset({*operands(part)} - {*RESULTS})]
    while True:
        given = {name: rng.randint(2, high) for name, high in highest.items()}
        values = _results(variation.equations, given)
        if all(1 <= value <= 999 for value in values.values()) and all(
            all(_results(condition, given).values()) for condition in told
        ):
            return values


def tell_variation(variation: Story, rng: random.Random) -> dict[str, str]:
    """A problem of this variation: question, reasoning, condensed_reasoning, answer."""
    needed = set(operands(variation.equations)) - {*RESULTS}
    facts = [text for text, always in variation.facts if always or needed & slots(text) or rng.random() < 0.5]
    names = sorted(needed | slots(" ".join([*facts, variation.question])) & {*NUMBERS})
    values = _draw_numbers(variation, names, rng)
    filled = values | draw_words(variation.kinds, variation.words, rng)
    facts = [expand(fact, rng).format_map(filled) for fact in facts]
    question = expand(variation.question, rng).format_map(filled)
    if question.startswith("how ") and rng.random() < 0.7:
        question = join_clauses(facts, [], question, rng)
        if rng.random() < 0.2:  # SVAMP's own way: "If he ate 5 of them How many are left?"
            question = re.sub(r"(if [^.?]*), how ", r"\1 How ", question)
    else:
        question = ". ".join([*facts, question]) + "?"
    return worked_problem(polish(question), variation.equations, values)


def arithmetic_variations(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Stories in the manner of SVAMP, each of a variation drawn evenly from those of the wanted length.

    Arguments, columns and errors as for [`semcot.data.arithmetic_stories`]; the reasoning is the equations alone.
    """
    rng = random.Random(seed)
    variations = of_length(VARIATIONS, steps)
    yield from draw(lambda: tell_variation(rng.choice(variations), rng), num_samples, split)
