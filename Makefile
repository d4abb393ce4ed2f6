# Crossfade. `make` alone lists the targets.
SHELL := bash
.DEFAULT_GOAL := help

GO      ?= go
TOOLS   := $(CURDIR)/.tools
LINT_VERSION := v2.15.0
LINT    := $(TOOLS)/golangci-lint-$(LINT_VERSION)
HELM    := $(TOOLS)/helm-v3.22.0
VALIDATE := $(TOOLS)/kubectl-validate-v0.0.4
FUZZTIME ?= 2m
# The doors that strangers knock at, fuzzed for some seconds by every `make test`.
# The seeds of all targets run there as plain tests.
DOORS   := FuzzExtract FuzzClassify FuzzOriginal FuzzParse FuzzHTPasswd FuzzLoad

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## four teams on recorded Luigi traffic, nothing needed but Go; Ctrl-C ends
	@$(GO) run ./cmd/crossfade demo $(ARGS)

.PHONY: build
build: ## bin/crossfade, as a release has it (.goreleaser.yaml)
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/crossfade ./cmd/crossfade

.PHONY: reproducible
reproducible: ## build this commit twice, in two places, and compare the bytes
	.ci/reproducible

.PHONY: test
test: needs ## everything with the race detector, a real redis-server, nginx, Caddy, Chromium and identity provider, and a few seconds of fuzzing
	$(GO) test -race -timeout 8m ./...
	cd deploy/verify && $(GO) test -count=1 ./image
	.ci/fuzz 3s $(DOORS)

.PHONY: needs
needs: ## install what the tests start, or name what is missing and how to get it
	@.ci/need redis-server=redis-server,redis chromium=chromium,google-chrome promtool=prometheus nginx=nginx caddy=caddy openssl=openssl node:20.12=nodejs,node npm=npm,node \
		$(if $(filter Linux,$(shell uname -s)),systemd-analyze=systemd)
	@.ci/npm cmd/crossfade/providertest/testdata provider

.PHONY: dashboards
dashboards: ## dashboards/grafana/*.json from their source, and the Helm chart's copies of them and of the rules
	cd dashboards/generate && $(GO) run . ../grafana
	cp dashboards/grafana/*.json deploy/helm/crossfade/files/dashboards
	cp dashboards/rules/*.yaml deploy/helm/crossfade/files/rules

.PHONY: chart
chart: $(HELM) ## the Helm chart's schema as the configuration says, and its golden files as its templates say
	cd deploy/verify && $(GO) test -count=1 -run 'Schema|Reviewed|Notes' ./chart -update

.PHONY: check
check: $(LINT) $(HELM) $(VALIDATE) ## format, vet, lint, import directions, dashboards as their source says, the Helm chart
	@files=$$(gofmt -l cmd config dashboards deploy gateway legacy rollout); \
	if [ -n "$$files" ]; then echo "gofmt these files: $$files"; exit 1; fi
	$(GO) vet ./...
	$(LINT) run
	$(GO) mod verify
	$(GO) test -run 'TestImports' ./gateway
	cd dashboards/generate && $(GO) vet ./... && $(LINT) run && $(GO) mod verify && $(GO) test ./...
	@.ci/need promtool=prometheus
	cd deploy/verify && $(GO) vet ./... && $(LINT) run && $(GO) mod verify && $(GO) test -count=1 ./chart

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv $(TOOLS)/golangci-lint $(LINT)

$(HELM):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install helm.sh/helm/v3/cmd/helm@$(patsubst helm-%,%,$(@F))
	@rm -f $(TOOLS)/helm-v* && mv $(TOOLS)/helm $@

$(VALIDATE):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install sigs.k8s.io/kubectl-validate@$(patsubst kubectl-validate-%,%,$(@F))
	@rm -f $(TOOLS)/kubectl-validate-v* && mv $(TOOLS)/kubectl-validate $@

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (2m)
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## throughput against a bare proxy and with a stopped Redis from one run, then the micro-benchmarks
	$(GO) run ./cmd/crossfade/bench $(ARGS)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms ./gateway/... ./legacy ./rollout

.PHONY: clean
clean: ## remove what was built and installed here
	rm -rf bin .tools crossfade-demo
