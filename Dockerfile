# Made of what "make image" lays out in bin/image/ARCH, which is its build context:
# root/, run/ and lib/. Nothing is pulled. The files come first: the classic builder loses
# the architecture of an image FROM scratch whose first step is another.
FROM scratch
COPY root/ /
# A new volume that is mounted on a folder of the image gets its owner and mode. The
# folders above are root's, from root/: agents of other users trust no others.
COPY --chown=65532:65532 run/ /run/
COPY --chown=65532:65532 lib/ /var/lib/
USER 65532:65532
# On loopback: seen by the health check, and by containers that share this network.
ENV DEADDROP_STATUS_ADDRESS=127.0.0.1:9810
# A container that renders once has no status. It is gone by the time that a failure
# would count: a minute, as long as "render" tries, and three probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/deaddrop", "status", "--check"]
ENTRYPOINT ["/deaddrop"]
ARG VERSION REVISION CREATED
LABEL org.opencontainers.image.title="deaddrop" \
      org.opencontainers.image.description="Renders Vault secrets into files, and reloads services when they change" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/smarteros/deaddrop" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
