# What consul-template was run with: consul-template -config consul-template.hcl
# Something else, such as a Vault Agent, has to log in for it, and to write the token.

vault {
  address                = "https://vault:8200"
  vault_agent_token_file = "/run/nexa/vault-token"
  renew_token            = false
  default_lease_duration = "15s"

  retry {
    attempts    = 0
    max_backoff = "30s"
  }
}

log_level     = "info"
reload_signal = "SIGHUP"
kill_signal   = "SIGTERM"
pid_file      = "/run/nexa/consul-template.pid"

wait {
  min = "1s"
  max = "4s"
}

template {
  source               = "/etc/nexa/templates/nexa.env.ctmpl"
  destination          = "/run/nexa/nexa.env"
  perms                = 0640
  backup               = true
  error_on_missing_key = true

  exec {
    command = ["sh", "-c", "test ! -s /run/nexa/nexa.pid || kill -HUP $(cat /run/nexa/nexa.pid)"]
    timeout = "5s"
  }
}

template {
  source      = "/etc/nexa/templates/nexa.json.ctmpl"
  destination = "/run/nexa/nexa.json"
  perms       = 0640
}
