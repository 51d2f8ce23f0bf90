# What one service of a tenant may do: read its own secret, and nothing else. Tenant
# and service stand in the metadata of the entity that the login belongs to; without
# both, no path of this policy holds.
path "secret/data/tenant/{{identity.entity.metadata.tenant_id}}/{{identity.entity.metadata.service}}" {
  capabilities = ["read"]
}

# The versions of this secret.
path "secret/metadata/tenant/{{identity.entity.metadata.tenant_id}}/{{identity.entity.metadata.service}}" {
  capabilities = ["read"]
}

# Services live on: a token is renewed, and revoked when it is replaced.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
