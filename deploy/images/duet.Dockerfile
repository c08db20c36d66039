# The `duet` program, for every role: docker build -f deploy/images/duet.Dockerfile -t duet .
#
# The program is linked against glibc and GMP (LGPL, hence as a library of its own that can be exchanged); nothing else
# of a distribution is in the image: no shell, no package manager, no root. The two stages are of the same release of
# Debian, so that the library fits.

FROM docker.io/library/rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends libgmp-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release --package duet && cp target/release/duet /duet
# The one library that the runtime image lacks, by the name that the program asks for.
RUN cp "$(ldd /duet | awk '$1 ~ /^libgmp/ {print $3}')" /libgmp.so.10
# An empty folder with the owner that a fresh volume takes over.
RUN install -d -o 65532 -g 65532 -m 0700 /store

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /libgmp.so.10 /usr/lib/libgmp.so.10
COPY --from=build /duet /usr/local/bin/duet
COPY --from=build --chown=65532:65532 /store /var/lib/duet
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/duet"]
