# Everything a stranger needs: `make demo` and `make test` create .venv and install what is missing.
#
#   make help                           what there is
#   make demo PYTHON=/path/to/python    use this Python, not the first suitable one found

VENV      ?= .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What `make bench` passes to each script, and where their JSON lines and plots go.
BENCH     ?=
RESULTS   ?= runs/bench
# 3.11 first: it is the version that is tested.  A Python with its venv module goes before one without.
PYTHON    ?= $(shell for need in 'ensurepip, venv' sys; do \
               for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
                 $$p -c "import sys, $$need; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
                   && echo $$p && exit; \
               done; done)

.PHONY: help demo test bench bench-peers prove-full browser-test chaos soak fuzz clean install
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help:
	@echo 'make demo          install into $(VENV), then run scenarios/quickstart.toml'
	@echo 'make test          install, lint, check the format, check types, run the tests'
	@echo 'make prove-full    install, then the whole proof campaign, with runs/prove/report.html'
	@echo 'make bench         install, then measure seconds, rounds and bytes of policies and gates (BENCH=--quick)'
	@echo 'make bench-peers   install, peers too, then measure other frameworks on the same guard beside this one'
	@echo 'make browser-test  install, chromium too (Debian, as root), then test the report page in it'
	@echo 'make chaos         install, then kill, stop and cut three server processes, 100 kills and more'
	@echo 'make soak          install, then 200 sessions at once and 10,000 in all: does anything grow?'
	@echo 'make fuzz          install, then five minutes of wrong bytes for everything that reads bytes'
	@echo 'make clean         remove $(VENV), caches and build output (reports in runs/ stay)'

demo: install
	$(BIN)/siguard run scenarios/quickstart.toml --out runs/quickstart

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

bench: install
	$(BIN)/python bench/run.py $(BENCH) --out $(RESULTS)/policies.jsonl
	$(BIN)/python bench/processes.py $(BENCH) --out $(RESULTS)/processes.jsonl
	$(BIN)/python bench/networks.py $(BENCH) --out $(RESULTS)/networks.jsonl
	$(BIN)/python bench/gates.py $(BENCH) --out $(RESULTS)/gates.jsonl
	$(BIN)/python bench/growth.py $(BENCH) --out $(RESULTS)/growth.jsonl
	$(BIN)/python bench/plots.py $(addprefix $(RESULTS)/,policies.jsonl networks.jsonl growth.jsonl) --to $(RESULTS)

bench-peers: install
	$(BIN)/python bench/peers.py --install

prove-full: install
	$(BIN)/siguard prove --full --html runs/prove/report.html

browser-test: install
	@command -v chromium >/dev/null 2>&1 \
	  || { test "$$(id -u)" = 0 && apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } \
	  || { \
	    echo 'error: chromium is not installed, and could not be installed.' >&2; \
	    echo 'cure:  apt install chromium (Debian; as root), or put another Chromium on the PATH under that name.' >&2; \
	    exit 1; }
	$(BIN)/pytest tests/browser

# Campaigns: minutes each, with real processes and signals (Linux); each prints its seed, and exits 1 on a failure.
chaos: install
	$(BIN)/python tests/campaigns/chaos.py --kills 100

soak: install
	$(BIN)/python tests/campaigns/soak.py --sessions 10000 --burst 200

fuzz: install
	$(BIN)/python tests/campaigns/fuzz.py --minutes 5

install: $(INSTALLED)

# The package is installed in place, so only a change of pyproject.toml needs another installation.
$(INSTALLED): pyproject.toml $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# pip is the last thing that `venv` puts in place: a half-made environment does not have it.
$(BIN)/pip:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo 'error: no Python 3.11 or newer found.' >&2; \
	  echo 'cure:  install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11' >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) does not run, or is older than Python 3.11.' >&2; \
	  echo 'cure:  name a newer one: make PYTHON=/path/to/python3.11' >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: $(PYTHON) has no venv module (it imports venv and ensurepip to make $(VENV)).' >&2; \
	  echo 'cure:  install it (Debian, Ubuntu: apt install python3-venv), or name another Python: make PYTHON=/path/to/python3.11' >&2; \
	  exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

clean:
	rm -rf "$(VENV)" build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find siguard tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
