# What Shopify's agent does. Check it with:
# docker-compose run --rm --no-deps shopify-secrets validate /etc/deaddrop.hcl

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

# Three files, of three secrets; "deaddrop templates show shopify.env" shows what keys they
# have. The templates are deaddrop's own.
drop "shopify" {
  source      = "builtin:shopify.env"
  destination = "/run/deaddrop/shopify.env"
  dialect     = "docker" # lines of KEY=value, the value as it is
  wait {
    min = "1s" # what is rotated together arrives together
  }
  reload {
    url         = "http://shopify:8081/reload"
    header_file = "/run/secrets/reload_header"
    expect      = [204]
  }
}

drop "supabase" {
  source      = "builtin:supabase.env"
  destination = "/run/deaddrop/supabase.env"
  dialect     = "docker"
  wait {
    min = "1s"
  }
  reload { # the same one: done once, however many of the files have changed
    url         = "http://shopify:8081/reload"
    header_file = "/run/secrets/reload_header"
    expect      = [204]
  }
}

drop "smtp" {
  source      = "builtin:smtp.env"
  destination = "/run/deaddrop/smtp.env"
  dialect     = "docker"
  wait {
    min = "1s"
  }
  reload {
    url         = "http://shopify:8081/reload"
    header_file = "/run/secrets/reload_header"
    expect      = [204]
  }
}
