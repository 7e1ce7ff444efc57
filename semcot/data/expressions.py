"""Arithmetic without a story."""

import random
from collections.abc import Iterator

from semcot.data.drawing import draw
from semcot.data.equations import RESULTS, Equations, worked_problem
from semcot.data.language import expand
from semcot.data.stories import STORIES, draw_numbers, of_length

_SIGNS = {
    "+": "[+|plus|and]",
    "-": "[-|minus|less|without]",
    "*": "[*|times|groups of]",
    "/": "[/|divided by|shared among]",
}


def _write(equations: Equations, values: dict[str, int], rng: random.Random) -> dict[str, str]:
    """All in parentheses, "(57 - 19) plus 38", or step by step, "57 less 19, then that + 38"."""
    nested = rng.random() < 0.5
    texts = {name: str(value) for name, value in values.items()}
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
