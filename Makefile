# make demo: environment, weights, data, benchmark, report.   make test: environment, tests.   make lint
# Both work alone on a fresh machine with Python 3.11+ and pip. TORCH=cpu|cuda defaults by whether nvidia-smi answers.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= $(shell nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPLETE := from importlib.metadata import version; [version(name) for name in ('pip', 'torch', 'vq-prior-bench', 'pytest')]

.PHONY: demo test lint install clean

demo: install
	@began=$$(date +%s); $(BIN)/python -m bench.assets fetch inception lpips-alex cifar10; \
	echo "weights and data: $$(($$(date +%s) - began)) s"
	@began=$$(date +%s); \
	$(BIN)/python -m bench.run preset=demo prior=unigram,autoregressive,absorbing sampler.steps=8,16,32,64 && \
	$(BIN)/python -m bench.run preset=demo prior=autoregressive,absorbing sampler.steps=64 sampler.temperature=0.9 && \
	$(BIN)/python -m bench.run preset=demo prior=autoregressive,absorbing sampler.steps=64 sampler.top_p=0.9 && \
	{ $(BIN)/python -m bench.speed claims batches=8,32 missing=true || \
	echo "the speeds of the claims could not be timed: the report calls them not run"; } && \
	$(BIN)/python -m bench.report out=report && \
	echo "benchmark and report: $$(($$(date +%s) - began)) s; open report/index.html"

test: install
	$(BIN)/python -m pytest -m "not slow and not slurm" --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m "slurm and not slow"   # one after the other: they share one machine

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

# An environment that is half made or has lost its interpreter is repaired or made anew; one that works costs 0.1 s.
install:
	@$(BIN)/python -c "$(COMPLETE)" 2>/dev/null || rm -f $(VENV)/installed-*
	@$(MAKE) --no-print-directory $(VENV)/installed-$(TORCH)

$(VENV)/installed-cpu: pyproject.toml constraints-cpu.txt
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --constraint constraints-cpu.txt torch
	$(PIP) install --constraint constraints-cpu.txt --editable ".[test]"
	touch $@

$(VENV)/installed-cuda: pyproject.toml
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
