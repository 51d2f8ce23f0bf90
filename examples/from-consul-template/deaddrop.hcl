# The same for deaddrop: deaddrop run --config deaddrop.hcl
# It logs in itself, and reads the templates as they are.

vault {
  address = "https://vault:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "/etc/nexa/login/role_id"
      secret_id_file_path = "/etc/nexa/login/secret_id"
    }
  }
}

log_level = "info"
pid_file  = "/run/nexa/deaddrop.pid"

wait {
  min = "1s"
  max = "4s"
}

template {
  source      = "/etc/nexa/templates/nexa.env.ctmpl"
  destination = "/run/nexa/nexa.env"
  perms       = "0640"
  backup      = true

  # When the file has changed, not when it first appears. "exec" is understood, too.
  reload {
    pid_file = "/run/nexa/nexa.pid"
    signal   = "HUP"
  }
}

template {
  source      = "/etc/nexa/templates/nexa.json.ctmpl"
  destination = "/run/nexa/nexa.json"
  perms       = "0640"
}
