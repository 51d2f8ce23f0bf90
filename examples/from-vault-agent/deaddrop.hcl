# What one would write today, with what Vault Agent lacks. Not needed for the move.

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

set "nexa" {                             # three files of the same version, or none
  destination = "/run/nexa/current"

  template {
    source      = "/etc/nexa/templates/nexa.env.ctmpl"
    destination = "nexa.env"
    perms       = "0640"
  }
  template {
    source      = "/etc/nexa/templates/nexa.json.ctmpl"
    destination = "nexa.json"
    perms       = "0640"
  }
  drop "yaml" {                          # no template is needed for a secret as it is
    secret      = "secret/tenant/demo/nexa"
    destination = "nexa.yaml"
  }

  reload {
    pid_file = "/run/nexa/nexa.pid"
    signal   = "HUP"
  }
}
