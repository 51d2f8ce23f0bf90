#!/usr/bin/env bash
# Vault Agent and deaddrop run the same file: they write the same bytes, before and after a
# rotation, and a service that Vault Agent has served goes on with deaddrop. The program
# "vault" is VAULT_BINARY, or the one in the cache; it is not built here, which takes a
# quarter of an hour. Without one, deaddrop alone runs the file, and the script says so.
# shellcheck source-path=SCRIPTDIR source=../e2e/lib.sh
# shellcheck disable=SC2154 # variables that "marker" sets
. "$(dirname "$0")/../e2e/lib.sh"
begin from-vault-agent
use_deaddrop
VAULT_BINARY=${VAULT_BINARY:-$(cache)/vault-1.21.0}
[ -x "$VAULT_BINARY" ] || VAULT_BINARY=

step "Vault, a secret and a login"
use_vault
marker first; marker second; marker third
put demo nexa "API_KEY=$first" MODEL=Large "NOTE=a \"quoted\" \\ text: ä"
login demo "$WORK/login-demo"

# --- as the machine is set up -----------------------------------------------------------

# here DIR writes the configuration for a folder of its own.
here() {
  mkdir -p "$1/run"
  for config in vault-agent.hcl deaddrop.hcl; do
    sed -e "s|/etc/nexa|$WORK/etc|g; s|/run/nexa|$1/run|g; s|https://vault:8200|$VAULT_ADDR|" \
      -e "s|127.0.0.1:8107|127.0.0.1:0|" "$REPO/examples/from-vault-agent/$config" >"$1/$config"
  done
}
mkdir "$WORK/etc"
cp -R "$WORK/login-demo" "$WORK/etc/login"
cp -R "$REPO/examples/from-vault-agent/templates" "$WORK/etc"
here "$WORK/a"
here "$WORK/b"
(cd "$REPO" && go build -o "$WORK/nexa" ./examples/service)
# The agents get nothing from here but a variable that a template reads.
clean=(env -i "PATH=$PATH" "HOME=$WORK" NEXA_REGION=cl)
all=(nexa.env nexa.json nexa.yaml)

# incumbent DIR writes the files in a folder, and ends.
incumbent() {
  sed 's|^pid_file|exit_after_auth = true\n&|' "$1/vault-agent.hcl" >"$1/once.hcl"
  "${clean[@]}" "$VAULT_BINARY" agent -config="$1/once.hcl" >"$WORK/incumbent.log" 2>&1 || fail "vault agent"
}
# resident PID is the memory of a process in MB.
resident() { awk '/^VmRSS/ { printf "%d MB\n", $2 / 1024 }' "/proc/$1/status"; }
# files are what tells whether a file was written.
files() { (cd "$WORK/a/run" && stat -c '%n %i %Y' "${all[@]}" && sha256sum "${all[@]}"); }
modes() { (cd "$WORK/a/run" && stat -c %a "${all[@]}" | xargs); }
written() { test -s "$WORK/a/run/nexa.env" -a -s "$WORK/a/run/nexa.json" -a -s "$WORK/a/run/nexa.yaml"; }
# same WHEN compares what both have written.
same() {
  local file
  for file in "${all[@]}"; do cmp "$WORK/a/run/$file" "$WORK/b/run/$file" || fail "$file differs $1"; done
  echo "the same $1: ${all[*]}"
}

step "deaddrop takes the file as it is; what has no effect is a warning"
"${clean[@]}" "$DEADDROP" validate "$WORK/a/vault-agent.hcl" >"$WORK/validated" 2>&1 || { cat "$WORK/validated"; fail "it is not valid"; }
sed "s|$WORK/a/||" "$WORK/validated"
for setting in retry exit_on_retry_failure max_connections_per_host listener cache api_proxy; do
  expect "a warning of $setting" grep -q "^warning: .*: $setting " "$WORK/validated"
done

if [ -n "$VAULT_BINARY" ]; then
  step "$("$VAULT_BINARY" version | cut -d, -f1) serves the service"
  "${clean[@]}" "$VAULT_BINARY" agent -config="$WORK/a/vault-agent.hcl" >"$WORK/agent.log" 2>&1 &
else
  step "deaddrop serves the service"
  "${clean[@]}" "$DEADDROP" run --config "$WORK/a/vault-agent.hcl" >"$WORK/agent.log" 2>&1 &
fi
running+=($!) before=$!
wait_for "the files are written" written
# It runs its commands once at the start, and the service would count that as a reload.
[ -n "$VAULT_BINARY" ] || wait_for "its command has run" grep -q '"msg":"reloaded"' "$WORK/agent.log"
"$WORK/nexa" "$WORK/a/run/nexa.env" "$WORK/a/run/nexa.pid" >"$WORK/service.log" 2>&1 &
running+=($!)
wait_for "the service starts" grep -q "started: MODEL=Large" "$WORK/service.log"
secrets_of "$WORK/a/run/vault-token"

step "deaddrop would change nothing"
"${clean[@]}" "$DEADDROP" render --config "$WORK/a/vault-agent.hcl" --diff >"$WORK/diff" 2>"$WORK/diff.log"
sed "s|$WORK/a/||" "$WORK/diff"
expect "each file is unchanged" is 3 grep -c ': unchanged$' "$WORK/diff"

step "and writes the same into an empty folder"
"${clean[@]}" "$DEADDROP" render --config "$WORK/b/vault-agent.hcl" --keep-token >"$WORK/render.log" 2>&1
same "before the rotation"

step "the switch"
state=$(files)
[ -z "$VAULT_BINARY" ] || expect "Vault Agent lets all read a file without perms" is "640 640 644" modes
echo "resident before: $(resident "$before")"
kill "$before"
wait "$before" 2>/dev/null || true
"${clean[@]}" "$DEADDROP" run --config "$WORK/a/vault-agent.hcl" --status-address "$WORK/status.sock" >"$WORK/deaddrop.log" 2>&1 &
running+=($!) after=$!
wait_for "deaddrop is ready" "$DEADDROP" status --check --address "$WORK/status.sock"
echo "resident after: $(resident "$after")"
expect "no file is written" is "$state" files
expect "nobody but the agent reads a file without perms" is "640 640 600" modes
expect "the service is not told" is 1 grep -c . "$WORK/service.log"

step "a rotation"
put demo nexa "API_KEY=$second" MODEL=Small
wait_for "the service is told" grep -q "reloaded: MODEL=Small API_KEY=…${second: -4}" "$WORK/service.log"
cat "$WORK/service.log"
echo "resident a rotation later: $(resident "$after")"
if [ -n "$VAULT_BINARY" ]; then
  rm -r "$WORK/b/run"
  mkdir "$WORK/b/run"
  incumbent "$WORK/b"
  wait_for "deaddrop has the last version" grep -q "$second" "$WORK/a/run/nexa.yaml"
  same "after the rotation"
fi

step "the same in deaddrop's own words, later"
"${clean[@]}" "$DEADDROP" render --config "$WORK/a/deaddrop.hcl" >"$WORK/own.log" 2>&1 || { cat "$WORK/own.log"; fail "deaddrop.hcl"; }
for file in nexa.env nexa.json; do
  cmp "$WORK/a/run/$file" "$WORK/a/run/current/$file" || fail "$file differs"
done

step "no secret where it should not be"
secrets_of "$WORK/a/run/vault-token"
if grep -n -F -f <(sed '/^$/d' "$WORK/markers") "$WORK/validated" "$WORK/deaddrop.log" "$WORK/render.log" "$WORK/own.log" "$WORK/diff" "$WORK/diff.log" "$WORK/service.log"; then
  fail "secrets are where they should not be"
fi
leak_check
[ -n "$VAULT_BINARY" ] || skip "there is no vault program here (VAULT_BINARY): deaddrop ran the file of Vault Agent, and was not compared with it"
