# For "server -dev", which docker-compose.dev.yml runs: everything in memory, unsealed,
# with kv v2 at secret/. It brings storage and listener of its own, so there are none
# here: a second listener would find the port taken.

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

log_level  = "debug"
log_format = "standard"
