# What there is to run. `make help` lists it.

BENCH      := go run ./test/controlplane/cmd/bench
TIMEOUT    ?= 30m
FUZZTIME   ?= 10s
BENCHTIME  ?= 1s
BENCHPKGS  ?= ./webhook/... ./internal/... ./test/webhook/...
IMG        ?= flux-admission:dev
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS      := internal/tools
LINT       := bin/golangci-lint

export CGO_ENABLED ?= 0

.PHONY: help demo test unit envtest e2e bench fuzz generate lint verify build image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## tell the story of the three mistakes on a real API server; DEMO_EXIT=1 ends by itself
	@$(BENCH) build
	@go build -o bin/demo ./test/demo
	@exec bin/demo

test: ## unit tests, rule cases, parity, and the rules on the real API server
	@$(BENCH) build
	go test -timeout $(TIMEOUT) -count 1 -p 2 ./...

unit: ## what needs no API server
	go test -timeout $(TIMEOUT) $$(go list ./... | grep -v /test/) ./test/conformance/...

envtest: ## what needs a real API server
	@$(BENCH) build
	go test -timeout $(TIMEOUT) -count 1 -p 2 ./test/...

e2e: ## commits through real Flux controllers
	@$(BENCH) build --flux
	go test -timeout $(TIMEOUT) -count 1 -p 1 -tags e2e ./test/e2e/... ./test/flux/...

bench: ## what a review costs, next to a handler that always allows and to Helm's own validation
	@$(BENCH) build
	go test -timeout $(TIMEOUT) -p 1 -run '^$$' -bench . -benchtime $(BENCHTIME) $$(go list $(BENCHPKGS) 2>/dev/null)

# Go's fuzzer sometimes reports the end of its own time as a failure, "context deadline exceeded", with no failing input. That alone
# is none.
fuzz: ## every fuzz target for FUZZTIME each
	@set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			go test -timeout $(TIMEOUT) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$pkg > "$$log" 2>&1 || { \
				cat "$$log"; \
				grep -q 'context deadline exceeded' "$$log" && ! grep -qE 'Failing input|panic|_test.go:' "$$log"; \
			}; \
			tail -n 1 "$$log"; \
		done; \
	done

generate: ## write everything that is generated
	go run -C $(TOOLS)/generate .
	go generate ./...

lint: ## golangci-lint, the Dockerfile's own linter, and the list of words that are not used here
	go build -C $(TOOLS)/golangci-lint -o $(CURDIR)/$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(LINT) run
	go run -C $(TOOLS)/dockerlint . ../../../Dockerfile
	go run ./$(TOOLS)/wordlint --report-only --counts 10

verify: ## generated files are fresh, modules are tidy
	go run -C $(TOOLS)/generate . --check
	go generate ./...
	go mod tidy -diff
	@git diff --exit-code --stat || { echo "generated files are stale: run make generate and commit"; exit 1; }

build: ## bin/flux-admission, static
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/flux-admission ./cmd/flux-admission

image: ## build the image with docker, or what stands for it
	docker build --build-arg VERSION=$(VERSION) -t $(IMG) .

clean: ## remove what was built in the tree; the bench's programs stay in the cache directory
	rm -rf bin dist
