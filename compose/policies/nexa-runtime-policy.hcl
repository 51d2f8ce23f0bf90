# The Nexa runtime reads its own secret of every tenant, and nothing else.
path "secret/data/tenant/+/nexa" {
  capabilities = ["read"]
}
