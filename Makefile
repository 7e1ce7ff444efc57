# make demo        install, fetch the base, answer questions with direct, explicit and implicit reasoning; your own:
#                  make demo ARGS='"How many …?"' (for a dollar sign \$$)
# make app         the same on a page for the browser
# make smoke       every stage of training in a minute, its checkpoint loaded and evaluated
# make test        install, fetch the base, lint and test, but for whole runs
# make test-all    the same, and then the whole runs in processes of their own
# make base        install and fetch the base, SmolLM2-135M-Instruct, into models/
# make default     train the published checkpoint from nothing (configs/default.yaml); interrupted, it goes on
# make methods     train SemCoT and its rivals for the same minutes, ask all the same questions: docs/methods.md
# make clean       remove the environment, the base and the caches, but no trained model

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP := $(PY) -m pip install --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile
BASE := models/SmolLM2-135M-Instruct

# Nothing here needs a Hub, and none must be waited for. HF_HUB_OFFLINE=0 make ... lets it be asked.
HF_HUB_OFFLINE ?= 1
HF_HUB_DISABLE_TELEMETRY ?= 1
TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE HF_HUB_DISABLE_TELEMETRY TOKENIZERS_PARALLELISM

.PHONY: demo app test test-all base smoke default methods clean
.DELETE_ON_ERROR:

demo: base
	$(PY) -m semcot.demo $(ARGS)

app: base
	$(PY) app.py $(ARGS)

test: base $(INSTALLED_DEV)
	$(PY) -m ruff check .
	$(PYTEST) -m "not slow" $(ARGS)

test-all: test
	$(PYTEST) -m slow $(ARGS)

base: $(INSTALLED)
	$(PY) -m semcot.fetch_base --output_dir $(BASE)

smoke: base
	$(PY) train_semcot.py configs/smoke.yaml --output_dir runs/smoke --overwrite_output_dir True $(ARGS)
	$(PY) eval_semcot.py --model runs/smoke --data synthetic_arithmetic --limit 8 --latency_samples 0 \
		--methods semcot direct --output_dir runs/smoke/evaluation --overwrite_output_dir True

default: base
	$(PY) train_semcot.py configs/default.yaml --output_dir runs/default --resume_from_checkpoint True $(ARGS)

methods: base
	$(PY) -m benchmarks.methods configs/methods.yaml $(ARGS)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(BASE) .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
