# A node of the broker with Duet's configuration:
# docker build -f deploy/images/broker.Dockerfile -t duet-broker .
#
# The server is one static program, and the image contains nothing else.

FROM docker.io/library/nats:2.15.1-alpine AS server
RUN install -d -o 65532 -g 65532 -m 0700 /jetstream

FROM scratch
COPY --from=server /usr/local/bin/nats-server /usr/local/bin/nats-server
COPY --from=server --chown=65532:65532 /jetstream /var/lib/jetstream
COPY deploy/nats/node.conf deploy/nats/broker.conf /etc/duet/nats/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/nats-server", "-c", "/etc/duet/nats/node.conf"]
