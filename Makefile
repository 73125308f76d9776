# Two commands do all: `make run` for a whole node, `make test` for every test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := . deploy/environment.sh

.PHONY: help
help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

.PHONY: setup
setup: ## Install everything a node needs (run and test do it by themselves)
	@$(ENV) && nexus_setup

.PHONY: run
run: setup ## Start a whole node in the foreground, with a demo tenant on first start
	@$(ENV) && exec "$$APP_VENV/bin/nexus" up --demo --data "$$NEXUS_DATA"

.PHONY: test
test: setup ## Every test, on real parts
	@$(ENV) && nexus_setup_dev && exec "$$APP_VENV/bin/python" -m pytest tests -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-long
test-long: setup ## The long forms too: more examples, more kills
	@$(ENV) && nexus_setup_dev && exec "$$APP_VENV/bin/python" -m pytest tests $(ARGS)

.PHONY: branch-long
branch-long: setup ## A hub and two branches under faults for MINUTES (10); SEED repeats a run
	@$(ENV) && nexus_setup_dev && exec "$$APP_VENV/bin/python" -m tests.branch.run --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: demo-branch demo-branch-cut demo-branch-heal demo-branch-show
demo-branch: setup ## A hub and two branches in the foreground, over links that can be cut
	@$(ENV) && exec "$$APP_VENV/bin/nexus" demo branch --data "$$NEXUS_DATA-branches"
demo-branch-cut: setup ## Cut both links of the demo (SITE=north: one)
	@$(ENV) && exec "$$APP_VENV/bin/nexus" demo link cut $(or $(SITE),both) --data "$$NEXUS_DATA-branches"
demo-branch-heal: setup ## Make them whole again
	@$(ENV) && exec "$$APP_VENV/bin/nexus" demo link heal $(or $(SITE),both) --data "$$NEXUS_DATA-branches"
demo-branch-show: setup ## The walk: cut, work at both branches, heal, look
	@$(ENV) && exec "$$APP_VENV/bin/nexus" demo show --data "$$NEXUS_DATA-branches"

.PHONY: check
check: setup ## Lint, types, import rules, sizes
	@$(ENV) && nexus_setup_dev && exec "$$APP_VENV/bin/python" -m pytest tests/tidy $(ARGS)

.PHONY: bench
bench: setup ## Benchmarks, each with its ratio to a floor measured in the same run
	@$(ENV) && nexus_setup_dev && exec "$$APP_VENV/bin/python" -m tests.bench $(ARGS)

.PHONY: format
format: setup ## Let ruff format the code
	@$(ENV) && nexus_setup_dev && "$$APP_VENV/bin/ruff" format appliance tests && "$$APP_VENV/bin/ruff" check --fix appliance tests
