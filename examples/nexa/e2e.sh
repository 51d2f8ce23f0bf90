#!/usr/bin/env bash
# Brings the example up, as README.md does it, and shows that it does what that says.

# shellcheck disable=SC2154 # marker sets variables
# shellcheck source=examples/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
begin nexa
use_vault
use_python
use_example nexa
export NEXA_IMAGE=$PYTHON_IMAGE NEXA_PORT=0

# uses COUNT KEY VALUE is whether nexa has read its secrets so often, and uses this value.
uses() {
  has "\"$2\": \"$(fingerprint "$3")\"" get nexa 8080 / && has "\"loaded\": $1," get nexa 8080 /
}

step "secrets and a login"
marker first
marker second
marker third
marker any
any="$any= \$x # \"'\\"
put demo nexa "api_key=$first" "webhook_secret=$any"
cp .env.example .env
login demo credentials --service nexa

step "the init container writes the file, nexa uses it"
up -d
wait_for "nexa has the first key" uses 1 NEXA_API_KEY "$first"
expect "and a value of any characters" uses 1 NEXA_WEBHOOK_SECRET "$any"
expect "the init container is done" is "exited 0" field nexa-init '{{.State.Status}} {{.State.ExitCode}}'
expect "the file is for its user alone" is "400 65532 65532" inside nexa stat -c '%a %u %g' /run/deaddrop/nexa.env
expect "so is the folder" is "750 65532 65532" inside nexa stat -c '%a %u %g' /run/deaddrop
expect "it is in memory, and nexa may not write" has "tmpfs /run/deaddrop tmpfs ro" inside nexa cat /proc/mounts

step "a new key reaches nexa by the sidecar's signal, without a restart"
put demo nexa "api_key=$second"
wait_for "nexa has the second key" uses 2 NEXA_API_KEY "$second"
expect "nexa was not restarted" is 0 field nexa '{{.RestartCount}}'
expect "the sidecar can keep a journal" fails has "nothing is kept" docker logs "$(id_of nexa-secrets)"

step "nexa and the sidecar die without each other"
docker exec -d "$(id_of nexa)" kill -KILL "$(get nexa 8080 / | sed 's/.*"pid": \([0-9]*\).*/\1/')"
wait_for "nexa is back, with the same key" uses 1 NEXA_API_KEY "$second"
expect "the sidecar was not restarted" is "running 0" field nexa-secrets '{{.State.Status}} {{.RestartCount}}'
before=$(get nexa 8080 /)
docker restart -t 5 "$(id_of nexa-secrets)" >/dev/null
wait_for "the sidecar is back" has "logged in" docker logs --since 1m "$(id_of nexa-secrets)"
expect "nexa has noticed nothing" is "$before" get nexa 8080 /

step "Vault dies, and comes back sealed: nexa keeps what it has"
restart_vault
docker kill --signal HUP "$(id_of nexa-secrets)" >/dev/null # read again now
wait_for "the sidecar says so" has "sealed" docker logs "$(id_of nexa-secrets)"
expect "nexa has noticed nothing" is "$before" get nexa 8080 /
wait_for "the sidecar is not current" fails inside nexa-secrets /deaddrop status --check
unseal_vault
put demo nexa "api_key=$third"
wait_for "nexa has the third key" uses 2 NEXA_API_KEY "$third"

step "hardening"
for service in nexa-init nexa-secrets nexa nexa-pod; do
  expect "$service has no capabilities, a read-only system and another user than root" \
    is "true [ALL] [] [no-new-privileges:true] 65532:65532" \
    field $service '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}} {{.Config.User}}'
done
# They have one user and one list of processes; yet nexa does not get at the login.
# shellcheck disable=SC2016 # for the shell in there
peek='for p in /proc/[0-9]*; do
  if grep -q deaddrop $p/comm; then
    echo found
    cat $p/environ $p/root/run/secrets/secret_id $p/maps 2>/dev/null | head -c 20
  fi
done'
expect "nexa sees the sidecar, and nothing in it" is "found" inside nexa sh -c "$peek"
wait_for "nexa is healthy" healthy nexa
wait_for "the sidecar is healthy" healthy nexa-secrets
expect "the status has the drop" has nexa docker exec "$(id_of nexa-secrets)" /deaddrop status
leak_check
compose down -v >/dev/null 2>&1
expect "nothing is left of the secrets" is "" docker volume ls -q --filter "label=com.docker.compose.project=$RUN"
