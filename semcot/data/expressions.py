"""Arithmetic without a story."""

import random
from collections.abc import Iterator, Mapping
from fractions import Fraction

from semcot.data.drawing import draw
from semcot.data.equations import RESULTS, Equations, Number, parse_chain, worked_problem, written
from semcot.data.language import expand
from semcot.data.stories import STORIES, check_steps, draw_numbers, of_length, result_told

_SIGNS = {
    "+": "[+|plus|and]",
    "-": "[-|minus|less|without]",
    "*": "[*|times|groups of]",
    "/": "[/|divided by|shared among]",
}


def _write(equations: Equations, values: Mapping[str, Number], rng: random.Random) -> dict[str, str]:
    """All in parentheses, "(57 - 19) plus 38", or step by step, "57 less 19, then that + 38"."""
    nested = rng.random() < 0.5
    texts = {name: written(value) for name, value in values.items()}
    steps = []
    for i, (left, operation, right) in enumerate(equations):
        steps.append(f"{texts[left]} {expand(_SIGNS[operation], rng)} {texts[right]}")
        texts[RESULTS[i]] = f"({steps[-1]})" if nested else "that"
        if i and not nested:
            texts[RESULTS[i - 1]] = "the first"
    text = steps[-1] if nested else ", then ".join(steps)
    question = rng.choice(("What is {}?", "How much is {}?", "{} = ?", "{}")).format(text)
    return worked_problem(question, equations, values)


def arithmetic_expressions(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """The arithmetic of the stories without words around it, "(57 - 19) plus 38": the same practice for less compute.

    A family of stories lends its equations and the size of its numbers. Families of more steps, and those that add to a
    result or subtract from one, come more often, since these are the hardest to learn. Arguments, columns and errors as
    for [`semcot.data.arithmetic_stories`].
    """
    rng = random.Random(seed)
    stories = of_length(STORIES, steps)
    weights = [
        len(story.equations) + 3 * sum(step.operation in "+-" for step in story.equations[1:]) for story in stories
    ]

    def make() -> dict[str, str]:
        equations = rng.choices(stories, weights)[0].equations
        return _write(equations, draw_numbers(equations, rng), rng)

    yield from draw(make, num_samples, split)


def _draw_terms(equations: Equations, rng: random.Random) -> dict[str, Number]:
    """Two numbers of up to five digits, or more of up to three; some are decimals, and every result is above 0."""
    digits, decimals = (5, rng.choice((0, 0, 0, 1, 2, 2, 3))) if len(equations) == 1 else (3, rng.choice((0, 1)))

    def term() -> Number:
        places = decimals if rng.random() < 0.8 else rng.randint(0, decimals)
        length = max(places + (rng.random() < 0.8), rng.randint(1, digits))
        whole = rng.randint(10 ** (length - 1), 10**length - 1)
        return Fraction(whole, 10**places) if places else whole

    while True:
        values = {name: term() for name in "abcd"[: len(equations) + 1]}
        for name, equation in zip(RESULTS, equations, strict=False):
            if not (result := result_told(equation, values)):
                break
            values[name] = result
        else:
            return values


def arithmetic_sums(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 2), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Sums and differences without a story, "48097 less 684" or "What is 0.375 plus 0.25?": practice in carrying.

    Their numbers have up to five digits and three decimals; those of more than one step are shorter, so that thoughts
    can spell them. Arguments, columns and errors as for [`semcot.data.arithmetic_stories`].
    """
    check_steps(steps)
    rng = random.Random(seed)

    def make() -> dict[str, str]:
        count = rng.randint(*steps)
        equations = parse_chain(" ".join(["a", *(f"{rng.choice('+-')} {name}" for name in "bcd"[:count])]))
        return _write(equations, _draw_terms(equations, rng), rng)

    yield from draw(make, num_samples, split)
