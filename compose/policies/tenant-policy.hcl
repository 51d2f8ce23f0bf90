# What the services of a tenant may do: read the secrets of their own tenant, and
# nothing else. Which tenant that is stands in the metadata of the entity that the
# login belongs to; without it, no path of this policy holds.
#
# The paths end in + (one segment), not in * (anything): Vault's KV engine resolves
# ".." in the paths of metadata after the policy was asked, so that with *
# "list secret/metadata/tenant/A/%2e%2e/B/" would show tenant A what B has.
path "secret/data/tenant/{{identity.entity.metadata.tenant_id}}/+" {
  capabilities = ["read"]
}

# Names and versions of these secrets, for people who look for them.
path "secret/metadata/tenant/{{identity.entity.metadata.tenant_id}}/" {
  capabilities = ["list"]
}

path "secret/metadata/tenant/{{identity.entity.metadata.tenant_id}}/+" {
  capabilities = ["read"]
}

# Services live on: a token is renewed, and revoked when it is replaced.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
