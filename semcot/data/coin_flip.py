"""Coin flips: whether a coin is still heads up when some people have flipped it."""

import random
from collections.abc import Iterator

from semcot.data.drawing import draw
from semcot.data.language import WORDS

_ONSETS = "b c d f g h j k l m n p r s t v w y z br ch cl dr fr gl gr kr ph qu sh st th tr zh".split()
_VOWELS = "a e i o u a e i o ai au ea ee ei ia ie io oa ou ya".split()
_CODAS = "l m n r s t sh th ck nd nn rd rt ss x".split()
_SUFFIXES = "ann bella beth boy dina ette han ina isha jo lee lyn man marie ne rose son ton vin ya".split()
_PLAIN_NAMES = tuple(name.lower() for name in (*WORDS.women, *WORDS.men))


def _invented_name(rng: random.Random) -> str:
    """A lower-case first name: a common one, one with a suffix, or made of syllables; now and then a double name."""
    form = rng.random()
    if form < 0.2:
        name = rng.choice(_PLAIN_NAMES)
    elif form < 0.4:
        name = rng.choice(_PLAIN_NAMES) + rng.choice(_SUFFIXES)
    else:
        syllables = rng.choices((1, 2, 3), (10, 60, 30))[0]
        name = "" if rng.random() < 0.8 else rng.choice("aeiou")
        for _ in range(syllables):
            name += rng.choice(_ONSETS) + rng.choice(_VOWELS)
            if rng.random() < 0.25:
                name += rng.choice(_CODAS)
        if syllables == 1 or rng.random() < 0.3:
            name += rng.choice(_CODAS)
    if rng.random() < 0.04:
        name += f"-{rng.choice(_PLAIN_NAMES)}"
    return name


def _coin_flip(people: int, rng: random.Random) -> dict[str, str]:
    names: list[str] = []
    while len(names) < people:
        name = _invented_name(rng)
        if name not in names:
            names.append(name)
    heads = True
    told, reasoning, condensed = [], ["The coin starts heads up."], ["heads"]
    for name in names:
        flips = rng.random() < 0.5
        heads ^= flips
        side = "heads" if heads else "tails"
        told.append(f"{name} {'flips' if flips else 'does not flip'} the coin.")
        reasoning.append(f"{name} {'flips it, so it is' if flips else 'does not, so it stays'} {side} up.")
        condensed.append(f"{name} {'flips' if flips else 'does not'}: {side}")
    answer = "yes" if heads else "no"
    reasoning.append(f"In the end the coin is {side} up, so the answer is {answer}.")
    return {
        "question": f"Q: A coin is heads up. {' '.join(told)}  Is the coin still heads up?",
        "reasoning": " ".join(reasoning),
        "condensed_reasoning": f"{', '.join(condensed)}, so {answer}",
        "answer": answer,
    }


def coin_flips(
    num_samples: int, seed: int = 0, people: tuple[int, int] = (1, 6), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Coin flip problems in the wording of the coin flip set of "Chain-of-Thought Prompting" (arXiv 2201.11903).

    Args:
        num_samples: how many to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        people: the smallest and the largest number of people, both included; drawn evenly. Each one flips the coin
            with probability 1/2, so that "yes" and "no" are equally likely for every number of people.
        split: "train" or "eval"; the two never share a question.

    Yields:
        question, reasoning, condensed_reasoning and answer ("yes" or "no").

    Raises:
        ValueError: for an unknown split, fewer than one person, or more samples than there are questions.
    """
    low, high = people
    if not 1 <= low <= high:
        raise ValueError(f"people is {people}; give two whole numbers with 1 <= first <= second")
    rng = random.Random(seed)
    yield from draw(lambda: _coin_flip(rng.randint(low, high), rng), num_samples, split)
