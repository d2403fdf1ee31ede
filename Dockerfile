# docker build --tag ghcr.io/podfence/podfence:0.1.0 .
FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libmnl-dev libnftnl-dev pkg-config
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package controller && image/static-plugin
RUN image/root-filesystem target/release/podfence-controller /image \
    && install --target-directory=/image target/static/podfence-cni \
    && install -D --target-directory=/image/licenses LICENSE NOTICE \
        /usr/share/common-licenses/GPL-2 /usr/share/common-licenses/GPL-3 /usr/share/common-licenses/LGPL-2.1

# Nothing but the agent and its libraries: no shell, no package manager.
FROM scratch
COPY --from=build /image /
LABEL org.opencontainers.image.title="podfence" \
    org.opencontainers.image.source="https://github.com/podfence/podfence" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later AND LGPL-2.1-or-later"
ENTRYPOINT ["/podfence-controller"]
