# The tasks of this repository. `make help` lists them.

TESTENV    := go run ./test/controlplane/cmd/testenv
TIMEOUT    ?= 30m
FUZZTIME   ?= 10s
BENCHTIME  ?= 1s
SOAK_TIME  ?= 10m
BENCHPKGS  ?= ./webhook/... ./internal/... ./test/webhook/... ./test/scale/... ./test/speed/...
IMG        ?= flux-admission:dev
# The version of the packaged chart, without a v; by default that of Chart.yaml.
CHART_VERSION ?= $(shell sed -n 's/^version: //p' manifests/chart/Chart.yaml)
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS      := internal/tools
# Where the tests on a real API server write which permissions the webhook server used.
CALLS      := $(CURDIR)/bin/calls
# A minor version of Kubernetes for which test/controlplane/modules has a module.
PREVIOUS   := 1.36
LINT       := bin/golangci-lint

# What runs inside the process of its tests, so that the race detector and the coverage profile see it.
PRODUCT    := ./api/... ./cmd/... ./internal/... ./manifests/... ./mutators/... ./validators/... ./webhook/...
INPROCESS  := $(PRODUCT) ./test/chartrepo/... ./test/conformance/... ./test/gitserver/... ./test/ruletest/...

empty :=
space := $(empty) $(empty)
comma := ,

export CGO_ENABLED ?= 0

.PHONY: help demo test unit test-race cover envtest e2e previous-kubernetes privileges soak bench fuzz generate lint verify alerts freshness platforms vulncheck build image chart release-tools release-dry-run site clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## show the three mistakes on a real API server; with DEMO_EXIT=1 it ends by itself
	@$(TESTENV) build
	@go build -o bin/demo ./test/demo
	@exec bin/demo

test: ## unit tests, rule cases, conformance of the drivers, and the rules on a real API server
	@$(TESTENV) build
	@rm -rf $(CALLS)
	FLUX_ADMISSION_TEST_PRIVILEGES=$(CALLS) go test -timeout $(TIMEOUT) -count 1 -p 2 ./...
	go test -C $(TOOLS)/release -timeout $(TIMEOUT) ./...

unit: ## the tests that need no API server
	go test -timeout $(TIMEOUT) $$(go list ./... | grep -v /test/) ./test/conformance/...

test-race: ## unit tests with the race detector, which needs a C compiler; long tests of sequential code are shortened
	CGO_ENABLED=1 go test -race -short -timeout $(TIMEOUT) $(INPROCESS)

cover: ## statement and branch coverage per package, and the least covered files
	@mkdir -p bin/cover
	GOCOVERDIR=$(CURDIR)/bin/cover go test -timeout $(TIMEOUT) -covermode count -coverprofile bin/cover.out \
		-coverpkg $(subst $(space),$(comma),$(PRODUCT)) $(INPROCESS) > bin/cover.log || { cat bin/cover.log; exit 1; }
	@grep -vE '^[^:]*/(internal/tools|generate|pack)/' bin/cover.out > bin/cover.product.out
	@go run ./$(TOOLS)/cover --least 10 bin/cover.product.out

envtest: ## the tests that need a real API server
	@$(TESTENV) build
	go test -timeout $(TIMEOUT) -count 1 -p 2 ./test/...

e2e: ## commits through the controllers of Flux, certificates of those of cert-manager
	@$(TESTENV) build --flux --cert-manager
	FLUX_ADMISSION_TEST_PRIVILEGES=$(CALLS) go test -timeout $(TIMEOUT) -count 1 -p 1 -tags e2e ./test/e2e/... ./test/flux/... ./test/certmanager/...

previous-kubernetes: ## the write paths, the manifests and the chart on an API server of the minor version before
	@FLUX_ADMISSION_TEST_KUBERNETES=$(PREVIOUS) $(TESTENV) build
	FLUX_ADMISSION_TEST_KUBERNETES=$(PREVIOUS) go test -timeout $(TIMEOUT) -count 1 -p 2 ./test/admission ./test/manifests

privileges: ## after test and e2e: no call of the webhook server was refused, and each permission of the manifests was used
	go run ./test/privileges/cmd/privileges $(CALLS)

soak: ## two replicas under load, attacks and faults for SOAK_TIME: no verdict wrong or lost, memory flat
	@$(TESTENV) build
	SOAK_TIME=$(SOAK_TIME) go test -timeout 0 -count 1 -v ./test/soak

bench: ## the cost of a review, next to a handler that always allows and to Helm, and that of commands, next to other tools
	@$(TESTENV) build
	go test -timeout $(TIMEOUT) -p 1 -run '^$$' -bench . -benchtime $(BENCHTIME) $$(go list $(BENCHPKGS) 2>/dev/null)

# Go's fuzzer sometimes reports the end of its own time as a failure, "context deadline exceeded", with no failing input. That alone
# is not a failure.
fuzz: ## every fuzz target for FUZZTIME each
	@set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	for dir in $$(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n 1 dirname | sort -u); do \
		for target in $$(go test -list '^Fuzz' ./$$dir | grep '^Fuzz' || true); do \
			echo "$$dir $$target"; \
			go test -timeout $(TIMEOUT) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x ./$$dir > "$$log" 2>&1 || { \
				cat "$$log"; \
				grep -q 'context deadline exceeded' "$$log" && ! grep -qE 'Failing input|panic|_test.go:' "$$log"; \
			}; \
			tail -n 1 "$$log"; \
		done; \
	done

generate: ## write everything that is generated
	go run -C $(TOOLS)/generate .
	go generate ./...

lint: ## golangci-lint, linters for the Dockerfile and the workflows, and the list of words that are not used here
	go run ./$(TOOLS)/wordlint
	go build -C $(TOOLS)/golangci-lint -o $(CURDIR)/$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(LINT) run
	go run -C $(TOOLS)/dockerlint . ../../../Dockerfile
	go build -C $(TOOLS)/actionlint -o $(CURDIR)/bin/actionlint github.com/rhysd/actionlint/cmd/actionlint
	bin/actionlint

verify: ## generated files are up to date, modules are tidy
	go run -C $(TOOLS)/generate . --check
	go generate ./...
	go mod tidy -diff
	@git diff --exit-code --stat || { echo "generated files are stale: run make generate and commit"; exit 1; }

alerts: ## the alerts, with Prometheus' own rule tester
	@mkdir -p bin/alerts
	go build -C $(TOOLS)/promtool -tags remove_all_sd -o $(CURDIR)/bin/promtool github.com/prometheus/prometheus/cmd/promtool
	go run ./$(TOOLS)/alerts manifests/monitoring/prometheusrule.yaml manifests/monitoring/prometheusrule_test.yaml bin/alerts
	bin/promtool check rules bin/alerts/annotated.yaml
	bin/promtool test rules bin/alerts/test.yaml

freshness: ## report how old the built-in definitions are, against what the module proxy serves
	@go run ./$(TOOLS)/freshness

platforms: ## the program compiles for Windows and macOS
	GOOS=windows go build -o /dev/null ./cmd/flux-admission
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/flux-admission

vulncheck: ## known vulnerabilities in the code that the program calls; needs the internet, and reports when it was not reached
	go build -C $(TOOLS)/govulncheck -o $(CURDIR)/bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	.ci/vulncheck

build: ## bin/flux-admission, static
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/flux-admission ./cmd/flux-admission

image: ## build both images with docker or a compatible builder
	docker build --build-arg VERSION=$(VERSION) -t $(IMG) .
	docker build --build-arg VERSION=$(VERSION) -t $(IMG)-ci --target ci .

bin/helm: $(TOOLS)/helm/go.mod
	go build -C $(TOOLS)/helm -o $(CURDIR)/bin/helm helm.sh/helm/v4/cmd/helm

chart: bin/helm ## lint the Helm chart, and package it into bin/chart
	rm -rf bin/chart
	bin/helm lint --strict manifests/chart
	bin/helm package manifests/chart --version $(CHART_VERSION) --app-version v$(CHART_VERSION) --destination bin/chart

release-tools: bin/helm ## build goreleaser and what it calls into bin
	go build -C $(TOOLS)/goreleaser -o $(CURDIR)/bin/goreleaser github.com/goreleaser/goreleaser/v2
	go build -C $(TOOLS)/cyclonedx-gomod -o $(CURDIR)/bin/cyclonedx-gomod github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

release-dry-run: release-tools ## build and verify in dist everything that a tag publishes; signatures and images need the release workflow
	bin/goreleaser check
	PATH="$(CURDIR)/bin:$$PATH" bin/goreleaser release --snapshot --clean --skip sign
	go run -C $(TOOLS)/release . verify dist bin/chart

site: ## the documentation as a site with a search, in bin/site/dist; needs Node.js and the npm registry
	rm -rf bin/site
	mkdir -p bin/site
	cp -R $(TOOLS)/site/package.json $(TOOLS)/site/package-lock.json $(TOOLS)/site/.vitepress docs bin/site
	cd bin/site && npm ci --no-audit --no-fund && npx --no-install vitepress build .

clean: ## remove what was built in the tree; the programs of the test control plane stay in the cache directory
	rm -rf bin dist
