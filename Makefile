# Each target first makes .venv with what it needs; nothing is installed outside of it.
PYTHON ?= python3
BIN := .venv/bin
# Large pages for what XLA allocates anew in every step: a tenth less CPU time (docs/speed.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile -q

.PHONY: demo test processes parity lint beam bench parts plan clean

demo: .venv/core.done      ## build phantoms, train, reward, predict, evaluate, export
	$(BIN)/python -m launch.demo --workdir=demo

test: .venv/test.done      ## the tests, without torch (golden values)
	$(PYTEST) -m "not parity and not processes"

processes: .venv/test.done ## SFT and GRPO as two and four processes on this machine, one of them killed (half an hour)
	$(BIN)/python -m pytest -q -m processes

parity: .venv/parity.done  ## the live comparisons with torch and transformers
	$(PYTEST) -m parity

lint: .venv/lint.done      ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

beam: .venv-beam/done      ## the build on Apache Beam's direct runner, which wants an environment of its own
	.venv-beam/bin/python -m pytest -q tests/data/test_bench_beam.py

bench: .venv/parity.done   ## what a step costs here, beside transformers (and TRL, after benchmarks/other_environments.sh)
	$(BIN)/python -m launch.benchmark --sizes=S,M --out=bench

parts: .venv/test.done     ## the benchmarks of single parts that fit a laptop
	for program in benchmarks/*.py; do $(BIN)/python $$program || exit 1; done

PLAN := $(BIN)/python -m launch.plan
BUCKET := --config.data.buckets='((1024,1024),)'

plan: .venv/plan.done      ## what the 7B model needs on three kinds of TPU pod (some hours on two cores, no TPU)
	failed=0; for topology in v5e:8x8 v6e:8x8 v5p:4x4x4; do \
		$(PLAN) --config=configs/sft.py:qwen2_vl_7b --config.batch_size=256 --config.accumulation=2 $(BUCKET) \
			--topology=$$topology --out=plans/$$topology/sft || failed=1; \
		$(PLAN) --config=configs/grpo.py:qwen2_vl_7b --config.batch_size=32 --config.accumulation=1 \
			--config.rollout.max_new_tokens=512 --config.data.buckets='((512,1024),)' --config.mesh.tensor=2 \
			--config.model.remat=most --topology=$$topology --out=plans/$$topology/grpo || failed=1; \
		$(PLAN) --config=configs/process_reward.py:qwen2_vl_7b $(BUCKET) \
			--topology=$$topology --out=plans/$$topology/process_reward || failed=1; \
	done; exit $$failed  # 1: something does not fit, see its table

clean:
	rm -rf .venv .venv-beam demo

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "chestx_jax needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/core.done: pyproject.toml | .venv/made
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/test.done: pyproject.toml | .venv/made
	$(BIN)/python -m pip install --quiet -e '.[test,llm]'
	touch $@

.venv/parity.done: pyproject.toml | .venv/made
	$(BIN)/python -m pip install --quiet -e '.[test,llm,parity]'
	touch $@

.venv/lint.done: pyproject.toml | .venv/made
	$(BIN)/python -m pip install --quiet -e '.[test,llm,lint]'
	touch $@

.venv/plan.done: pyproject.toml | .venv/made
	$(BIN)/python -m pip install --quiet -e '.[plan]'
	touch $@

.venv-beam/done: pyproject.toml
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/python -m pip install --quiet -e '.[beam]' 'pytest>=9' 'hypothesis>=6.150'
	touch $@
