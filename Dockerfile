# Holdline in an image of its own: docker build -t holdline .
#
# The image is `scratch`: the program is linked statically and asks nothing of a distribution. Where a policy wants a base, such
# as gcr.io/distroless/static-debian12:nonroot, build with --build-arg BASE=...: nothing else changes.
ARG BASE=scratch

FROM rust:1.90-slim-bookworm AS build
# For the parts that are in C; and whom receivers of hooks are vouched for by.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates musl-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN target="$(uname -m)-unknown-linux-musl" \
    && rustup target add "$target" \
    && cargo build --locked --release --target "$target" \
    && install -D -s -m 755 "target/$target/release/holdline" /out/usr/bin/holdline \
    && install -d /out/etc/holdline /out/run/holdline \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
    && /out/usr/bin/holdline default-config >/out/etc/holdline/holdline.toml

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=build /out/usr/bin/holdline /usr/bin/holdline
COPY --from=build /out/etc/holdline /etc/holdline
COPY --from=build /out/etc/ssl /etc/ssl
# For Unix sockets: those of listeners, and the one for upgrades.
COPY --from=build --chown=65532:65532 /out/run/holdline /run/holdline
# No name for it is needed, so that there is no /etc/passwd.
USER 65532:65532
# Who connects comes from outside of the container. Without keys for tokens that is refused at the start; HOLDLINE_INSECURE=true
# says that it is meant. The admin listener stays inside.
ENV HOLDLINE_LISTEN="http://0.0.0.0:8080,tcp://0.0.0.0:7000"
EXPOSE 8080 7000
# Drains; give it time: docker run --stop-timeout 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s CMD ["/usr/bin/holdline", "health"]
ENTRYPOINT ["/usr/bin/holdline"]
CMD ["serve"]
