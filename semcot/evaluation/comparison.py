"""
The page over many methods and data sets, `methods.md` and `methods.html`: which method to take at which latency, and
where each is better than SemCoT. `benchmarks/methods.py` makes the records.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path

import numpy as np

from semcot.evaluation.judging import Row
from semcot.evaluation.page import render, write_plots
from semcot.evaluation.plots import Plot, accuracy_against_latency
from semcot.evaluation.statistics import mcnemar, mean_with_interval, wilson_interval
from semcot.evaluation.tables import NOTES, Columns, Section, strict
from semcot.files import write_text

SEMCOT, DIRECT = "semcot", "direct"
"""The records that the others are compared with: SemCoT, trained as they are, and the untrained base."""
SIGNIFICANT = 0.05
COMMANDS = "make methods                                       # goes on where it was interrupted\n"
COMMANDS += 'make methods ARGS="--minutes 15 --seeds 0 1 2"     # on a GPU, the same with a budget that teaches'
MARKS = {1: "▲", 0: "", -1: "▼"}
TITLE = "Methods compared"
PLOTS = "methods_plots"
TERMS = {
    "▲, ▼": "better, or worse, than semcot on the same questions: McNemar's exact test, p < 0.05, uncorrected for the "
    "number of comparisons. No mark: not told apart",
    "semcot": "trained from nothing, for the same minutes as the others",
    "semcot_published": "the checkpoint of this repository, trained for far longer: no rival had that",
    "semcot_zeroed, semcot_shuffled, semcot_random": "semcot_published with zeros, another question's thoughts or "
    "noise of their scale in place of its thoughts; without any it is direct",
    "strict": NOTES["strict"],
    "mean": "of the accuracies on the data sets, each counted once",
    "p50, p95": "seconds from question to answer at batch size 1; in the first tables the mean of the data sets'. On a "
    "CPU the process's own time on it, as if it had the processor for itself",
    "tokens": NOTES["new tokens"],
    "minutes": "that the steps of training took, in the same sense",
    "problems": "read in these minutes, those of all stages together; all read one list from its beginning",
}


def write_comparison(folder: Path, records: Sequence[Row], missing: Sequence[str] = (), note: str = "") -> None:
    """
    Writes methods.md, methods.html and the plots, in `methods_plots/`.

    Args:
        folder: of the files.
        records: of each method `name`, `train` (a row for each seed, none where it was not trained here), `trained`
            (what is known of a training elsewhere), `budget_minutes`, `eval` (a row for each data set and seed, as of
            `evaluate_method`, with `title` and `right`, a text of 1 and 0), and `meta`.
        missing: names of methods that have no results yet.
        note: what else must be known of how these were made.
    """
    methods = sorted(map(Compared, records), key=lambda method: -method.mean("accuracy"))
    titles = list(dict.fromkeys(row["title"] for record in records for row in record["eval"]))
    whole = [method for method in methods if method.row_of.keys() >= {*titles}]
    rows = {title: [method.row_of[title] for method in methods if title in method.row_of] for title in titles}
    plots = {title.lower().replace(" ", "_"): plot(title, own) for title, own in rows.items()}
    semcot = next((method for method in methods if method.name == SEMCOT), None)
    not_yet = f"\n\nNot run yet: {', '.join(missing)}." if missing else ""
    parts = [
        Section("In short", in_short(whole, titles) + not_yet, choices(whole), CHOICES),
        Section("All methods", rows=whole, columns=overview(whole, titles)),
        Section("Accuracy against latency", "Up and to the left is better.", plots=tuple(plots)),
    ]
    for title, own in rows.items():
        text = f"The data set {own[0]['dataset']}, split {own[0]['split']}."
        parts.append(Section(title, text, own, details(semcot and semcot.row_of.get(title))))
    parts.append(Section("Terms", notes=TERMS))
    shown = write_plots(folder / PLOTS, plots)
    described = f"{note} {describe(records)}".strip()
    write_text(folder / "methods.html", render(TITLE, described, COMMANDS, parts, shown))
    texts = [
        f"# {TITLE}",
        f"The same with larger plots: [methods.html](methods.html). {described}",
        f"```bash\n{COMMANDS}\n```",
    ]
    for part in parts:
        images = [f"![{shown[name]['caption']}]({PLOTS}/{name}.png)" for name in part.plots]
        texts += [part.format(), *images]
    write_text(folder / "methods.md", "\n\n".join(texts) + "\n")


def plot(title: str, rows: Sequence[Row]) -> Plot:
    """Accuracy against latency on one data set."""
    _, figure = accuracy_against_latency(rows, rows)
    return f"{title}, with the 95 % interval of accuracy, and the time from the median to p95.", figure


class Compared:
    """A record, its rows of several seeds made one for each data set."""

    def __init__(self, record: Row) -> None:
        self.name, self.trained, self.train = record["name"], record["trained"], record["train"]
        self.budget_minutes = record["budget_minutes"]
        titles = dict.fromkeys(row["title"] for row in record["eval"])
        self.row_of = {
            title: over_seeds(self.name, [row for row in record["eval"] if row["title"] == title]) for title in titles
        }

    def mean(self, figure: str) -> float:
        """Of a figure over the data sets, each counted once."""
        return float(np.mean([row[figure] for row in self.row_of.values()]))

    @property
    def is_trained_here(self) -> bool:
        return bool(self.train)


def over_seeds(name: str, rows: Sequence[Row]) -> Row:
    """
    The mean row of a method's seeds on a data set. The interval of its accuracy is Wilson's for one seed, Student's t
    for several. Outcomes, which tests compare, are those of the first seed.
    """
    means = {
        figure: float(np.mean([row[figure] for row in rows]))
        for figure, value in rows[0].items()
        if isinstance(value, float)
    }
    mean, half = mean_with_interval([row["accuracy"] for row in rows])
    right = rows[0]["right"]
    ends = wilson_interval(right.count("1"), len(right)) if half is None else [max(0, mean - half), min(1, mean + half)]
    return {**rows[0], **means, "method": name, "seeds": len(rows), "accuracy_ci95": ends}


def against(row: Row, other: Row | None) -> tuple[int, str]:
    """
    Whether a row is better than another one on the same questions, 1, 0 or -1, and the counts and p that say so. Rows
    of other questions are not compared.
    """
    if other is None or row is other or row["data_sha256"] != other["data_sha256"]:
        return 0, "–"
    first, second, p = mcnemar(*([outcome == "1" for outcome in each["right"]] for each in (row, other)))
    sign = int(np.sign(first - second)) if p < SIGNIFICANT else 0
    return sign, f"{first} : {second}, p {p:.2g}"


def best_for_the_time(methods: Iterable[Compared]) -> list[Compared]:
    """By latency, those that no faster one is as good as, by their mean accuracy over the data sets."""
    best: list[Compared] = []
    for method in sorted(methods, key=lambda method: method.mean("latency_p50_s")):
        if not best or method.mean("accuracy") > best[-1].mean("accuracy"):
            best.append(method)
    return best


CHOICES: Columns = {
    "time to an answer": lambda row: f"{row['seconds']:.2f} s",
    "take": lambda row: row["all"],
    "of those trained here": lambda row: row["trained"],
}


def choices(methods: Sequence[Compared]) -> list[Row]:
    """Which method to take if an answer may take so long, at each latency where that changes."""
    groups = {"all": methods, "trained": [method for method in methods if method.is_trained_here]}
    best = {name: best_for_the_time(group) for name, group in groups.items()}
    times = sorted({ceil(100 * method.mean("latency_p50_s")) / 100 for found in best.values() for method in found})

    def choice(found: list[Compared], seconds: float) -> str:
        fast = [method for method in found if method.mean("latency_p50_s") <= seconds]
        return f"{fast[-1].name}, {fast[-1].mean('accuracy'):.0%}" if fast else "–"

    rows = [{"seconds": time, **{name: choice(found, time) for name, found in best.items()}} for time in times]
    told = [tuple(row[name] for name in groups) for row in rows]
    return [row for i, row in enumerate(rows) if not i or told[i] != told[i - 1]]


def in_short(methods: Sequence[Compared], titles: Sequence[str]) -> str:
    """Paragraphs: which to take, how small the budget was, and what was not learnt in it."""
    trained = [method for method in methods if method.is_trained_here]
    told = {"Of all": methods, f"Of those trained here, each for {_minutes(trained)}": trained}
    first = " ".join(f"{group}, take {_told(best_for_the_time(own))}." for group, own in told.items() if own)
    first += f" (Strict accuracy, the mean over {', '.join(titles)}; the seconds are those of one answer.)"
    if not trained:
        return first
    problems = [row["problems"] for method in trained for row in method.train]
    base = next((method for method in methods if method.name == DIRECT), None)
    learnt = {
        method.name: [title for title in titles if base and against(method.row_of[title], base.row_of[title])[0] > 0]
        for method in trained
    }
    nothing = [name for name, better in learnt.items() if not better]
    read = f"{min(problems):,}" + (f" to {max(problems):,}" if max(problems) > min(problems) else "")
    second = (
        f"The budget of {_minutes(trained)} is small, {read} problems: it says who learns fastest, not who is best in "
        "the end."
    )
    if base and nothing:
        second += f" Not better than the untrained base on any of the sets: {', '.join(nothing)}."
    if semcot := next((method for method in trained if method.name == SEMCOT), None):
        beats = {
            method.name: [title for title in titles if against(method.row_of[title], semcot.row_of[title])[0] > 0]
            for method in trained
        }
        better = [f"{name} ({', '.join(where)})" for name, where in beats.items() if where]
        second += f" Better than SemCoT trained for the same minutes: {', '.join(better) or 'none'}."
    return f"{first}\n\n{second}"


def _told(best: Sequence[Compared]) -> str:
    told = []
    for method in best:
        elsewhere = f", trained on {method.trained} problems" if method.trained else ""
        share, seconds = method.mean("accuracy"), method.mean("latency_p50_s")
        told.append(f"{method.name} ({share:.0%}{elsewhere}) if you have {seconds:.2g} s")
    return ", ".join(told)


def _minutes(trained: Sequence[Compared]) -> str:
    return f"{trained[0].budget_minutes:g} minutes" if trained else ""


def overview(methods: Sequence[Compared], titles: Sequence[str]) -> Columns:
    """Of each method its accuracy on each data set, what an answer costs, and what its training cost."""
    semcot = next((method for method in methods if method.name == SEMCOT), None)

    def share(title: str):
        def cell(method: Compared) -> str:
            row = method.row_of[title]
            share, low, high = (f"{100 * part:.0f}" for part in (row["accuracy"], *row["accuracy_ci95"]))
            return f"{share} [{low}, {high}] {MARKS[against(row, semcot and semcot.row_of[title])[0]]}".strip()

        return cell

    return {
        "method": lambda method: method.name,
        "mean, %": lambda method: f"{100 * method.mean('accuracy'):.0f}",
        **{f"{title}, %": share(title) for title in titles},
        "p50 s": lambda method: f"{method.mean('latency_p50_s'):.2f}",
        "tokens": lambda method: f"{method.mean('new_tokens_mean'):.1f}",
        "minutes": lambda method: _mean(method.train, "minutes", ".1f"),
        "problems": lambda method: method.trained or _mean(method.train, "problems", ",.0f"),
    }


def details(semcot: Row | None) -> Columns:
    return {
        "method": lambda row: row["method"],
        "n": lambda row: str(row["n"]),
        "strict": strict,
        "flexible": lambda row: f"{row['accuracy_flexible']:.1%}",
        "against semcot": lambda row: against(row, semcot)[1],
        "p50 s": lambda row: f"{row['latency_p50_s']:.2f}",
        "p95 s": lambda row: f"{row['latency_p95_s']:.2f}",
        "tokens": lambda row: f"{row['new_tokens_mean']:.1f}",
        "unparsed": lambda row: f"{row['unparsed_rate']:.1%}",
        "cut off": lambda row: f"{row['cut_off_rate']:.1%}",
    }


def describe(records: Sequence[Row]) -> str:
    """What was measured, and on what, in a sentence."""
    meta, row = records[0]["meta"], records[0]["eval"][0]
    seeds = sorted({train["seed"] for record in records for train in record["train"]})
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} of training, " if seeds else ""
    versions = ", ".join(f"{name} {number}" for name, number in meta["versions"].items())
    return (
        f"SmolLM2-135M-Instruct, {row['n']} problems of each data set, {named}greedy, batch size {row['batch_size']}, "
        f"latency of {row['latency_n']} questions at batch size 1, {meta['device']} ({meta['cpu_threads']} threads), "
        f"{meta['dtype']}; {versions}."
    )


def _mean(rows: Sequence[Row], figure: str, form: str) -> str:
    return f"{np.mean([row[figure] for row in rows]):{form}}" if rows else "–"
