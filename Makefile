# make demo   installs, selects from the sample pool through the real Prefect flow, prints where the results lie
# make ui     installs, starts a Prefect server with the sample pool's deployments, prints the address to open
# make test   installs, runs all tests but those of `make e2e`, in two processes: they wait for servers most of the time
# make e2e    the tests that need a real Prefect server or a browser; installs what they need
# make lint   ruff and the type checker
# make clean  removes what the others made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

CHROMIUMS := chromium chromium-browser google-chrome

.PHONY: demo ui test e2e chromium lint clean
.DEFAULT_GOAL := demo

# pip, not uv: the pins in constraints.txt choose a CPU build of torch that uv's resolver would not take.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/deita select --input examples/pool.jsonl --output demo-output --store .deita --budget 150 --overwrite

ui: $(STAMP)
	mkdir -p ui-output
	$(BIN)/python -m deployments.ui --root ui-output --input examples/pool.jsonl

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not e2e' -n 2 --dist loadfile

# DEITA_SCREENSHOTS=1 make e2e takes the README's pictures anew, of the whole sample pool.
e2e: $(STAMP) chromium
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[e2e]'
	$(BIN)/python -m pytest -m e2e tests/e2e

chromium:
	@if [ -z "$$DEITA_CHROMIUM" ] && ! which $(CHROMIUMS) 2> /dev/null | grep -q .; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core \
				|| echo "No chromium to be had here: the browser test is skipped."; \
		else echo "The browser test is skipped: install chromium and fonts-dejavu-core, or name a Chromium in DEITA_CHROMIUM."; fi; fi

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-output ui-output .deita
