# make run: try it.  make demo-costs: see what a bill looks like.  make test: check it.
# make serve: the production entry on REDIS_URL.  make bench: what it costs.  make soak: break it, for as long as you like.
# make draw-dashboards: see both Grafana dashboards of that without Grafana.
# make test-chart: the chart and the release gate.  make test-mesh: the chart in a mesh.  make test-image: build the Dockerfile for real.
# make test-clients: call it from seven languages and tools.  make test-edge: the edge in workerd, and the packages.
# make docs: the documentation as a site, which make run serves at /docs/.

SHELL := /bin/bash
# The project brings its own Node; npm's programs come before the machine's. Then Go and Rust where their own installers put
# them, for shells that were not told: a distribution's are often too old.
export PATH := $(CURDIR)/node_modules/.bin:/usr/local/go/bin:$(HOME)/.cargo/bin:$(PATH)

# Not what the examples install and generate.
DOCS_SOURCES := $(shell find README.md CHANGELOG.md CONTRIBUTING.md docs examples helm/parley bench/README.md \
	\( -name node_modules -o -name gen -o -name target -o -name .venv -o -name dist \) -prune -o -type f -print)
CONSOLE_SOURCES := $(shell find web/index.html web/vite.config.ts web/src web/public client gen -type f)

# How the soak is asked for; see test/soak/main.ts.
export SEEDS SEED MINUTES TEETH

.PHONY: run demo-costs draw-dashboards serve test test-chart test-mesh mesh test-image test-edge test-clients client-tools client-toolchains soak bench install tools chart-tools mesh-tools console docs check

# EXAMPLE=approval: a team of examples/teams, and a scripted model.
run: install console docs
	@exec node standalone/main.ts $(EXAMPLE)

demo-costs: install console docs
	@exec node standalone/demo-costs.ts

# Pages and pictures in .cache/dashboards, or in FOLDER.
draw-dashboards: install tools console
	@exec node test/dashboards/draw.ts $(FOLDER)

serve: install console docs
	@exec node src/main.ts

test: install tools console docs
	NODE_COMPILE_CACHE=$(CURDIR)/.cache/node-compile vitest run

# The edge entry in workerd, and the packages that users install.
test-edge: install tools console
	NODE_COMPILE_CACHE=$(CURDIR)/.cache/node-compile vitest run --config vitest.edge.config.ts

# The chart and the release gate, with Helm, kubeconform, Prometheus and Alertmanager.
test-chart: install chart-tools console
	vitest run --config vitest.chart.config.ts

# The chart on a real control plane, istiod and Envoy, as root. Building those takes a quarter of an hour, once.
test-mesh: install mesh-tools console
	test/mesh/enter.sh vitest run --config vitest.mesh.config.ts

# The Dockerfile built for real, as root, without Docker; a cold build takes some minutes.
test-image: install
	@$(call need,buildah,buildah)
	@$(call need,debootstrap,debootstrap)
	vitest run --config vitest.image.config.ts

# The same cluster, empty, with a shell in it: docs/operations by hand.
mesh: install mesh-tools console
	@test/mesh/enter.sh node test/mesh/hand.ts

# The clients of examples/ in their own languages, by the commands of their READMEs, and the port as their libraries see
# it; cold, the builds take some minutes.
test-clients: install client-tools console
	vitest run --config vitest.clients.config.ts

# Generates the client of a language, and brings the plugins that make it: make example-go.
example-%: install
	@exec node examples/generate.ts $*

soak: install tools
	@exec node test/soak/main.ts

bench: install tools
	@exec node bench/main.ts $(BENCH_FLAGS)

# What .ci/run runs beside the tests, in one go.
check: install
	tsc -p . && tsc -p web && tsc -p docs/.vitepress
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

docs: docs/.vitepress/dist/index.html

docs/.vitepress/dist/index.html: $(DOCS_SOURCES) node_modules/.package-lock.json
	npm run --silent build:docs -- --logLevel warn
	@touch $@

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

chart-tools: install
	@$(call need,go,golang-go)
	@$(call need,promtool,prometheus)
	@$(call need,amtool,prometheus-alertmanager)
	@node test/support/helm.ts
	@node test/support/kubernetes-schemas.ts

mesh-tools: chart-tools
	@$(call need,redis-server,redis-server)
	@$(call need,ip,iproute2)
	@$(call need,iptables,iptables)
	@$(call need,openssl,openssl)
	@$(call need,pip3,python3-pip)
	@node test/mesh/mesh-tools.ts

client-tools: install client-toolchains
	@$(call need,redis-server,redis-server)
	@$(call need,chromium,chromium)
	@node test/support/grpcurl.ts

# What examples/ needs of the machine.
client-toolchains:
	@$(call need,curl,curl)
	@$(call need,jq,jq)
	@$(call need,go,golang-go)
	@GOTOOLCHAIN=local go env GOVERSION | grep -qE '^go1\.(2[1-9]|[3-9][0-9])' || { echo "This Go is too old to get a newer one by itself. Install Go 1.21 or newer." >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is missing. Install Rust 1.88 or newer; Debian's may be older." >&2; exit 1; }
	@$(call need,javac,default-jdk-headless)
	@$(call need,mvn,maven)
	@python3 -c 'import ensurepip' 2>/dev/null || { $(call need,python3-venv,python3-venv); }

# $(call need,command,package): installs the Debian package of a missing command as root; elsewhere says what to install.
define need
command -v $(1) >/dev/null && exit 0; \
if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $(2) && exit 0; \
fi; \
echo "$(1) is missing. Install it (on Debian: sudo apt-get install $(2)), then run make again." >&2; exit 1
endef
