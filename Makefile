# make book [PROFILE=quick] [DATA=synthetic|kaggle|folder|zip]   make test   make lint   make clean
PYTHON ?= python3
PROFILE ?= quick
VENV := .venv
BIN := $(VENV)/bin

book: $(VENV)/.installed
	exec $(BIN)/python -m riceutils.book build --profile $(PROFILE) $(if $(DATA),--data "$(DATA)")

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf _build

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || \
	  { echo "This needs Python 3.11 to 3.13, and $(PYTHON) is not; say which one to use: make PYTHON=python3.12"; exit 1; }
	@echo "Installing the packages of requirements.lock in $(VENV) (3 GB); this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.PHONY: book test lint clean
