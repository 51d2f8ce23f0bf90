# As ../vault.hcl, with storage in a bucket of Amazon S3 or of something that speaks
# like it. It has no locks: two Vaults on one bucket destroy it, so run a single one.
# What is not explained here is explained in ../vault.hcl. OpenBao has no such storage.
#
# Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the role of the
# machine; not from this file. They may list the bucket, and read, write and delete in it.
# docker-compose.yml does not hand on the ones that happen to be in your environment: add
# an override with those names under services.vault.environment, and nothing behind them.

storage "s3" {
  # AWS_S3_BUCKET and AWS_REGION count more.
  bucket = "smarteros-vault"
  region = "eu-west-1"

  # What is in it is encrypted by Vault. A key of KMS encrypts it once more:
  # kms_key_id = "alias/smarteros-vault"

  # MinIO and others (AWS_S3_ENDPOINT counts more):
  # endpoint            = "https://minio:9000"
  # s3_force_path_style = "true"
}

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

ui                = true
log_level         = "info"
log_format        = "json"
disable_mlock     = false
default_lease_ttl = "1h"
max_lease_ttl     = "768h"
cluster_name      = "smarteros"
