#!/usr/bin/env bash
# load_dataset("json") of datasets 5.2 turns a column of strings into timestamps when every string in it reads
# as an ISO date: the answer "2020-01-01" comes back as datetime(2020, 1, 1, 0, 0), and str() of it is no longer
# the answer. A single string that is no date keeps the whole column as it is, so another split or shard has
# another type. Features that name the column a string do not help: it comes back as "2020-01-01 00:00:00".
# Dataset.from_list keeps the strings. Matters to exact-match scores over date questions.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

print(*(f"{name} {version(name)}" for name in ("datasets", "pyarrow")), sep=", ")

def load(name, answers, **arguments):
    rows = [json.dumps({"question": "When?", "answer": answer}) for answer in answers]
    Path(name).write_text("\n".join(rows) + "\n")
    return load_dataset("json", data_files=name, split="train", **arguments)


features = Features({"question": Value("string"), "answer": Value("string")})
loaded = {
    "dates alone": load("dates.jsonl", ["2020-01-01", "2021-02-03"]),
    "dates and a word": load("words.jsonl", ["2020-01-01", "never"]),
    "dates alone, features given": load("named.jsonl", ["2020-01-01", "2021-02-03"], features=features),
    "dates alone, Dataset.from_list": Dataset.from_list([{"answer": "2020-01-01"}, {"answer": "2021-02-03"}]),
}
print("expected: a JSON string is loaded as a string")
for name, data in loaded.items():
    print(f"seen: {name}: {data.features['answer']}, first answer {data[0]['answer']!r}")
answers = [str(data[0]["answer"]) for data in loaded.values()]
if answers != ["2020-01-01 00:00:00", "2020-01-01", "2020-01-01 00:00:00", "2020-01-01"]:
    raise SystemExit("changed: dates in JSON no longer behave as described")
PY
