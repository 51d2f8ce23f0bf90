# Everything needs Go alone, and the C compiler that -race wants; nothing needs root or Docker.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN = bin
# Static, stripped and reproducible: no paths, no build id, no version control stamp.
# And small, which is memory, too: with one HTTP/2 instead of two (vault/api brings
# its own), and no inlining but where the time goes: in the runtime and in cryptography.
# .goreleaser.yaml builds with the same flags, from the environment.
export PLAIN_FLAGS = -trimpath -buildvcs=false
export SMALL_FLAGS = -tags=nethttpomithttp2 -gcflags=all=-l -gcflags=runtime/...= -gcflags=internal/...= -gcflags=crypto/internal/...=
export LINK_FLAGS = -s -w -buildid=
LEAN = CGO_ENABLED=0 go build $(PLAIN_FLAGS) -ldflags "$(LINK_FLAGS) -X main.version=$(VERSION)"
BUILD = $(LEAN) $(SMALL_FLAGS)

# An image has the files of the commit's time, and the certificates of this machine.
ARCH = $(or $(GOARCH),$(shell go env GOARCH))
IMAGE ?= deaddrop:$(VERSION)
STAGE = bin/image/$(ARCH)
CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
CREATED ?= $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)

# goreleaser makes the release, cyclonedx-gomod says what is in it.
TOOLS = $(CURDIR)/bin/tools
GORELEASER = github.com/goreleaser/goreleaser/v2@v2.15.1
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
SNAPSHOT = $(shell git describe --exact-match --tags HEAD >/dev/null 2>&1 || echo --snapshot)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help build test test-fast cover e2e demo bench lint fmt fuzz image images extras release release-check clean

help: ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

build: ## build bin/deaddrop and bin/tenantctl
	$(BUILD) -o $(BIN)/deaddrop ./cmd/deaddrop
	$(LEAN) -o $(BIN)/tenantctl ./cmd/tenantctl

test: ## run all tests, on a real Vault that is built once
	.ci/leaks go test -race -timeout 20m -p 3 -parallel 8 $(TESTFLAGS) ./...
	go test $(TESTFLAGS) -run 'ThousandsOfValues|OfAllFunctions' ./render/... # with -race, a tenth of the values
	cd compose/devvault && go test ./...

test-fast: ## run the tests that need neither Vault nor Docker, in half a minute (go test -short)
	go test -short -p 8 $(TESTFLAGS) ./...

# Programs that tests start are covered, too, but for those that are killed.
COVER = $(CURDIR)/bin/cover
cover: ## run all tests, and print how much of each package they cover (bin/cover/coverage.out)
	rm -rf $(COVER) && mkdir -p $(COVER)/tests $(COVER)/processes && chmod 1777 $(COVER)/processes
	go build -cover -coverpkg=./... -o $(COVER)/ ./cmd/deaddrop ./cmd/tenantctl
	DEADDROP_TEST_COVER_PROGRAMS=$(COVER) DEADDROP_TEST_COVER_DATA=$(COVER)/processes \
		go test -cover -timeout 20m -parallel 12 $(TESTFLAGS) ./... -args -test.gocoverdir=$(COVER)/tests
	go tool covdata textfmt -i $(COVER)/tests,$(COVER)/processes -o $(COVER)/coverage.out
	@go tool covdata percent -i $(COVER)/tests,$(COVER)/processes
	@go tool cover -func $(COVER)/coverage.out | tail -n 1

e2e: ## run the examples on a Docker engine (EXAMPLES="nexa n8n" for these alone)
	@examples/e2e/run.sh $(EXAMPLES)

demo: build ## see it work: Vault, deaddrop, a service, a rotation
	$(BUILD) -o bin/service ./examples/service
	@go run ./examples/demo bin/deaddrop bin/service

bench: build ## measure time and memory beside the floor
	$(BUILD) -o bin/floor ./agent/bench/floor
	@go run ./agent/bench bin/deaddrop bin/floor
	@go test -run xxx -bench TenThousand -benchtime 1x ./cmd/tenantctl/internal/backup | grep Benchmark

lint: ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

fmt: ## format the code
	gofmt -w .

fuzz: ## fuzz every parser and encoder for a while
	go test -fuzz FuzzTemplatesNeverWriteNoValue -fuzztime 30s ./render
	go test -fuzz FuzzEntriesTakeNoPartOfAValueForAName -fuzztime 30s ./render
	go test -fuzz FuzzStructuredFormatsComeBack -fuzztime 30s ./render
	go test -fuzz FuzzNumbers -fuzztime 30s ./render
	go test -fuzz FuzzReadersGetTheValueBackOrEncodeFails -fuzztime 30s ./render/dotenv
	go test -fuzz FuzzRecoverCertificateNeverPanics -fuzztime 30s ./agent
	go test -fuzz FuzzAPidFileNamesNoProcess -fuzztime 30s ./agent/internal/reload
	go test -fuzz FuzzAHeaderFileBreaksNoRequest -fuzztime 30s ./agent/internal/reload
	go test -fuzz FuzzParseNeverPanics -fuzztime 30s ./agent/internal/process
	go test -fuzz FuzzAnIDIsOneSegmentOfAPath -fuzztime 30s ./agent/tenant
	go test -fuzz FuzzAFileIsABackupOrAnError -fuzztime 30s -fuzzminimizetime 20x ./cmd/tenantctl/internal/archive
	go test -fuzz FuzzDotenvComesBack -fuzztime 30s ./cmd/tenantctl/internal/values
	go test -fuzz FuzzLinesAreABackupOrAnError -fuzztime 30s -fuzzminimizetime 20x ./cmd/tenantctl/internal/archive
	go test -fuzz FuzzLoadNeverPanics -fuzztime 30s ./agent/config
	go test -fuzz FuzzOutput -fuzztime 30s ./agent/internal/redact
	go test -fuzz FuzzWriter -fuzztime 30s ./render/printable

image: ## build the container image (IMAGE=deaddrop:VERSION, GOARCH=arm64)
	rm -rf $(STAGE)
	mkdir -p $(STAGE)/root/etc/ssl/certs $(STAGE)/root/run $(STAGE)/root/var/lib $(STAGE)/run/deaddrop $(STAGE)/lib/deaddrop
	GOOS=linux GOARCH=$(ARCH) $(BUILD) -o $(STAGE)/root/deaddrop ./cmd/deaddrop
	cp $(CERTIFICATES) $(STAGE)/root/etc/ssl/certs/ca-certificates.crt
	chmod -R u=rwX,go=rX $(STAGE) && chmod 0750 $(STAGE)/run/deaddrop && chmod 0700 $(STAGE)/lib/deaddrop
	find $(STAGE) -exec touch -d "$(CREATED)" {} +
	docker build --platform linux/$(ARCH) -t $(IMAGE) -f Dockerfile --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(REVISION) --build-arg CREATED=$(CREATED) $(STAGE)

images: ## build images for amd64 and arm64: IMAGE-amd64, IMAGE-arm64
	$(MAKE) image GOARCH=amd64 IMAGE=$(IMAGE)-amd64
	$(MAKE) image GOARCH=arm64 IMAGE=$(IMAGE)-arm64

release: extras ## make archives, packages, SBOMs and checksums in dist/ (a tag's, else a snapshot)
	GOBIN=$(TOOLS) go install $(GORELEASER)
	GOBIN=$(TOOLS) go install $(CYCLONEDX)
	PATH="$(TOOLS):$$PATH" goreleaser release --clean $(SNAPSHOT)

release-check: release ## make a release and look into all of it
	DEADDROP_TEST_DIST=$(CURDIR)/dist go test -count=1 -run TestTheRelease ./cmd/deaddrop

# What archives and packages have besides the programs. Units know where packages install.
extras: build
	rm -rf bin/extras
	mkdir -p bin/extras/completions bin/extras/systemd
	for p in deaddrop tenantctl; do \
		bin/$$p completion bash >bin/extras/completions/$$p.bash && \
		bin/$$p completion zsh >bin/extras/completions/_$$p && \
		bin/$$p completion fish >bin/extras/completions/$$p.fish || exit 1; \
	done
	for f in deaddrop@.service deaddrop-render@.service deaddrop.rules; do \
		sed -e 's|/usr/local/bin/|/usr/bin/|' -e 's|/etc/polkit-1/|/usr/share/polkit-1/|' examples/systemd/$$f >bin/extras/systemd/$$f || exit 1; \
	done

clean: ## remove what was built
	rm -rf bin dist
