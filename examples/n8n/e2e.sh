#!/usr/bin/env bash
# Brings the example up, as README.md does it, with a stand-in for n8n's image (standin/),
# and shows that it does what that says.

# shellcheck disable=SC2154 # marker sets variables
# shellcheck source=examples/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
begin n8n
use_vault
use_busybox
use_example n8n
export N8N_IMAGE=deaddrop-e2e-n8n:$RUN N8N_DEADDROP_IMAGE=deaddrop-e2e-n8n-deaddrop:$RUN N8N_PORT=0
docker build -q -t "$N8N_IMAGE" --build-arg "BUSYBOX_IMAGE=$BUSYBOX_IMAGE" standin >"$WORK/build" 2>&1 || { cat "$WORK/build"; fail "the stand-in cannot be built"; }
own_image "$N8N_IMAGE"
own_image "$N8N_DEADDROP_IMAGE"

# uses NAME VALUE is whether n8n has this value of a setting.
uses() { has "$1 $(fingerprint "$2")" get n8n 5678 /; }

step "secrets and a login"
for name in key smtp smtp2 database database2 client; do marker "$name"; done
smtp="$smtp \$x 'y' \"z\" \\" # what a shell would take for something else
"$TENANTCTL" tenant add demo n8n --from - >/dev/null <<END
{"N8N_ENCRYPTION_KEY": "$key", "N8N_SMTP_USER": "demo", "DB_POSTGRESDB_PASSWORD": "$database",
 "CREDENTIALS_OVERWRITE_DATA": {"googleOAuth2Api": {"clientId": "id", "clientSecret": "$client"}}}
END
put demo n8n "N8N_SMTP_PASS=$smtp"
cp .env.example .env
login demo credentials --service n8n

step "n8n starts when all is there"
up -d --build
wait_for "n8n has its key" uses N8N_ENCRYPTION_KEY "$key"
expect "a password of any characters" uses N8N_SMTP_PASS "$smtp"
expect "the database's, out of a file" uses DB_POSTGRESDB_PASSWORD "$database"
expect "the JSON is n8n's" has "{\"googleOAuth2Api\":{\"clientId\":\"id\",\"clientSecret\":\"$client\"}}" inside n8n cat /run/deaddrop/credentials.json
expect "the files are for its user alone" is "600 1000" inside n8n stat -c '%a %u' /run/deaddrop/db_password
expect "they are in memory" has "tmpfs /run/deaddrop tmpfs" inside n8n cat /proc/mounts
# shellcheck disable=SC2016 # for the shell in there
expect "n8n has no login in its environment" is "" inside n8n sh -c 'for p in /proc/[0-9]*; do tr "\0" "\n" <$p/environ; done 2>/dev/null | grep -E "^VAULT_(ROLE|SECRET|TOKEN)"; true'

step "what is rotated makes n8n start anew, in the same container"
put demo n8n "DB_POSTGRESDB_PASSWORD=$database2" "N8N_SMTP_PASS=$smtp2"
# Read again now. Not by "docker kill", after any signal of which Docker takes a container
# for one that somebody stopped, and does not restart it.
inside n8n kill -HUP 1
wait_for "n8n has the new passwords" uses DB_POSTGRESDB_PASSWORD "$database2"
wait_for "n8n has the new passwords" uses N8N_SMTP_PASS "$smtp2"
expect "the key has stayed" uses N8N_ENCRYPTION_KEY "$key"
expect "Docker has restarted nothing" is "0" field n8n '{{.RestartCount}}'
expect "deaddrop can keep a journal" fails has "nothing is kept" docker logs "$(id_of n8n)"

step "Vault is sealed: n8n goes on, and does so after a crash of its own"
restart_vault
expect "n8n goes on" uses DB_POSTGRESDB_PASSWORD "$database2"
unseal_vault
# shellcheck disable=SC2016 # for the shell in there
docker exec -d "$(id_of n8n)" sh -c 'kill -KILL $(pidof httpd)'
wait_for "Docker has started it again" is "1" field n8n '{{.RestartCount}}'
wait_for "n8n has the passwords" uses DB_POSTGRESDB_PASSWORD "$database2"

step "hardening"
expect "there are no capabilities, and another user than root" is "[ALL] [] 1000:1000" field n8n '{{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.Config.User}}'
wait_for "n8n is healthy" healthy n8n
leak_check
