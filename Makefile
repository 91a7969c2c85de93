# make demo · make test · make check · make bench do all the set-up themselves.
PY := .venv/bin/python
BPF := src/crossway/bpf/crossway.bpf.o
CNI := src/crossway/plugins/crossway-cni
LIBVIRT := src/crossway/plugins/crossway-libvirt
PROBE := src/crossway/lab/battery/probe
CFLAGS := -target bpf -mcpu=v3 -O2 -g -fno-strict-aliasing -Wall -Wextra -Werror -Wno-unused-parameter -Ibpf/include -Ibpf \
	-isystem /usr/include/$(shell uname -m)-linux-gnu

.PHONY: battery probe cflags cni libvirt cycles demo test check fuzz bench bench-api bench-bodies bench-attach bench-move bench-neighbours bpf setup lock tempest schemathesis

setup:
	@scripts/setup

bpf: $(BPF)

cni: $(CNI)

libvirt: $(LIBVIRT)

# Static, so that they start at once and run on any host's system.
src/crossway/plugins/crossway-%: src/crossway/plugins/%.c src/crossway/plugins/ask.h
	clang -std=gnu17 -static -Os -s -Wall -Wextra -Werror -o $@.tmp $<
	@mv $@.tmp $@

probe: $(PROBE)

# Static as well: the same in a container, in a guest and on a server.
$(PROBE): src/crossway/lab/battery/probe.c
	clang -std=gnu17 -static -Os -s -Wall -Wextra -Werror -o $@.tmp $<
	@mv $@.tmp $@

cflags:
	@echo $(CFLAGS)

$(BPF): $(wildcard bpf/*.c bpf/*/*.c bpf/*/*.h)
	@mkdir -p $(@D)
	clang $(CFLAGS) -c bpf/crossway.bpf.c -o $@.tmp
	@mv $@.tmp $@

demo: setup
	@scripts/guest
	@$(PY) -m crossway.lab.demo $(ARGS)

# Every case over all pairs of container, guest and server: make battery ARGS='security'; PAGE=1 writes docs/battery.md
battery: setup
	@scripts/guest
	@$(PY) -m crossway.lab.battery $(if $(PAGE),--page docs/battery.md) $(ARGS)

# What does not watch the clock runs on all cores, a file a core; servers under load and the stories of the lab one after another.
QUICK := tests/unit tests/store tests/bpf tests/docs

test: setup
ifdef ARGS
	@$(PY) -m pytest $(ARGS)
else
	@status=0; $(PY) -m pytest -n auto --dist loadfile $(QUICK) || status=$$?; $(PY) -m pytest tests/api tests/lab || status=$$?; exit $$status
endif

check: setup
	@.venv/bin/ruff check src tests bench
	@.venv/bin/ruff format --check -q src tests bench
	@.venv/bin/mypy -p crossway -p bench
	@.venv/bin/lint-imports
	@$(PY) scripts/reference --check

# 10,000 ports come and go by Docker, CNI, taps, edges and hosts' own interfaces, while parts are killed: make cycles SEED=2
cycles: setup
	@CYCLES=$(or $(CYCLES),10000) SEED=$(or $(SEED),1) $(PY) -m pytest -s --timeout 7200 tests/lab/test_cycles_ways.py

# Hostile frames for the data plane: make fuzz FRAMES=1000000 SEED=1
fuzz: setup
	@PYTHONPATH=tests $(PY) -m bpf.fuzz --frames $(or $(FRAMES),1000000) --seed $(or $(SEED),1)

bench: setup
	@$(PY) -m bench $(ARGS)
	$(if $(ARGS),,@$(PY) -m bench.api)

# The API with 1,000, 10,000 and 100,000 ports, beside Neutron: make bench-api ARGS='--sizes 1000 --repeats 3'
bench-api: setup
	@$(PY) -m bench.api $(ARGS)

# How long others wait while a server works on the largest bodies that it takes: make bench-bodies ARGS='--only port'
bench-bodies: setup
	@$(PY) -m bench.bodies $(ARGS)

# CNI ADD beside Debian's bridge plugin: make bench-attach ARGS='--repeats 20 --burst 0'
bench-attach: setup
	@$(PY) -m bench.attach $(ARGS)

# A guest moves live over Crossway and over plain bridges: make bench-move ARGS='--repeats 6'
bench-move: setup
	@$(PY) -m bench.move $(ARGS)

# What a victim keeps while another tenant floods: make bench-neighbours ARGS='--repeats 1 --cases flows,names'
bench-neighbours: setup
	@$(PY) -m bench.neighbours $(ARGS)

# OpenStack's own tests against Crossway with a real Keystone: make tempest ARGS='REGEX --concurrency 2'; with PLUGIN=1 Neutron's own tests of its API
tempest: setup
	@$(PY) scripts/tempest $(if $(PLUGIN),--plugin) $(ARGS)

# The packet tests on Debian 12's own kernel, under QEMU; on Debian 13's: make kernel-test RELEASE=6.12
kernel-test: setup
	@scripts/kernel-test $(ARGS)

# 10,000 requests that the OpenAPI document allows, and what is beside them.
schemathesis: setup
	@SCHEMATHESIS_CASES=$(or $(CASES),40) SCHEMATHESIS_PHASES=coverage,fuzzing,stateful \
		$(PY) -m pytest -q -s --timeout 1800 tests/api/test_openapi.py

# Renew the locked dependencies.
lock: setup
	.venv/bin/uv pip compile -q --universal --generate-hashes --no-annotate --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements.lock
