# Four images from one file: agent-runtime, operator and kubectl-hive (which serves the dashboard in a cluster), static
# binaries FROM scratch, and agent-runtime-debian for agents whose programs need Python or a shell.
#   docker build --target agent-runtime -t agent-runtime:0.1.0 .
#   docker build --target agent-runtime-debian -t agent-runtime:0.1.0-debian .
#   docker build --target operator -t agentruntime-operator:0.1.0 .
#   docker build --target kubectl-hive -t kubectl-hive:0.1.0 .
# Where no base image can be pulled, a folder of binaries built on the host stands in for the stage `build`:
#   buildah bud --build-context build=./dist --target operator .

FROM docker.io/library/rust:1.95-slim-bookworm AS build
# The operator's allocator is built by make.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target="$(uname -m)-unknown-linux-gnu" && \
    RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
        cargo build --locked --release --target "$target" \
        --package agent-runtime --package operator --package cli && \
    cp "target/$target/release/agent-runtime" "target/$target/release/agentruntime-operator" \
        "target/$target/release/kubectl-hive" /

FROM scratch AS agent-runtime
LABEL org.opencontainers.image.title="agent-runtime" \
      org.opencontainers.image.description="Executes agents durably and speaks the lifecycle contract" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /agent-runtime /agent-runtime
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/agent-runtime", "healthcheck"]
ENTRYPOINT ["/agent-runtime"]

FROM docker.io/library/debian:bookworm-slim AS agent-runtime-debian
LABEL org.opencontainers.image.title="agent-runtime" \
      org.opencontainers.image.description="Executes agents durably and speaks the lifecycle contract, with Python" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /agent-runtime /agent-runtime
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/agent-runtime", "healthcheck"]
ENTRYPOINT ["/agent-runtime"]

FROM scratch AS operator
LABEL org.opencontainers.image.title="agentruntime-operator" \
      org.opencontainers.image.description="Reconciles AgentRuntime objects" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /agentruntime-operator /agentruntime-operator
USER 65532:65532
EXPOSE 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/agentruntime-operator", "healthcheck"]
ENTRYPOINT ["/agentruntime-operator"]

FROM scratch AS kubectl-hive
LABEL org.opencontainers.image.title="kubectl-hive" \
      org.opencontainers.image.description="The kubectl plugin, which serves the dashboard in a cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /kubectl-hive /kubectl-hive
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/kubectl-hive"]
