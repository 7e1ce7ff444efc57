"""The words of the stories, which words.yaml holds, and the making of sentences."""

import random
import re
from pathlib import Path
from typing import NamedTuple

import yaml

_CHOICE = re.compile(r"\[([^][]*)\]")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeio])")


class Kind(NamedTuple):
    """A class of countable things with the words that go well with it; words.yaml says what each list holds."""

    things: list[str]
    pairs: list[str]
    containers: list[str]
    gain: list[str]
    lose: list[str]


class Words(NamedTuple):
    """The lists of words.yaml."""

    kinds: dict[str, Kind]
    women: list[str]
    men: list[str]
    relatives: list[str]
    times: list[list[str]]
    asides: list[str]
    plurals: dict[str, str]
    units: list[str]


def read_words(path: Path) -> Words:
    """Reads such a file. Raises `ValueError`, with its name, for one that is no YAML or lacks a list."""
    try:
        words = Words(**yaml.safe_load(path.read_text("utf-8")))
        return words._replace(kinds={name: Kind(**lists) for name, lists in words.kinds.items()})
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not as its comments say: {error}") from error


WORDS = read_words(Path(__file__).with_name("words.yaml"))


def plural(noun: str) -> str:
    """The plural of a noun: "box" -> "boxes", "pair of shoes" -> "pairs of shoes"."""
    head, of, rest = noun.partition(" of ")
    if head in WORDS.plurals:
        head = WORDS.plurals[head]
    elif re.search(r"[^aeiou]y$", head):
        head = f"{head[:-1]}ies"
    else:
        head += "es" if re.search(r"(s|x|ch|sh)$", head) else "s"
    return head + of + rest


def expand(text: str, rng: random.Random) -> str:
    """Replaces every [this|that], the innermost first, by one of its choices."""
    while "[" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


def polish(text: str) -> str:
    """Sets "an" for "a" where a vowel follows, drops blanks before marks and capitalizes the sentences."""
    text = _ARTICLE.sub(r"\1n", re.sub(r" +(?=[ .?,])", "", text))
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)


def join_clauses(facts: list[str], aside: list[str], question: str, rng: random.Random) -> str:
    """
    Puts the clauses together: as sentences, some joined by "and", the last perhaps as the question's condition. What is
    said by the way stands alone, after the first sentence.
    """
    sentences, conditions = facts[:1], []
    rest = facts[1:]
    if rest and rng.random() < 0.5:
        conditions.append(rest.pop())
        if rest and len(rest[-1]) + len(conditions[0]) < 90 and rng.random() < 0.3:
            conditions.insert(0, rest.pop())
    for fact in rest:
        if len(sentences[-1]) + len(fact) < 80 and rng.random() < 0.3:
            sentences[-1] += f", and {fact}"
        else:
            sentences.append(fact)
    if conditions:
        question = f"if {' and '.join(conditions)}, {question}"
    return ". ".join([sentences[0], *aside, *sentences[1:], question]) + "?"


def draw_words(kinds: tuple[str, ...], words: dict[str, tuple[str, ...]], rng: random.Random) -> dict[str, str | int]:
    """The words of one story by their slots, with their plurals: a kind of thing, each of the story's own, people."""
    drawn = {name: rng.choice(choices) for name, choices in words.items()}
    if kinds:
        kind = WORDS.kinds[rng.choice(kinds)]
        drawn |= {"thing": rng.choice(kind.things), "box": rng.choice(kind.containers)}
        drawn |= {"gain": rng.choice(kind.gain), "lose": rng.choice(kind.lose)}
        drawn["x1"], drawn["x2"] = rng.sample(rng.choice(kind.pairs).split(), 2)
    plurals = {"boxes" if name == "box" else f"{name}s": plural(word) for name, word in drawn.items()}
    is_woman = rng.random() < 0.5
    hero = rng.choice(WORDS.women if is_woman else WORDS.men)
    others = rng.sample([name for name in (*WORDS.women, *WORDS.men) if name != hero], 2)
    slots = drawn | plurals
    slots["he"], slots["him"], slots["his"] = ("she", "her", "her") if is_woman else ("he", "him", "his")
    slots |= {"n": hero, "o": others[0], "o2": others[1], "rel": rng.choice(WORDS.relatives), "z": rng.randint(3, 14)}
    slots["t1"], slots["t2"] = rng.choice(WORDS.times)
    return slots
