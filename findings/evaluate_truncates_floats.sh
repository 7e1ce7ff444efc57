#!/usr/bin/env bash
# A metric of evaluate 0.4.6 whose features are int32, as those of accuracy and f1 are, takes floats and
# truncates them towards zero without a word (datasets 5.2): 0.9 becomes 0. Probabilities or regression outputs
# given in place of labels yield a score, and a wrong one. One expects the error that pyarrow, which stores the
# predictions, gives for the same cast.
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
import numpy as np
import pyarrow as pa

print(*(f"{name} {version(name)}" for name in ("evaluate", "datasets", "pyarrow", "numpy")), sep=", ")

Path("agreement").mkdir()
Path("agreement/agreement.py").write_text('''
import datasets
import evaluate


class Agreement(evaluate.Metric):
    """Share of predictions that equal their reference."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        agreements = [p == r for p, r in zip(predictions, references, strict=True)]
        return {"agreement": sum(agreements) / len(agreements), "got": predictions}
''')
metric = evaluate.load("agreement")
probabilities, references = [0.9, 0.8, 0.2, 1.7], [1, 1, 0, 2]
try:
    pa.array([0.9]).cast(pa.int32())
    pyarrow_refuses = False
except pa.ArrowInvalid as error:
    pyarrow_refuses = True
    print("pyarrow by itself:", error)

print("expected: an error, since 0.9 is no int32")
results = [
    metric.compute(predictions=values, references=references) for values in (probabilities, np.array(probabilities))
]
for values, result in zip(("list", "array"), results, strict=True):
    print(f"seen: {values} {probabilities} against {references}: the metric got {result['got']}, "
          f"agreement {result['agreement']}")
if not (pyarrow_refuses and all(list(result["got"]) == [0, 0, 0, 1] for result in results)):
    raise SystemExit("changed: floats for an int32 metric no longer behave as described")
PY
