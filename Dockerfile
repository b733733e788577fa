# syntax=docker/dockerfile:1
# Two images: the server, and with --target ci the same program with git and a shell, for jobs of a CI.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /flux-admission ./cmd/flux-admission

FROM alpine:3.22 AS ci
LABEL org.opencontainers.image.title="flux-admission" \
      org.opencontainers.image.description="Checks a Flux repository with the rules of the admission webhook" \
      org.opencontainers.image.source="https://github.com/flux-admission/flux-admission" \
      org.opencontainers.image.licenses="Apache-2.0"
# --changed-since and diff call git. The working tree belongs to another user than the container's.
RUN apk add --no-cache ca-certificates git && git config --system --add safe.directory '*'
COPY --from=build /flux-admission /usr/local/bin/flux-admission
USER 65532:65532
WORKDIR /work
ENTRYPOINT ["flux-admission"]
CMD ["check"]

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="flux-admission" \
      org.opencontainers.image.description="An admission webhook for Kubernetes clusters that run Flux" \
      org.opencontainers.image.source="https://github.com/flux-admission/flux-admission" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /flux-admission /flux-admission
USER 65532:65532
EXPOSE 9443 8080 8081
ENTRYPOINT ["/flux-admission"]
CMD ["serve"]
