#!/usr/bin/env bash
# Brings the example up, as README.md does it, and shows that it does what that says.

# shellcheck disable=SC2154 # marker sets variables
# shellcheck source=examples/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
begin shopify
need openssl
use_vault
use_python
use_example shopify
export SHOPIFY_IMAGE=$PYTHON_IMAGE SHOPIFY_PORT=0

# uses COUNT KEY VALUE is whether the secrets were read so often, and this value is used.
uses() {
  has "\"$2\": \"$(fingerprint "$3")\"" get shopify 8081 / && has "\"loaded\": $1}" get shopify 8081 /
}

# webhook KEY sends one that is signed with a key, and prints the status.
webhook() {
  local body='{"id": 1}'
  curl -sS --noproxy '*' -o /dev/null -w '%{http_code}' --data-binary "$body" \
    -H "X-Shopify-Hmac-Sha256: $(printf %s "$body" | openssl dgst -sha256 -hmac "$1" -binary | base64)" \
    "http://$(address_of shopify):8081/webhook"
}

step "three secrets and a login"
for name in api_secret api_secret2 service_role service_role2 password password2 reload; do marker "$name"; done
{
  put demo shopify shop=demo.myshopify.com api_key=key "api_secret=$api_secret"
  put demo supabase url=https://demo.supabase.co anon_key=anon "service_role_key=$service_role"
  put demo smtp host=mail.example port=587 user=demo "password=$password"
}
cp .env.example .env
login demo credentials
printf 'Authorization: Bearer %s\n' "$reload" >credentials/reload_header
chmod 0444 credentials/reload_header

step "the service starts when all three files are there"
up -d
wait_for "the service has all secrets" uses 1 SHOPIFY_API_SECRET "$api_secret"
expect "Supabase's, too" uses 1 SUPABASE_SERVICE_ROLE_KEY "$service_role"
expect "the mail's, too" uses 1 SMTP_PASSWORD "$password"
expect "a webhook that Shopify has signed is taken" is 202 webhook "$api_secret"
expect "another one is not" is 401 webhook "$api_secret2"
expect "a reload by anybody is refused" is 403 curl -sS --noproxy '*' -o /dev/null -w '%{http_code}' -X POST "http://$(address_of shopify):8081/reload"
for file in shopify supabase smtp; do
  expect "$file.env is for its user alone" is "600 65532" inside shopify stat -c '%a %u' "/run/deaddrop/$file.env"
done

step "all three are rotated: the service is told once"
put demo shopify "api_secret=$api_secret2"
put demo supabase "service_role_key=$service_role2"
put demo smtp "password=$password2"
docker kill --signal HUP "$(id_of shopify-secrets)" >/dev/null # read again now
wait_for "the service has the new ones" uses 2 SHOPIFY_API_SECRET "$api_secret2"
expect "Supabase's, too" uses 2 SUPABASE_SERVICE_ROLE_KEY "$service_role2"
expect "the mail's, too" uses 2 SMTP_PASSWORD "$password2"
expect "the new signature is taken" is 202 webhook "$api_secret2"
expect "the old one is not" is 401 webhook "$api_secret"

step "a service that is away is told when it is back"
docker stop -t 5 "$(id_of shopify)" >/dev/null
put demo shopify "api_secret=$api_secret"
docker kill --signal HUP "$(id_of shopify-secrets)" >/dev/null
wait_for "the file has changed" has "file changed" docker logs --since 5s "$(id_of shopify-secrets)"
wait_for "the reload is in a journal" has '"pending_reload":true' docker cp "$(id_of shopify-secrets):/run/deaddrop/.shopify.env.deaddrop" -
docker start "$(id_of shopify)" >/dev/null
wait_for "the service has the newest" has "$(fingerprint "$api_secret")" get shopify 8081 /

step "hardening"
for service in shopify-secrets shopify; do
  expect "$service has no capabilities, a read-only system and another user than root" \
    is "true [ALL] [] 65532:65532" field $service '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.Config.User}}'
done
leak_check
