# /etc/deaddrop/nexa.hcl: the agent of nexa.service. It holds no secret.
vault { address = "https://vault.example:8200" }

# That of StateDirectory= in the unit, also for commands that are run by hand.
state_dir = "/var/lib/deaddrop/nexa"

drop "nexa" {
  secret      = "secret/tenant/demo/nexa"
  destination = "/run/deaddrop/nexa/nexa.env"
  dialect     = "systemd"                 # EnvironmentFile= reads it
  perms       = "0640"                    # the group is the service's

  # systemd reads EnvironmentFile= when the service starts, so that a reload would not
  # show it the new values. A service that reads the file itself takes "reload".
  reload {
    unit   = "nexa.service"
    action = "restart"
  }
}

# "deaddrop status --config /etc/deaddrop/nexa.hcl" asks here: root and the agent's user.
listener "unix" {
  address = "/run/deaddrop/nexa/status.sock"
  role    = "status"
}
