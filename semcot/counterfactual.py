"""What would follow from other results: practice in reading one's own thoughts.

A generator that thinks in passes can compute a step anew from the question, and then never learns to use the result
that an earlier thought already spells. Shown another result there, it can only be right by reading it.
"""

import random
import re

_STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
_OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
_MAGNITUDES = (20, 50, 99, 300, 999)
_TRIES = 100


def other_results(condensed_reasoning: str, rng: random.Random) -> tuple[str, str] | None:
    """
    Draws other results for the steps before the last.

    "15 - 12 = 3, 3 * 6 = 18, 18 + 16 = 34" may give "15 - 12 = 5, 3 * 6 = 47, 18 + 16 = 34", what is shown, and
    "15 - 12 = 3, 5 * 6 = 30, 47 + 16 = 63", where each step follows from the results shown before it.

    Returns:
        The two texts; `None` where the reasoning is no chain of whole numbers, or does not tell which numbers are
        results.
    """
    matches = [_STEP.fullmatch(step) for step in condensed_reasoning.split(", ")]
    if len(matches) < 2 or not all(matches):
        return None
    steps = [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in matches if m]
    results = [step[3] for step in steps]
    links = _links(steps)
    if links is None:
        return None
    limit = 150 if max(results) <= 150 else 500
    for _ in range(_TRIES):
        shown = [rng.randint(1, next((m for m in _MAGNITUDES if m >= value), value)) for value in results[:-1]]
        followed = []
        for (left, operation, right, _), (left_from, right_from) in zip(steps, links, strict=True):
            left = left if left_from is None else shown[left_from]
            right = right if right_from is None else shown[right_from]
            if operation == "/" and (not right or left % right):
                break
            value = _OPERATIONS[operation](left, right)
            if not 1 <= value <= limit:
                break
            followed.append(f"{left} {operation} {right} = {value}")
        else:
            given = [
                f"{left} {operation} {right} = {value}"
                for (left, operation, right, _), value in zip(steps, [*shown, results[-1]], strict=True)
            ]
            return ", ".join(given), ", ".join(followed)
    return None


def _links(steps: list[tuple[int, str, int, int]]) -> list[tuple[int | None, int | None]] | None:
    """Which earlier step each operand is the result of; `None` where equal numbers leave that open."""
    results = [step[3] for step in steps]
    links: list[tuple[int | None, int | None]] = []
    for i, (left, _, right, _) in enumerate(steps):
        sources = [[j for j in range(i) if results[j] == operand] for operand in (left, right)]
        if any(len(found) > 1 for found in sources):
            return None
        left_from, right_from = (found[0] if found else None for found in sources)
        if left_from is not None and right_from is not None:
            # "p + q" is meant where q was not made from p.
            earlier, later = sorted((left_from, right_from))
            if earlier == later or earlier in links[later]:
                return None
        links.append((left_from, right_from))
    return links if any(link != (None, None) for link in links) else None
