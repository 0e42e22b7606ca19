# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: faults demo test test-lowest harness hostile lint clean

demo: $(READY)
	$(BIN)/holdfast demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not harness"

# The lowest versions that pyproject.toml allows, where other versions of libraries could matter.
# Kendall's tau is not among them: the first numba compiles it, but not with the tests' shape checks around it.
LOWEST := tests/contracts tests/training/test_fit.py tests/training/test_settings.py \
	tests/training/test_recipe.py tests/training/test_saving.py tests/training/test_trainer.py \
	tests/data/test_source.py tests/data/test_tables.py tests/data/test_images.py \
	tests/cli/test_messages.py tests/cli/test_options.py tests/report/test_records.py \
	tests/report/test_html.py tests/attributions/test_captum_bridge.py \
	tests/adversarial/corruptions tests/models/test_timm_models.py \
	tests/models/test_hugging_face.py

test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest -n 2 -m "not harness and not slow" $(LOWEST)

$(VENV)-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
		--editable '.[dev]'
	touch $@

# Long checks over whole families: every architecture, every kind of model.
harness: $(READY)
	$(BIN)/python -m pytest -n 2 -m harness --ignore tests/hostile --ignore tests/faults tests

# Each verb, killed at random moments and on a full disk; prints the table of docs/reliability.md.
faults: $(READY)
	$(BIN)/python -m pytest -q -n 2 -m harness tests/faults

# Thousands of malformed inputs, for every verb and public class.
hostile: $(READY)
	$(BIN)/python -m pytest -n 2 -m harness tests/hostile

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
