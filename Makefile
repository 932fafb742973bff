# `make run` and `make test` are all that a newcomer needs; each sets up what it uses, once.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/installed
LIGHTNING := .venv-lightning/installed
RAY := .venv-ray/installed

.PHONY: help install run test test-wheel test-launchers test-faults test-ray lint check format bench faults
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(SETUP) ## .venv with everything that running and testing needs

# pip's own complaint is clearer than ours would be; the stamp is written only after it succeeded.
$(SETUP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "PYTHON must be 3.10 to 3.13, got $$($(PYTHON) --version). Use make PYTHON=python3.12 $(MAKECMDGOALS)."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(SETUP)

run: install ## one complete training on the embedded digits
	$(BIN)/era-cnn experiment=model_4_digits

test: install ## the suite, but for the wheel, launcher plugins and fault injection
	$(BIN)/python -m pytest --ignore tests/faults --ignore tests/test_packaging.py --ignore tests/sweeps/test_plugins.py --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10

test-wheel: install ## the wheel, in an environment of its own
	$(BIN)/python -m pytest tests/test_packaging.py

test-launchers: install ## sweeps through launcher plugins of Hydra: submitit here, and Slurm where there is one
	$(BIN)/python -m pytest tests/sweeps/test_plugins.py -k "not ray"

test-faults: install ## the fault injection in short: runs that are killed, starved and damaged
	$(BIN)/python -m pytest tests/faults --durations 10

test-ray: install $(RAY) ## the sweeps on a local Ray cluster
	.venv-ray/bin/python -m pytest tests/sweeps/test_plugins.py -k ray

lint: install ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test test-wheel test-launchers test-faults ## what CI runs, but for Ray

format: install ## brings the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: install ## the fault injection at full length; writes experiments/reliability/; the cost needs MNIST (ERA_CNN_DATA)
	$(BIN)/python -m tests.faults

bench: install $(LIGHTNING) ## speed, memory and start-up beside others; writes benchmarks/; needs MNIST (ERA_CNN_DATA)
	$(BIN)/python -m benchmarks

# Lightning has an environment of its own, with the same torch.
$(LIGHTNING): $(SETUP)
	test -x .venv-lightning/bin/python || $(PYTHON) -m venv .venv-lightning
	.venv-lightning/bin/python -m pip install --quiet --disable-pip-version-check lightning \
		$$($(BIN)/python -m pip list --format=freeze --disable-pip-version-check | grep -E '^torch(vision)?=' | sed 's/+.*//')
	touch $(LIGHTNING)

# So has Ray's launcher, whose cloudpickle does not go with the newest joblib.
$(RAY): $(SETUP)
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]' pytest \
		$$($(BIN)/python -m pip list --format=freeze --disable-pip-version-check | grep -E '^torch(vision)?=' | sed 's/+.*//')
	touch $(RAY)
