"""The tables of a report in Markdown, and what stands in their columns."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from semcot.evaluation.judging import Row
from semcot.evaluation.overlap import PARTS

Columns = dict[str, Callable[[Row], str]]

NOTES = {
    "strict": "the first number (word yes or no, letter A to E) after the answer cue, or the result of an equation "
    "that stands there, equals the gold answer; in brackets the 95 % Wilson interval. An explicit chain of thought is "
    "read after its last cue or, without one, at its end",
    "flexible": "the last number (word, letter) of the output is the gold answer, whatever it stands for",
    "lenient": "the gold answer occurs anywhere in the output, as the released research code counts. It overstates, "
    "and stands here only for comparison with figures made that way",
    "unparsed": "outputs without any answer; they count as wrong",
    "cut off": "outputs that came to no end within the tokens allowed",
    "new tokens": "mean per answer, with the end-of-sequence token, without padding. Implicit tokens are not written",
    "McNemar": "questions that this method alone has right : those that {against} alone has, and the exact test's p",
    "p50, p95": "seconds from question to answer at batch size 1, of {latency_n} questions",
    "speed-up": "p50 of cot over this method's",
    "right/s": "strict accuracy over p50",
    "samples/s": "in batches. All times are after a warm-up, device-synchronised, with tokenisation and generator",
    "memory": "peak, on CUDA of the method, elsewhere of the process up to then",
    "controls": "direct is also the one without thoughts, the same base and prompt less the implicit tokens; "
    "semcot_zeroed, semcot_shuffled and semcot_random have zeros, another question's thoughts, noise in their place",
}
ACCURACY: Columns = {
    "method": lambda row: row["method"],
    "seed": lambda row: str(row["seed"]),
    "n": lambda row: str(row["n"]),
    "strict": lambda row: strict(row),
    "flexible": lambda row: f"{row['accuracy_flexible']:.1%}",
    "lenient": lambda row: f"{row['accuracy_lenient']:.1%}",
    "unparsed": lambda row: f"{row['unparsed_rate']:.1%}",
    "cut off": lambda row: f"{row['cut_off_rate']:.1%}",
    "new tokens": lambda row: f"{row['new_tokens_mean']:.1f}",
    "McNemar": lambda row: _test(row.get("mcnemar")),
}
SPEED: Columns = {
    "method": lambda row: row["method"],
    "p50 s": lambda row: _number(row["latency_p50_s"], ".3f"),
    "p95 s": lambda row: _number(row["latency_p95_s"], ".3f"),
    "speed-up": lambda row: _number(row["speedup_vs_cot"], ".1f", "×"),
    "right/s": lambda row: _number(row["accuracy_per_s"], ".2f"),
    "samples/s": lambda row: f"{row['samples_per_s']:.2f}",
    "memory MiB": lambda row: f"{row['peak_memory_mb']:.0f}",
}
MEANS: Columns = {
    "method": lambda row: row["method"],
    "seeds": lambda row: str(row["seeds"]),
    "strict": lambda row: strict(row),
    "flexible": lambda row: f"{row['accuracy_flexible']:.1%}",
    "lenient": lambda row: f"{row['accuracy_lenient']:.1%}",
}
ALIGNMENT: Columns = {
    "compared by": lambda row: row["by"],
    "among": lambda row: str(row["pool"]),
    "thoughts → reasoning": lambda row: f"{row['thoughts_to_reasonings']:.1%}",
    "mean rank": lambda row: f"{row['thoughts_to_reasonings_mean_rank']:.1f}",
    "reasoning → thoughts": lambda row: f"{row['reasonings_to_thoughts']:.1%}",
    "its mean rank": lambda row: f"{row['reasonings_to_thoughts_mean_rank']:.1f}",
    "likeness": lambda row: f"{row['likeness']:.2f}",
}


def cells(rows: Sequence[Row], columns: Columns) -> list[list[str]]:
    """What stands in a table, its header first."""
    return [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]


def format_table(rows: Sequence[Row], columns: Columns = ACCURACY) -> str:
    """Rows as a Markdown table; `columns` says what stands in each of them."""
    table = cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


class Section(NamedTuple):
    """A part of the report."""

    title: str
    text: str = ""
    rows: Sequence[Row] = ()
    columns: Columns = {}
    plots: tuple[str, ...] = ()
    """Names of those that are drawn for it, see `semcot.evaluation.plots`."""
    notes: Mapping[str, str] = {}

    def format(self) -> str:
        """In Markdown, without the plots."""
        table = format_table(self.rows, self.columns) if self.rows else ""
        notes = "\n".join(f"- **{name}**: {note}." for name, note in self.notes.items())
        return "\n\n".join(filter(None, [f"## {self.title}", self.text, table, notes]))


def format_tables(record: Row) -> str:
    """The record's tables of accuracy, of its means over seeds and of speed, in Markdown."""
    main = [section for section in sections(record) if section.title in ("Accuracy", "Over seeds", "Speed")]
    return "\n\n".join(format_table(section.rows, section.columns) for section in main)


def sections(record: Row) -> list[Section]:
    """All that a record holds, part by part."""
    rows, means = record["eval"], record.get("means", [])
    timed = [row for row in rows if row["latency_p50_s"]]
    columns = {name: cell for name, cell in ACCURACY.items() if name != "seed" or means}
    parts = [
        *([Section("In short", _in_short(timed, means or rows), plots=("accuracy_latency",))] if timed else []),
        Section("Accuracy", rows=rows, columns=columns, plots=() if means else ("accuracy",)),
        Section("Speed", rows=timed or rows, columns=SPEED),
    ]
    if means:
        text = "Means over seeds, with their 95 % intervals (Student's t)."
        parts.insert(-1, Section("Over seeds", text, means, MEANS, ("accuracy",)))
    if swept := [row for row in rows if row["batch_sweep"]]:
        columns = {"samples/s": lambda row: row["method"]} | {
            f"batch {step['batch_size']}": lambda row, i=i: f"{row['batch_sweep'][i]['samples_per_s']:.2f}"
            for i, step in enumerate(swept[0]["batch_sweep"])
        }
        parts.append(Section("Batch sizes", rows=swept, columns=columns, plots=("batch_sweep",)))
    if overlap := record.get("overlap"):
        text = f"What of these problems stands among the {overlap['train_problems']} of {overlap['train_data']}."
        part_of = {(row["method"], row["part"]): row for row in overlap["parts"]}
        columns = {"strict": lambda row: row["method"]} | {
            f"{part}, n {n}": lambda row, part=part: strict(part_of[row["method"], part])
            for part in PARTS
            if (n := next((row["n"] for row in overlap["parts"] if row["part"] == part), 0))
        }
        methods = [{"method": method} for method in dict.fromkeys(method for method, _ in part_of)]
        parts.append(Section("Overlap", text, methods, columns, notes=PARTS))
    if reading := record.get("reading"):
        told = {name: f"{row['spelt']} of {row['n']}" for name, row in reading.items()}
        text = (
            "The thoughts, read as the tokens nearest to them, spell the final result of "
            f"{told['all']} problems: of {told['right']} that are answered right, and of {told['wrong']} others."
        )
        parts.append(Section("Reading", text))
    if found := record.get("alignment"):
        text = (
            "The own one found among all. By tokens: how likely the thoughts, read with the base's token embeddings, "
            "make the ends of a reasoning's steps (mean log-likelihood of a token). By states: the cosine of the "
            "centred mean states of thoughts and whole reasonings, read by the base at its input, after one layer."
        )
        parts.append(Section("Alignment", text, found, ALIGNMENT, ("alignment", "plane")))
    against = next((row["mcnemar"]["against"] for row in rows if row["mcnemar"]), "the other one")
    known = {"against": against, "latency_n": max(row["latency_n"] for row in rows)}
    parts.append(Section("Terms", notes={name: note.format_map(known) for name, note in NOTES.items()}))
    return parts


def _in_short(timed: Sequence[Row], rows: Sequence[Row]) -> str:
    """Which method to take at which latency: those that no faster one is as good as."""
    share, best = {row["method"]: row["accuracy"] for row in rows}, []
    for row in sorted(timed, key=lambda row: row["latency_p50_s"]):
        if not best or share[row["method"]] > share[best[-1]["method"]]:
            best.append(row)
    told = [f"{row['method']}, {share[row['method']]:.1%} in {row['latency_p50_s']:.2g} s" for row in best]
    return "The most accurate method for the time that it takes to an answer: " + "; ".join(told) + "."


def describe(record: Row) -> str:
    """What was measured, and on what, in a sentence."""
    first, meta = record["eval"][0], record["meta"]
    seeds = list(dict.fromkeys(row["seed"] for row in record["eval"]))
    seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    options = record["run"].get("options", {})
    warm = options.get("temperature")
    sampling = "greedy" if warm is None else f"sampled (temperature {warm}, top_p {options['top_p']}, top_k 50)"
    threads = f"{meta['cpu_threads']} CPU thread" + "s" * (meta["cpu_threads"] > 1)
    versions = ", ".join(f"{name} {number}" for name, number in meta["versions"].items())
    return (
        f"Model `{meta['model']}`, {first['n']} problems, {seeds}, {sampling}, batch size {first['batch_size']}, "
        f"{meta['device']} ({threads}), {meta['dtype']}; {versions}."
    )


def strict(row: Row) -> str:
    """A row's accuracy and, where there is one, its interval, as in `96.7% [92.9%, 98.5%]`."""
    ends = row["accuracy_ci95"]
    return f"{row['accuracy']:.1%}" + ("" if ends is None else f" [{ends[0]:.1%}, {ends[1]:.1%}]")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _test(test: Row | None) -> str:
    return "–" if test is None else f"{test['first_alone']} : {test['second_alone']}, p {test['p']:.2g}"
