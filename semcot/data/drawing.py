"""
The draw of problems: everything comes from `random.Random(seed)`, so that the same arguments give the same problems on
every machine. The splits "train" and "eval" never share a question, whatever the seeds: a question belongs to "eval"
when its SHA-256 is divisible by 10 and to "train" otherwise.
"""

import hashlib
from collections.abc import Callable, Iterator

SPLITS = ("train", "eval")
MOST_MISSES = 100_000  # in a row, before there are too few problems


def in_eval(question: str) -> bool:
    """True for a question of the split "eval"."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest(), "big") % 10 == 0


def draw(make: Callable[[], dict[str, str]], num_samples: int, split: str | None = None) -> Iterator[dict[str, str]]:
    """
    Calls `make` until it has given `num_samples` different questions, of one split where that is named. Raises
    `ValueError` for an unknown split, or where no more can be found.
    """
    if split not in (None, *SPLITS):
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}")
    seen: set[str] = set()
    misses = 0
    while len(seen) < num_samples:
        problem = make()
        if problem["question"] in seen or (split and in_eval(problem["question"]) != (split == "eval")):
            misses += 1
            if misses == MOST_MISSES:
                raise ValueError(f"found only {len(seen)} different problems; num_samples={num_samples} is too many")
            continue
        misses = 0
        seen.add(problem["question"])
        yield problem
