# make run: try it.  make demo-costs: see what a bill looks like.  make test: check it.
# make serve: the production entry on REDIS_URL.  make bench: what it costs.  make soak: break it, for as long as you like.
# make draw-dashboards: see both Grafana dashboards of that without Grafana.
# make test-image: build the Dockerfile for real.

SHELL := /bin/bash
# The project brings its own Node; npm's programs come before the machine's.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

CONSOLE_SOURCES := $(shell find web/index.html web/vite.config.ts web/src web/public gen -type f)

# How the soak is asked for; see test/soak/main.ts.
export SEEDS SEED MINUTES TEETH

.PHONY: run demo-costs draw-dashboards serve test test-image soak bench install tools console check

run: install console
	@exec node standalone/main.ts

demo-costs: install console
	@exec node standalone/demo-costs.ts

# Pages and pictures in .cache/dashboards, or in FOLDER.
draw-dashboards: install tools console
	@exec node test/dashboards/draw.ts $(FOLDER)

serve: install console
	@exec node src/main.ts

test: install tools console
	vitest run

# The Dockerfile built for real, as root, without Docker; a cold build takes some minutes.
test-image: install
	@$(call need,buildah,buildah)
	@$(call need,debootstrap,debootstrap)
	vitest run --config vitest.image.config.ts

soak: install tools
	@exec node test/soak/main.ts

bench: install tools
	@exec node bench/main.ts $(BENCH_FLAGS)

# What .ci/run runs beside the tests, in one go.
check: install
	tsc -p . && tsc -p web
	biome ci .
	buf lint
	buf format --diff --exit-code
	knip

# Not `npm ci`: it refuses a lock that lacks packages of other platforms, and some registries mirror only some platforms.
install: node_modules/.package-lock.json

node_modules/.package-lock.json: package.json package-lock.json
	@$(call need,npm,npm)
	npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

console: web/dist/index.html

web/dist/index.html: $(CONSOLE_SOURCES) node_modules/.package-lock.json
	npm run --silent build:console -- --logLevel warn

tools: install
	@$(call need,redis-server,redis-server)
	@$(call need,faketime,faketime)
	@$(call need,chromium,chromium)
	@$(call need,promtool,prometheus)
	@$(call need,amtool,prometheus-alertmanager)
	@$(call need,go,golang-go)
	@node test/support/grpcurl.ts
	@$(call need,curl,curl)
	@python3 -c 'import ensurepip' 2>/dev/null || { $(call need,a Python with venv,python3-venv); }
	@node test/support/openai-python.ts

# $(call need,command,package): installs the Debian package of a missing command as root; elsewhere says what to install.
define need
command -v $(1) >/dev/null && exit 0; \
if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $(2) && exit 0; \
fi; \
echo "$(1) is missing. Install it (on Debian: sudo apt-get install $(2)), then run make again." >&2; exit 1
endef
