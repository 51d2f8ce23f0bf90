# Made from the binary that "make build" leaves in bin/. The CA certificates are
# those of the machine that builds: nothing is pulled.
FROM scratch
COPY bin/deaddrop /deaddrop
COPY bin/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/deaddrop"]
