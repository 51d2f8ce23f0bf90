# What Nexa's agent does. Check it with:
# docker-compose run --rm nexa-init validate /etc/deaddrop.hcl

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

drop "nexa" {
  secret      = "secret/tenant/${tenant}/nexa"
  destination = "/run/deaddrop/nexa.env"
  format      = "dotenv"
  dialect     = "docker" # lines of KEY=value, the value as it is: what nexa.py reads
  perms       = "0400"
  keys {
    upper  = true # api_key becomes NEXA_API_KEY
    prefix = "NEXA_"
  }
  reload {
    command_line = "/srv/nexa\\.py" # the process whose command line has this
    signal       = "HUP"
  }
}
