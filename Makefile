# make demo   installs, selects from the sample pool through the real Prefect flow, prints where the results are
# make ui     installs, starts a Prefect server with deployments for the sample pool, prints the address to open
# make up     builds the image and starts everything in containers: Prefect, Postgres, S3 and a worker
# make test   installs, runs all tests except those of `make e2e`, in two processes: they mostly wait for servers
# make e2e    runs the tests that need a real Prefect server or a browser; installs what they need
# make trainers  reads subsets with LLaMA-Factory's and axolotl's own code, in environments of their own (2 GB each)
# make lint   runs ruff and the type checker
# make docs   builds the documentation into site/
# make clean  removes everything that the other targets created

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

CHROMIUMS := chromium chromium-browser google-chrome

.PHONY: demo ui up test e2e trainers chromium lint docs clean
.DEFAULT_GOAL := demo

# pip, not uv: where pip knows a CPU build of torch of the pinned version, it takes that one; uv's resolver would not.
# PyPI itself has only the build for CUDA. To get a CPU build from PyTorch's own index:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/deita select --input examples/pool.jsonl --output demo-output --store .deita --budget 150 --overwrite

ui: $(STAMP)
	mkdir -p ui-output
	$(BIN)/python -m deployments.ui --root ui-output --input examples/pool.jsonl --budget 150

up:
	docker compose up --build

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not e2e' -n 2 --dist loadfile

# DEITA_SCREENSHOTS=1 make e2e retakes the pictures in docs/screenshots, with the whole sample pool.
e2e: $(STAMP) chromium
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[e2e,explore]'
	$(BIN)/python -m pytest -m e2e tests/e2e

# Without torchvision, whose build must fit that of torch; axolotl without what only its kernels need.
TRAINERS := .trainers
trainers: $(STAMP)
	test -x $(TRAINERS)/llama_factory/bin/python || $(PYTHON) -m venv $(TRAINERS)/llama_factory
	$(TRAINERS)/llama_factory/bin/python -m pip install --quiet llamafactory==0.9.5 torch==2.13.0
	$(TRAINERS)/llama_factory/bin/python -m pip uninstall --quiet --yes torchvision torchaudio
	test -x $(TRAINERS)/axolotl/bin/python || $(PYTHON) -m venv $(TRAINERS)/axolotl
	$(TRAINERS)/axolotl/bin/python -m pip install --quiet torch==2.13.0 transformers==5.16.1 datasets==4.8.4 trl==1.9.0 peft==0.20.0 \
		accelerate==1.13.0 addict fire colorama python-dotenv
	$(TRAINERS)/axolotl/bin/python -m pip install --quiet --no-deps axolotl==0.19.0
	$(BIN)/python -m tests.trainers.write $(TRAINERS)/data
	$(TRAINERS)/llama_factory/bin/python tests/trainers/check_llama_factory.py $(TRAINERS)/data
	$(TRAINERS)/axolotl/bin/python tests/trainers/check_axolotl.py $(TRAINERS)/data

chromium:
	@if [ -z "$$DEITA_CHROMIUM" ] && ! which $(CHROMIUMS) 2> /dev/null | grep -q .; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core \
				|| echo "Chromium could not be installed: the browser test is skipped."; \
		else echo "The browser test is skipped: install chromium and fonts-dejavu-core, or set DEITA_CHROMIUM to a browser."; fi; fi

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(TRAINERS) demo-output ui-output .deita site
