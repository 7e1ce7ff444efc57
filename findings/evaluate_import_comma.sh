#!/usr/bin/env bash
# evaluate.load of a local metric script (evaluate 0.4.6) reads the script's imports with a regular expression,
# line by line: "import datasets, evaluate" is taken for a package named "datasets,", and loading ends in an
# ImportError that advises pip install of that name, though both are installed and the line is plain Python. One
# import a line loads. Matters to whoever ships a metric of their own beside a model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 evaluate==0.4.6
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version
from pathlib import Path

import evaluate

print(*(f"{name} {version(name)}" for name in ("evaluate", "datasets")), sep=", ")

METRIC = '''

class Count(evaluate.Metric):
    """Number of predictions."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions):
        return {"count": len(predictions)}
'''
print("expected: both scripts load, since both are the same Python")
outcomes = {}
scripts = {"two_lines": "import datasets\nimport evaluate\n", "one_line": "import datasets, evaluate\n"}
for name, imports in scripts.items():
    Path(name).mkdir()
    Path(name, f"{name}.py").write_text(imports + METRIC)
    try:
        outcomes[name] = evaluate.load(name).compute(predictions=["a", "b"])
    except ImportError as error:
        outcomes[name] = f"ImportError: {error}"
    print(f"seen: {imports!r}: {outcomes[name]}")
if outcomes["two_lines"] != {"count": 2} or "'datasets,'" not in str(outcomes["one_line"]):
    raise SystemExit("changed: the reading of a metric's imports no longer behaves as described")
PY
