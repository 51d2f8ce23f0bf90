# As ../vault.hcl, with TLS: docker-compose.tls.yml mounts this one, and certificates
# in /vault/tls. What is not explained here is explained there.

storage "file" {
  path = "/vault/file"
}

listener "tcp" {
  address = "0.0.0.0:8200"

  # The certificate, and behind it those of intermediate authorities. It needs the
  # names by which clients reach Vault: smarteros-vault, the public one, and 127.0.0.1
  # for "docker exec smarteros-vault vault status". The key is readable by the user
  # that Vault runs as (100 in hashicorp/vault), and by nobody else.
  tls_cert_file = "/vault/tls/tls.crt"
  tls_key_file  = "/vault/tls/tls.key"

  # 1.2 is what Go, Java 8 and everything younger speaks. Set tls13 where all clients do.
  tls_min_version = "tls12"

  # Clients are asked for a certificate, which the cert auth method can use, and need
  # none. With these two, nobody without one gets as far as a login, nor does the
  # health check of docker-compose.tls.yml:
  # tls_require_and_verify_client_cert = true
  # tls_client_ca_file                 = "/vault/tls/clients.crt"
}

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

ui                = true
log_level         = "info"
log_format        = "json"
disable_mlock     = false
default_lease_ttl = "1h"
max_lease_ttl     = "768h"
cluster_name      = "smarteros"

# A renewed certificate is read after SIGHUP, without a restart (and so without
# unsealing): docker kill --signal HUP smarteros-vault
