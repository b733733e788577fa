# syntax=docker/dockerfile:1
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /flux-admission ./cmd/flux-admission

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="flux-admission" \
      org.opencontainers.image.description="An admission webhook for Kubernetes clusters that run Flux" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /flux-admission /flux-admission
USER 65532:65532
EXPOSE 9443 8080 8081
ENTRYPOINT ["/flux-admission"]
CMD ["serve"]
