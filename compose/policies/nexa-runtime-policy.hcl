# The Nexa runtime reads its own secret of every tenant, and nothing else.
path "secret/data/tenant/+/nexa" {
  capabilities = ["read"]
}

# Which tenants there are: for_each = "secret/tenant/*" lists them.
path "secret/metadata/tenant/" {
  capabilities = ["list"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
