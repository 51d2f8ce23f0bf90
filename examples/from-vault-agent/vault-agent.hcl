# A file of Vault Agent's, as many machines have it. Both run it as it is:
#
#   vault agent -config=vault-agent.hcl
#   deaddrop run --config vault-agent.hcl

pid_file = "/run/nexa/agent.pid"

vault {
  address = "https://vault:8200"
  retry {
    num_retries = 5
  }
}

auto_auth {
  method "approle" {
    mount_path = "auth/approle"
    config = {
      role_id_file_path                   = "/etc/nexa/login/role_id"
      secret_id_file_path                 = "/etc/nexa/login/secret_id"
      remove_secret_id_file_after_reading = false
    }
  }

  sink "file" {
    config = {
      path = "/run/nexa/vault-token"
      mode = 0640
    }
  }
}

cache {
}

api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address     = "127.0.0.1:8107"
  tls_disable = true
}

template_config {
  static_secret_render_interval = "10s"
  exit_on_retry_failure         = true
  max_connections_per_host      = 10
}

template {
  source               = "/etc/nexa/templates/nexa.env.ctmpl"
  destination          = "/run/nexa/nexa.env"
  perms                = 0640
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

template {
  contents    = "{{ with secret \"secret/data/tenant/demo/nexa\" }}{{ range $k, $v := .Data.data }}{{ $k }}: {{ $v | toJSON }}\n{{ end }}{{ end }}"
  destination = "/run/nexa/nexa.yaml"
}
