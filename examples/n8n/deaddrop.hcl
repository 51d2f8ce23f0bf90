# What n8n's agent does. Check it with:
# docker-compose run --rm --entrypoint deaddrop n8n validate /etc/deaddrop.hcl

vault {
  address = "http://smarteros-vault:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "/run/secrets/role_id"
      secret_id_file_path = "/run/secrets/secret_id"
    }
  }
}

tenant        = "demo" # DEADDROP_TENANT wins, which docker-compose.yml sets
strict        = true   # only folders that are deaddrop's alone
require_tmpfs = true   # no folder on a disk

# What n8n reads from its environment: N8N_ENCRYPTION_KEY, N8N_SMTP_PASS and others.
drop "environment" {
  secret      = "secret/tenant/${tenant}/n8n"
  destination = "/run/deaddrop/n8n.env"
  format      = "shell" # export KEY='value'
  keys {
    only = ["N8N_*"]
  }
  reload {
    exec   = true
    action = "restart"
  }
}

# For DB_POSTGRESDB_PASSWORD_FILE. A line break at its end would be part of the password.
drop "database" {
  secret      = "secret/tenant/${tenant}/n8n"
  destination = "/run/deaddrop/db_password"
  format      = "template"
  contents    = "{{ .DB_POSTGRESDB_PASSWORD }}"
  reload {
    exec   = true
    action = "restart"
  }
}

# For CREDENTIALS_OVERWRITE_DATA_FILE: {"googleOAuth2Api": {"clientId": …, "clientSecret": …}}
drop "credentials" {
  secret      = "secret/tenant/${tenant}/n8n"
  destination = "/run/deaddrop/credentials.json"
  format      = "template"
  contents    = "{{ .CREDENTIALS_OVERWRITE_DATA | toJSON }}"
  reload {
    exec   = true
    action = "restart"
  }
}

# What the reload blocks stop, gently, and start anew, once for all that has changed:
# n8n does not read its secrets again.
exec {
  command             = ["/bin/sh", "-c", ". /run/deaddrop/n8n.env && exec /docker-entrypoint.sh"]
  restart_stop_signal = "SIGTERM"
  kill_timeout        = "40s"
}
