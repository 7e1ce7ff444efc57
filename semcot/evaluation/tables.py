"""The tables of a report in Markdown, and what stands in their columns."""

from collections.abc import Callable, Sequence

from semcot.evaluation.judging import Row
from semcot.evaluation.overlap import PARTS

Columns = dict[str, Callable[[Row], str]]

NOTES = """
- **strict**: the first number (word yes or no, letter A to E) after the answer cue, or the result of an equation that
  stands there, equals the gold answer; in brackets the 95 % Wilson interval. An explicit chain of thought is read after
  its last cue or, without one, at its end.
- **flexible**: the last number (word, letter) of the output is the gold answer, whatever it stands for.
- **lenient**: the gold answer occurs anywhere in the output, as the released research code counts. It overstates, and
  stands here only for comparison with figures made that way.
- **unparsed**: outputs without any answer; they count as wrong. **cut off**: outputs that came to no end within the
  tokens allowed.
- **new tokens**: mean per answer, with the end-of-sequence token, without padding. Implicit tokens are not written.
- **McNemar**: questions that this method alone has right : those that the other one alone has, and the exact test's p.
- **p50, p95**: seconds from question to answer at batch size 1, of {latency_n} questions; **speed-up**: p50 of cot over
  this method's; **right/s**: strict accuracy over p50.
- **samples/s**: in batches. All times are after a warm-up, device-synchronised, with tokenisation and generator.
- **memory**: peak, on CUDA of the method, elsewhere of the process up to then.
- `direct` is also the control without thoughts: the same base, the same prompt less the implicit tokens.
  `semcot_zeroed`, `semcot_shuffled`, `semcot_random`: zeros, another question's thoughts, noise in their place.
"""
ACCURACY: Columns = {
    "method": lambda row: row["method"],
    "seed": lambda row: str(row["seed"]),
    "n": lambda row: str(row["n"]),
    "strict": lambda row: f"{row['accuracy']:.1%} {interval(row['accuracy_ci95'])}",
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
    "strict": lambda row: f"{row['accuracy']:.1%} {interval(row['accuracy_ci95'])}",
    "flexible": lambda row: f"{row['accuracy_flexible']:.1%}",
    "lenient": lambda row: f"{row['accuracy_lenient']:.1%}",
}
OVERLAP: Columns = {
    "method": lambda row: row["method"],
    "part": lambda row: row["part"],
    "n": lambda row: str(row["n"]),
    "strict": lambda row: f"{row['accuracy']:.1%} {interval(row['accuracy_ci95'])}",
}
ALIGNMENT: Columns = {
    "layers": lambda row: str(row["layer"]),
    "among": lambda row: str(row["pool"]),
    "thoughts → reasoning": lambda row: f"{row['thoughts_to_reasonings']:.1%}",
    "mean rank": lambda row: f"{row['thoughts_to_reasonings_mean_rank']:.1f}",
    "reasoning → thoughts": lambda row: f"{row['reasonings_to_thoughts']:.1%}",
    "its mean rank": lambda row: f"{row['reasonings_to_thoughts_mean_rank']:.1f}",
    "cosine": lambda row: f"{row['cosine']:.2f}",
}


def format_table(rows: Sequence[Row], columns: Columns = ACCURACY) -> str:
    """Rows as a Markdown table; `columns` says what stands in each of them."""
    cells = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def format_tables(record: Row) -> str:
    """The record's main tables in Markdown: accuracy, its means over seeds, speed."""
    timed = [row for row in record["eval"] if row["latency_p50_s"]] or record["eval"]
    tables = [format_table(record["eval"])]
    tables += [format_table(record["means"], MEANS)] if "means" in record else []
    return "\n\n".join([*tables, format_table(timed, SPEED)])


def format_sections(record: Row) -> str:
    """What else the record holds, each under its heading: samples/s by batch size, overlap, reading, alignment."""
    sections = []
    if swept := [row for row in record["eval"] if row["batch_sweep"]]:
        sizes = [step["batch_size"] for step in swept[0]["batch_sweep"]]
        columns = {"samples/s": lambda row: row["method"]} | {
            f"batch {size}": lambda row, i=i: f"{row['batch_sweep'][i]['samples_per_s']:.2f}"
            for i, size in enumerate(sizes)
        }
        sections.append(f"## Batch sizes\n\n{format_table(swept, columns)}")
    if overlap := record.get("overlap"):
        sections.append(
            f"## Overlap\n\nWith the {overlap['train_problems']} train problems of `{overlap['train_data']}`:\n\n"
            f"{format_table(overlap['parts'], OVERLAP)}\n\n" + "\n".join(f"- **{n}**: {m}." for n, m in PARTS.items())
        )
    if reading := record.get("reading"):
        told = {name: f"{row['spelt']} of {row['n']}" for name, row in reading.items()}
        sections.append(
            "## Reading\n\nThe thoughts, read as the tokens nearest to them, spell the final result of "
            f"{told['all']} problems: of {told['right']} that are answered right, and of {told['wrong']} others."
        )
    if found := record.get("alignment"):
        sections.append(
            "## Alignment\n\nThe own one found among all: thoughts and reasonings (the condensed ones where there are "
            "any) are read by the base at its input, and compared by the cosine of their centred mean states after so "
            f"many of its layers.\n\n{format_table(found, ALIGNMENT)}"
        )
    return "\n\n".join(sections)


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


def interval(ends: Sequence[float] | None) -> str:
    """As in `[92.9%, 98.5%]`; empty where there is none."""
    return "" if ends is None else f"[{ends[0]:.1%}, {ends[1]:.1%}]"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _test(test: Row | None) -> str:
    return "–" if test is None else f"{test['first_alone']} : {test['second_alone']}, p {test['p']:.2g}"
