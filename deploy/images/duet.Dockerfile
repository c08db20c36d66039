# The `duet` program, for every role: docker build -f deploy/images/duet.Dockerfile -t duet .
#
# One static program, and the authorities that webhooks' and Vault's certificates are checked against; nothing of a
# distribution: no shell, no libraries, no root. GMP (LGPL) is linked into it from `/gmp`: with another `libgmp.a` there, this
# file makes the same program with that one.

FROM docker.io/library/rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates libgmp-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Where the linker looks first lies GMP's static library alone.
RUN install -d /gmp && ln -s "$(gcc -print-file-name=libgmp.a)" /gmp/
# Named, the target is not the host: what runs while building is linked as usual.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    host="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -L native=/gmp" cargo build --locked --release --package duet --target "$host" \
    && cp "target/$host/release/duet" /duet \
    && ! ldd /duet 2>/dev/null | grep '=>'
# An empty folder with the owner that a fresh volume takes over.
RUN install -d -o 65532 -g 65532 -m 0700 /store

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /duet /usr/local/bin/duet
COPY --from=build --chown=65532:65532 /store /var/lib/duet
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/duet"]
