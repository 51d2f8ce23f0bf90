# openbao.hcl with the listener of tls.hcl, for docker-compose.openbao.yml together with
# docker-compose.tls.yml. What is not explained here is explained in those.

storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao-1"
}

cluster_addr = "https://127.0.0.1:8201"

listener "tcp" {
  address         = "0.0.0.0:8200"
  tls_cert_file   = "/vault/tls/tls.crt"
  tls_key_file    = "/vault/tls/tls.key"
  tls_min_version = "tls12"
}

audit "file" "file" {
  options {
    file_path = "/openbao/logs/audit.log"
  }
}

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

ui                = true
log_level         = "info"
log_format        = "json"
default_lease_ttl = "1h"
max_lease_ttl     = "768h"
cluster_name      = "smarteros"
