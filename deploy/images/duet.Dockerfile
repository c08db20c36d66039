# The `duet` program, for every role: docker build -f deploy/images/duet.Dockerfile -t duet .
#
# The image contains one static program, and the authorities for the certificates of webhooks and
# Vault. It has no shell, no libraries and no root user. GMP (LGPL) is linked in from `/gmp`. To use
# another build of GMP, put its `libgmp.a` there.

FROM docker.io/library/rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates libgmp-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The commit that `duet_build_info` shows: --build-arg DUET_COMMIT="$(git rev-parse --short=12 HEAD)".
ARG DUET_COMMIT
# The linker searches this folder first. It contains only GMP's static library.
RUN install -d /gmp && ln -s "$(gcc -print-file-name=libgmp.a)" /gmp/
# With a named target, the flags do not apply to programs that run during the build.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    host="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -L native=/gmp" cargo build --locked --release --package duet --target "$host" \
    && cp "target/$host/release/duet" /duet \
    && ! ldd /duet 2>/dev/null | grep '=>'
# An empty folder. A fresh volume takes over its owner.
RUN install -d -o 65532 -g 65532 -m 0700 /store

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /duet /usr/local/bin/duet
COPY --from=build --chown=65532:65532 /store /var/lib/duet
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/duet"]
