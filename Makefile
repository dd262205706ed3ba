# Every command of the project, spelled in one place. `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
THREADS ?= 2
JOBS ?= 2
SAMPLE := data/sample/referrals.jsonl
SAMPLE_NOW := 2026-11-22T10:00:00+05:00

.PHONY: help demo serve test test-browser test-reliability screenshots translations lint format train train-smoke data-check mlflow bench test-scale lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | column -t -s '|'

$(VENV)/core.done: requirements/core.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/core.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/service.done: requirements/service.txt $(VENV)/core.done
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/service.txt
	touch $@

$(VENV)/dev.done: requirements/dev.txt $(VENV)/core.done
	@echo "installing what training and the tests need (several GB the first time)" >&2
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

$(VENV)/browser.done: requirements/browser.txt $(VENV)/dev.done
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/browser.txt
	touch $@

demo: $(VENV)/core.done ## install the inference package and rank the sample referrals with the shipped models
	@$(BIN)/nabz rank $(SAMPLE) --now $(SAMPLE_NOW) || test $$? -eq 1

serve: $(VENV)/service.done ## run the service with the sample referrals and a token issuer for demos, at http://127.0.0.1:8000
	$(BIN)/nabz serve --demo

test: $(VENV)/dev.done ## install what the tests need and run them, in JOBS processes
	NABZ_DATA=$${NABZ_DATA:-$(DATA)} $(BIN)/python -m pytest -m "not browser" -n $(JOBS) --dist loadfile

test-browser: $(VENV)/browser.done ## the pages in a real Chromium: accessibility, keys, thin lines, lost connections (skipped by name without one)
	$(BIN)/python -m pytest -m browser

screenshots: $(VENV)/browser.done ## make the README's pictures of the pages again
	NABZ_SCREENSHOTS=write $(BIN)/python -m pytest -m browser tests/test_browser_screenshots.py

translations: $(VENV)/dev.done ## bring the pages' messages.po up to date with their texts; then translate what is empty in it
	mkdir -p build
	$(BIN)/pybabel --quiet extract -F babel.cfg -k t -k N_ -k tn:1,2 --no-location --project Nabz -o build/messages.pot inference/service/web
	$(BIN)/pybabel --quiet update --no-fuzzy-matching --ignore-obsolete --no-wrap -i build/messages.pot -d inference/service/web/locale -l ur -D messages

test-reliability: $(VENV)/dev.done ## kill, race, starve, flood and fuzz the service at full size, and print the table (about two hours, estimate)
	PYTHONPATH=tests $(BIN)/python -m reliability

lint: $(VENV)/dev.done ## ruff, mypy --strict, import contracts, catalogue check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/nabz-train data check

format: $(VENV)/dev.done ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

data-check: $(VENV)/dev.done ## prove the catalogue consistent and the data sets' checksums right
	$(BIN)/nabz-train data check --data $(DATA)

train: $(VENV)/dev.done ## train the shipped bundles again from data, all but lesions-ham10000 (about an hour on two cores, estimate)
	$(BIN)/nabz-train all --data $(DATA) --threads $(THREADS)

train-smoke: $(VENV)/dev.done ## the same in a minute or two a model, into runs/smoke
	$(BIN)/nabz-train all --data $(DATA) --threads $(THREADS) --smoke --models runs/smoke

mlflow: $(VENV)/dev.done ## runs and registered models in a browser, at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000 --workers 1

bench: $(VENV)/dev.done ## speed, as ratios inside one run
	$(BIN)/python -m training.bench --threads $(THREADS)

test-scale: $(VENV)/dev.done ## rank a million cases from Parquet beside raw onnxruntime, in how much memory, and on one and two Dask workers (about five minutes, estimate)
	$(BIN)/python -m training.bench_batch --n 1000000

LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11

lock: ## pin every extra again, with hashes (needs uv)
	echo "setuptools>=77" | $(LOCK) pyproject.toml - -o requirements/core.txt
	for extra in service train cluster dev browser; do $(LOCK) --extra $$extra -c requirements/core.txt pyproject.toml -o requirements/$$extra.txt; done

clean: ## remove what the commands made here (not the models)
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
