# `make` lists the targets. All of them keep to .local/ of this clone.
SHELL := bash
bin := .local/venv/bin
# `down` must work when the environment is already gone.
python = $(or $(wildcard $(bin)/python),python3)

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: ## install what is needed: Debian's packages (as root) and .local/venv
	@scripts/setup run

.PHONY: demo
demo: setup ## show the whole story: a definition becomes an answered request, drift is corrected
	@$(bin)/python -m stack.demo

.PHONY: up
up: setup ## start podman, the proxy and the agent below .local/; then: source .local/env
	@$(bin)/python -m stack up

.PHONY: down
down: ## stop them and remove all they made
	@$(python) -m stack down

.PHONY: test
test: ## run all tests on real parts and show what they cover
	@scripts/setup test
	@$(bin)/pytest --numprocesses=2 --dist=loadscope --cov --cov-report=term:skip-covered $(TESTS)

.PHONY: check
check: ## format, lint, types, directions of imports, generated code, contract
	@scripts/setup check
	$(bin)/ruff format --check --quiet
	$(bin)/ruff check --quiet
	$(bin)/mypy
	$(bin)/lint-imports --no-cache
	scripts/generate --check
	scripts/buf

.PHONY: bench
bench: ## measure against the floor and the peers
	@scripts/setup bench
	@$(bin)/python -m benchmarks

.PHONY: generate
generate: ## generate api/gen from api/proto, docs/reference/ from the code
	@scripts/setup check
	scripts/generate
	$(bin)/python -m scripts.docs
	$(bin)/python -m scripts.reference

.PHONY: constraints
constraints: ## pin the versions that .local/venv has now
	@$(bin)/pip freeze --all --exclude-editable | grep -v '^pip==' >constraints.txt

.PHONY: clean
clean: down ## remove everything that was made here, .local/ too
	@rm -rf .local build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .import_linter_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
