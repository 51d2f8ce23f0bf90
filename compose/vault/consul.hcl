# As ../vault.hcl, with storage in Consul, for platforms that have one. Several Vaults
# may share it: one works and the others stand by. What is not explained here is
# explained in ../vault.hcl. OpenBao has no such storage.
#
# Each node needs VAULT_API_ADDR, and VAULT_CLUSTER_ADDR where there are several. The
# token for Consul comes from CONSUL_HTTP_TOKEN: it may write keys below vault/, write
# the service "vault", and make sessions. What docker-compose.yml does not set, add in an
# override, under services.vault.environment.

storage "consul" {
  # The agent next to Vault, not a server of the cluster: it knows where those are.
  address = "consul:8500"
  scheme  = "http"

  # The folder in Consul's key/value store. Nobody else writes there.
  path = "vault/"

  # Vault also registers itself as a service, whose active node is
  # active.vault.service.consul.
  service = "vault"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_disable     = true
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
