# Those who manage tenants: their secrets, policies, logins and entities, and what
# "tenantctl setup" lays out, but for audit devices. Nobody else writes policies. Who
# writes policies can give themselves anything: trust these people as you trust root.

# The secrets of all tenants, their versions and metadata.
path "secret/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

# Policies.
path "sys/policies/acl" {
  capabilities = ["list"]
}

path "sys/policies/acl/*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Engines and logins.
path "sys/mounts" {
  capabilities = ["read"]
}

path "sys/mounts/*" {
  capabilities = ["create", "read", "update"]
}

path "sys/auth" {
  capabilities = ["read"]
}

path "sys/auth/*" {
  capabilities = ["create", "read", "update", "sudo"]
}

# Which audit devices there are. To enable one takes root: it may show secrets, and
# writes to any file of the server.
path "sys/audit" {
  capabilities = ["read", "sudo"]
}

# How Vault is.
path "sys/metrics" {
  capabilities = ["read"]
}

# Roles and their secret ids, users, entities and their aliases.
path "auth/approle/role" {
  capabilities = ["list"]
}

path "auth/approle/role/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "auth/userpass/users" {
  capabilities = ["list"]
}

path "auth/userpass/users/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "identity/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# Tokens by their accessors, of credentials that are revoked.
path "auth/token/accessors" {
  capabilities = ["list", "sudo"]
}

path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# The login's own token.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
