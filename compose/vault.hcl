# Vault in production, alone and with its storage in a folder: what the platform
# runs. Variants for other storage, TLS and OpenBao are in vault/. Paths are those
# inside the container of docker-compose.yml, where three volumes are mounted.
# Vault reads this file when it starts; SIGHUP makes it read log_level again.

# The whole Vault is in this folder, encrypted with a key that only unsealing
# brings back. "file" knows neither several nodes nor snapshots: stop Vault before
# you copy the folder, or use "tenantctl backup". For more, see vault/raft.hcl.
storage "file" {
  path = "/vault/file"
}

# All addresses of the container. What reaches them is decided by docker-compose.yml,
# which publishes the port on the host's loopback alone.
listener "tcp" {
  address = "0.0.0.0:8200"

  # In the clear, for a reverse proxy on the same host that speaks TLS to the outside.
  # Where anything else can read what crosses the network, use vault/tls.hcl.
  tls_disable = true

  # Behind a proxy all clients seem to have its address, and a CIDR that a token or
  # a secret id is bound to means nothing. Name the proxy's network to believe its
  # X-Forwarded-For header, and then let nobody else come from there.
  # x_forwarded_for_authorized_addrs = "172.16.0.0/12"
  # x_forwarded_for_reject_not_present = false

  # Metrics need a token with "read" on sys/metrics. Whoever scrapes without one has
  # to be the only one that reaches this port:
  # telemetry { unauthenticated_metrics_access = true }
}

# /v1/sys/metrics?format=prometheus answers only where a retention time is set. It
# is how long a value that no longer changes is still shown.
telemetry {
  prometheus_retention_time = "24h"

  # The name of a container in a metric's name would start a new series with each one.
  disable_hostname = true
}

# At /ui. It asks for a login, as the API does.
ui = true

# The audit log is not configured here: Vault keeps its audit devices in its storage,
# and "tenantctl setup" enables one that writes /vault/logs/audit.log. (OpenBao wants
# them in this file instead: see vault/openbao.hcl.) After a rotation of that file,
# send SIGHUP: docker kill --signal HUP smarteros-vault

# What goes to "docker logs". It tells about the server, not about requests, and
# contains no secrets; "trace" comes close, so not in production.
log_level  = "info"
log_format = "json"

# Vault locks its memory, so that no secret is ever swapped to disk. That takes the
# capability IPC_LOCK, which docker-compose.yml adds. Where it cannot be had, set
# VAULT_DISABLE_MLOCK=true, and encrypt or switch off swap.
disable_mlock = false

# A token or lease that asks for no lifetime gets an hour, not the 32 days that Vault
# would give. The maximum holds for what is renewed, too, but not for periodic tokens.
default_lease_ttl = "1h"
max_lease_ttl     = "768h"

# Shown by sys/health and as a label of metrics.
cluster_name = "smarteros"

# Where clients reach this Vault comes from VAULT_API_ADDR, which docker-compose.yml sets.
