# docker build --tag ghcr.io/podfence/podfence:0.1.0 .
FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc jq libc6-dev libmnl-dev libnftnl-dev pkg-config
WORKDIR /source
COPY . .
RUN release/programs /programs \
    && image/root-filesystem /image /programs/podfence-controller /programs/podfence-cni

# Nothing but the agent, its libraries and the CNI plugin: no shell, no package manager.
FROM scratch
COPY --from=build /image /
LABEL org.opencontainers.image.title="podfence" \
    org.opencontainers.image.source="https://github.com/podfence/podfence" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later AND LGPL-2.1-or-later"
ENTRYPOINT ["/podfence-controller"]
