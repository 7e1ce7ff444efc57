"""Writes what an evaluation found: results.json, predictions.jsonl and report.md, each whole or not at all."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semcot.files import write_json, write_text

_NOTES = """
- **strict**: the first number (word yes or no, letter A to E) after the answer cue, or the result of an equation that
  stands there, equals the gold answer; in brackets the 95 % Wilson interval. An explicit chain of thought is read after
  its last cue or, without one, at its end.
- **lenient**: the gold answer occurs anywhere in the output, as the released research code counts. It overstates, and
  stands here only for comparison with figures made that way.
- **unparsed**: outputs without any answer; they count as wrong.
- **new tokens**: mean per answer, with the end-of-sequence token, without padding. Implicit tokens are not written.
- **p50, p95**: seconds from question to answer at batch size 1, of {latency_n} questions; **speed-up**: p50 of cot over
  this method's.
- **samples/s**: in batches. All times are after a warm-up, device-synchronised, with tokenisation and generator.
- **memory**: peak, on CUDA of the method, elsewhere of the process up to then.
"""


def prepare_output_dir(path: str | os.PathLike) -> Path:
    """Makes the folder, before anything is computed for it. Raises `OSError` when nothing can be written into it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(f"The results cannot be written into {folder}: {error}. Give another --output_dir.") from error


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, one row for each method."""
    header = "method n strict lenient unparsed new·tokens p50·s p95·s samples/s speed-up memory·MiB".split()
    rows = [[name.replace("·", " ") for name in header]]
    for result in results:
        low, high = result["accuracy_ci95"]
        rows.append(
            [
                result["method"],
                str(result["n"]),
                f"{result['accuracy']:.1%} [{low:.1%}, {high:.1%}]",
                f"{result['accuracy_lenient']:.1%}",
                f"{result['unparsed_rate']:.1%}",
                f"{result['new_tokens_mean']:.1f}",
                _number(result["latency_p50_s"], ".3f"),
                _number(result["latency_p95_s"], ".3f"),
                f"{result['samples_per_s']:.2f}",
                _number(result["speedup_vs_cot"], ".1f", "×"),
                f"{result['peak_memory_mb']:.0f}",
            ]
        )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def write_report(folder: Path, record: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> None:
    """Writes the three files; the record is that of `semcot.evaluation.evaluate.evaluate`."""
    first, meta = record["eval"][0], record["meta"]
    threads = f"{meta['cpu_threads']} CPU thread" + "s" * (meta["cpu_threads"] > 1)
    versions = ", ".join(f"{name} {number}" for name, number in meta["versions"].items())
    report = (
        f"# {first['dataset']}\n\n"
        f"```\n{record['run']['command']}\n```\n\n"
        f"Model `{meta['model']}`, {first['n']} problems, seed {first['seed']}, greedy, batch size "
        f"{first['batch_size']}, {meta['device']} ({threads}), {meta['dtype']}; "
        f"{versions}.\n\n"
        f"{format_table(record['eval'])}\n{_NOTES.format_map(first)}"
    )
    write_json(folder / "results.json", record)
    write_text(folder / "predictions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))
    write_text(folder / "report.md", report)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
