# `make run` and `make test` are all that a newcomer needs; each installs what it needs on first use.
PYTHON ?= python3
BIN := .venv/bin
# An environment that was made with LOCKED=1 stays so.
LOCKED ?= $(if $(wildcard .venv/installed-locked),1)
SETUP := .venv/installed$(if $(LOCKED),-locked)
LIGHTNING := .venv-lightning/installed
RAY := .venv-ray/installed

# Else each of a hundred interpreters compiles the package, and each worker rewrites the assertions of all tests.
unexport PYTHONDONTWRITEBYTECODE
# Else no test would see what the interpreter does with output that it could not write until it ends.
unexport PYTHONUNBUFFERED

# The tests that have targets of their own.
ELSEWHERE := --ignore tests/benchmarks --ignore tests/browser --ignore tests/compiler \
	--ignore tests/faults --ignore tests/portability --ignore tests/test_packaging.py --ignore tests/sweeps/test_plugins.py

# The pages with figures of records, besides those of experiments/.
WITH_FIGURES = $(shell grep -lsr --include='*.md' '^<!-- records: ' README.md docs)

.PHONY: help install lock run test test-slow test-wheel test-launchers test-compiler test-benchmarks test-portable test-faults test-browser test-ray lint check format docs pictures bench faults evidence records portability
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(SETUP) ## create .venv with everything needed to run and test; LOCKED=1: the versions in constraints.txt

# The Python that installs is that of .venv, if there is one. Python 3.10 can't have some of the versions in constraints.txt.
INTERPRETER = $(or $(wildcard $(BIN)/python),$(PYTHON))
OLDEST := $(if $(LOCKED),11,10)
COMMA := ,
ADVICE = $(if $(wildcard $(BIN)/python),Remove .venv$(COMMA) and use,Use) make PYTHON=python3.12 $(MAKECMDGOALS)$(if $(LOCKED), LOCKED=1$(COMMA) or leave LOCKED=1 out).

# pip's own error message is clearer than ours would be; the stamp is written only after pip succeeds.
$(SETUP): setup.cfg pyproject.toml $(if $(LOCKED),constraints.txt)
	@$(INTERPRETER) -c 'import sys; sys.exit(not (3, $(OLDEST)) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "PYTHON must be 3.$(OLDEST) to 3.13$(if $(LOCKED), with LOCKED=1), got $$($(INTERPRETER) --version 2>&1). $(ADVICE)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCKED),--constraint constraints.txt) --editable '.[dev]'
	rm -f .venv/installed*
	touch $(SETUP)

lock: ## write constraints.txt: the versions that an install into an empty environment gets now
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check '.[dev]'
	{ echo "# make lock: $$(.venv-lock/bin/python --version), $$(uname -sm), $$(date +%F). Used by make install LOCKED=1."; \
		.venv-lock/bin/python -m pip freeze --all --exclude pip --exclude era_cnn; } > constraints.txt.new
	mv constraints.txt.new constraints.txt
	rm -rf .venv-lock

run: install ## train a complete run on the embedded digits
	$(BIN)/era-cnn experiment=model_4_digits

test: install ## run the tests, except the slow ones, and those of the wheel, launcher plugins, compiler, benchmarks and fault injection
	$(BIN)/python -m pytest -m "not (slow or process)" $(ELSEWHERE) --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10

test-slow: install ## run the slow tests: optional packages from end to end, complete trainings, interpreters of their own
	$(BIN)/python -m pytest -m "slow or process" $(ELSEWHERE) --durations 10

test-wheel: install ## test the wheel in a separate environment
	$(BIN)/python -m pytest tests/test_packaging.py

test-launchers: install ## test sweeps through launcher plugins: submitit, and Slurm where it is installed
	$(BIN)/python -m pytest tests/sweeps/test_plugins.py -k "not ray"

test-compiler: install ## test runs through PyTorch's compiler, which needs a C++ compiler
	$(BIN)/python -m pytest tests/compiler --durations 5

test-benchmarks: install ## test that each contender of the benchmarks runs
	$(BIN)/python -m pytest tests/benchmarks

test-portable: install ## compare this machine's results with the golden digests of others
	$(BIN)/python -m pytest tests/portability -rs

portability: install ## add what this machine computes to experiments/portability/
	$(BIN)/python -m tests.portability

test-faults: install ## run a short fault injection: runs that are killed, starved and damaged
	$(BIN)/python -m pytest tests/faults --durations 10

test-browser: install ## test reports and the documentation in Chromium, which must be installed
	$(BIN)/python -m pytest tests/browser

test-ray: install $(RAY) ## test sweeps on a local Ray cluster
	.venv-ray/bin/python -m pytest tests/sweeps/test_plugins.py -k ray

lint: install ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test test-slow test-wheel test-launchers test-compiler test-benchmarks test-portable test-faults ## run all checks of CI, except Ray

format: install ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## build the documentation into site/, and check its links
	$(BIN)/python docs/build.py

pictures: install ## make the pictures of README and docs/ from a real run; needs Chromium
	$(BIN)/python docs/pictures.py

faults: install ## run the full fault injection; writes experiments/reliability/; its cost needs MNIST (ERA_CNN_DATA)
	$(BIN)/python -m tests.faults

records: install ## write again what is generated from the records in experiments/, and the figures of README and docs/
	$(BIN)/era-cnn record --update experiments $(WITH_FIGURES)

evidence: install ## train the first epoch of each record in experiments/ again, and compare; needs MNIST (ERA_CNN_DATA)
	failed=0; for record in experiments/*/record.json; do \
		if test -f $$record; then $(BIN)/era-cnn record --repeat $$(dirname $$record) || { \
			code=$$?; test $$code -lt 128 || exit $$code; failed=1; }; fi; done; exit $$failed

bench: install $(LIGHTNING) ## compare speed, memory and start-up with others; writes benchmarks/; needs MNIST (ERA_CNN_DATA)
	$(BIN)/python -m benchmarks

# What Lightning and Ray need lies in environments of their own, and all else in .venv: they have the same torch, and Ray's
# launcher has the old cloudpickle that the newest joblib is incompatible with.
define environment
	test -x $(1)/bin/python || $(BIN)/python -m venv $(1)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/what_venv_has.pth"
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)
endef

$(LIGHTNING): $(SETUP)
	$(call environment,.venv-lightning,lightning)
	touch $(LIGHTNING)

$(RAY): $(SETUP)
	$(call environment,.venv-ray,--editable '.[ray]')
	touch $(RAY)
