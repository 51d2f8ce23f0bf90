# As ../vault.hcl, for OpenBao: docker-compose.openbao.yml mounts this one. What is
# not explained here is explained there.

# OpenBao 2.7 no longer has storage in a folder. A cluster of one node is what takes
# its place; more nodes can join it later, as in raft.hcl.
storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao-1"
}

cluster_addr = "https://127.0.0.1:8201"

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

# OpenBao lets nobody enable an audit device through the API: whoever could would write
# files on the server. So it is declared here, and "tenantctl setup" finds it there.
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

# There is no disable_mlock: OpenBao never locks its memory. Encrypt or switch off swap.
