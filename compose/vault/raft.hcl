# As ../vault.hcl, for three nodes with Vault's integrated storage (Raft): one may be
# lost and the others go on. docker-compose.raft.yml runs them on one host, to try it;
# in production each node is on a host of its own. What is not explained here is
# explained in ../vault.hcl.
#
# One file serves all nodes. What differs comes from each one's environment:
#   VAULT_RAFT_NODE_ID   its name in the cluster, which stays for ever
#   VAULT_API_ADDR       where clients and nodes that join reach it: http://vault-1:8200
#   VAULT_CLUSTER_ADDR   where the other nodes reach it: https://vault-1:8201, always TLS,
#                        with certificates of Vault's own making

storage "raft" {
  path = "/vault/file"

  # A new node asks these for the cluster to join, itself among them, until one
  # answers. Initialise one node; the others have joined when they are unsealed with
  # the same keys. A node that was a member comes back without this.
  retry_join {
    leader_api_addr = "http://vault-1:8200"
  }
  retry_join {
    leader_api_addr = "http://vault-2:8200"
  }
  retry_join {
    leader_api_addr = "http://vault-3:8200"
  }
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"

  # Joining and unsealing cross the network here. Between hosts use TLS, as in tls.hcl,
  # with https:// and leader_ca_cert_file in each retry_join.
  tls_disable = true
}

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

ui         = true
log_level  = "info"
log_format = "json"

# Vault refuses to start with this storage when it is not said. Its database is mapped
# into memory, and a lock would keep all of that there. So it is not locked, and swap
# on the hosts is to be encrypted or off.
disable_mlock = true

default_lease_ttl = "1h"
max_lease_ttl     = "768h"
cluster_name      = "smarteros"
