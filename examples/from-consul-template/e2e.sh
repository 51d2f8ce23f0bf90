#!/usr/bin/env bash
# consul-template, built from its sources, and deaddrop make the same of the same
# templates, byte by byte; a service that consul-template has served goes on with deaddrop
# without noticing, and is told of the next rotation.
# shellcheck disable=SC2154 # variables that "marker" sets
# shellcheck source-path=SCRIPTDIR source=../e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
begin from-consul-template
use_deaddrop

VERSION=0.41.1
mkdir -p "$(cache)"
CONSUL_TEMPLATE=${CONSUL_TEMPLATE:-$(cache)/consul-template-$VERSION}
if [ ! -x "$CONSUL_TEMPLATE" ]; then
  step "consul-template $VERSION is built, once"
  GOBIN=$WORK/bin CGO_ENABLED=0 go install "github.com/hashicorp/consul-template@v$VERSION" >"$WORK/build" 2>&1 ||
    { cat "$WORK/build"; skip "consul-template $VERSION cannot be built here"; }
  mv "$WORK/bin/consul-template" "$CONSUL_TEMPLATE"
fi

step "Vault, a secret and a login"
use_vault
marker first; marker second
config='CONFIG={"db":{"host":"db","port":5432,"tls":true},"ports":[1,2],"ratio":0.5,"big":12345678901}'
put demo nexa "API_KEY=$first" MODEL=Large "$config"
login demo "$WORK/login-demo"

# --- as the machine is set up -----------------------------------------------------------

mkdir "$WORK/etc" "$WORK/run"
cp -R "$WORK/login-demo" "$WORK/etc/login"
cp -R "$REPO/examples/from-consul-template/." "$WORK/etc"
for config in consul-template.hcl deaddrop.hcl; do
  sed -i -e "s|/etc/nexa|$WORK/etc|g; s|/run/nexa|$WORK/run|g; s|https://vault:8200|$VAULT_ADDR|" "$WORK/etc/$config"
done
(cd "$REPO" && go build -o "$WORK/nexa" ./examples/service)
# Neither gets anything from here but a variable that a template reads.
clean=(env -i "PATH=$PATH" "HOME=$WORK" NEXA_REGION=cl EXAMPLE_SET=set)
# token is what consul-template needs somebody else for.
token() {
  printf '{"role_id":"%s","secret_id":"%s"}' "$(cat "$WORK/etc/login/role_id")" "$(cat "$WORK/etc/login/secret_id")" |
    curl -sS --noproxy '*' -d @- "$VAULT_ADDR/v1/auth/approle/login" | sed -n 's/.*"client_token":"\([^"]*\)".*/\1/p'
}
token >"$WORK/run/vault-token"
secrets_of "$WORK/run/vault-token"
step "consul-template serves the service"
"${clean[@]}" "$CONSUL_TEMPLATE" -config "$WORK/etc/consul-template.hcl" >"$WORK/consul-template.log" 2>&1 &
running+=($!) incumbent=$!
wait_for "consul-template writes the files" test -s "$WORK/run/nexa.env" -a -s "$WORK/run/nexa.json"
"$WORK/nexa" "$WORK/run/nexa.env" "$WORK/run/nexa.pid" >"$WORK/service.log" 2>&1 &
running+=($!)
wait_for "the service starts" grep -q "started: MODEL=Large" "$WORK/service.log"

step "what of its configuration has to change"
if "${clean[@]}" "$DEADDROP" validate "$WORK/etc/consul-template.hcl" >"$WORK/moves" 2>&1; then fail "its settings are not known, and yet valid"; fi
cat "$WORK/moves"
"${clean[@]}" "$DEADDROP" validate "$WORK/etc/deaddrop.hcl"

step "what would change in the files: nothing"
"${clean[@]}" "$DEADDROP" render --config "$WORK/etc/deaddrop.hcl" --diff >"$WORK/diff" 2>"$WORK/diff.log"
cat "$WORK/diff"

step "the switch"
files() { (cd "$WORK/run" && stat -c '%n %i %a %Y' nexa.env nexa.json && sha256sum nexa.env nexa.json); }
before=$(files)
kill "$incumbent"
wait "$incumbent" 2>/dev/null || true
"${clean[@]}" "$DEADDROP" run --config "$WORK/etc/deaddrop.hcl" --status-address "$WORK/run/status.sock" >"$WORK/deaddrop.log" 2>&1 &
running+=($!)
wait_for "deaddrop is ready" "$DEADDROP" status --check --address "$WORK/run/status.sock"
expect "no file is touched" is "$before" files
expect "the service is not told" is 1 grep -c . "$WORK/service.log"

step "a rotation"
put demo nexa "API_KEY=$second" MODEL=Small
wait_for "the service is told" grep -q "reloaded: MODEL=Small API_KEY=…${second: -4}" "$WORK/service.log"
cat "$WORK/service.log"

step "consul-template would have written the same"
mkdir "$WORK/again"
rm "$WORK/run/vault-token" && token >"$WORK/run/vault-token"
secrets_of "$WORK/run/vault-token"
sed -e "s|destination\( *\)= \"$WORK/run|destination\1= \"$WORK/again|" -e '/^  exec {/,/^  }/d' "$WORK/etc/consul-template.hcl" >"$WORK/again.hcl"
"${clean[@]}" "$CONSUL_TEMPLATE" -once -config "$WORK/again.hcl" >"$WORK/again.log" 2>&1
for file in nexa.env nexa.json; do
  wait_for "$file becomes the same" cmp "$WORK/again/$file" "$WORK/run/$file"
done

step "a template of many functions"
cat >"$WORK/functions.hcl" <<END
vault { address = "$VAULT_ADDR" }
auto_auth {
  method "token_file" { config = { token_file_path = "$WORK/run/vault-token" } }
}
template {
  source               = "$WORK/etc/templates/functions.ctmpl"
  destination          = "$WORK/run/functions"
  error_on_missing_key = false # consul-template's default
}
END
{
  sed '/^template {/,$d' "$WORK/again.hcl"
  printf 'template {\n  source = "%s"\n  destination = "%s"\n}\n' "$WORK/etc/templates/functions.ctmpl" "$WORK/again/functions"
} >"$WORK/again-functions.hcl"
"${clean[@]}" "$CONSUL_TEMPLATE" -once -config "$WORK/again-functions.hcl" >"$WORK/again.log" 2>&1 || { cat "$WORK/again.log"; fail "consul-template"; }
"${clean[@]}" "$DEADDROP" render --config "$WORK/functions.hcl" >"$WORK/functions.log" 2>&1 || { cat "$WORK/functions.log"; fail "deaddrop"; }
# deaddrop writes whole numbers as whole numbers; see the README.
sed -i -e 's/1\.2345678901e+10/12345678901/' -e 's/^port = 5432\.0$/port = 5432/' "$WORK/again/functions"
diff "$WORK/again/functions" "$WORK/run/functions" || fail "the functions differ"
echo "$(grep -c . "$WORK/run/functions") lines are the same"

step "no secret where it should not be"
if grep -n -F -f <(sed '/^$/d' "$WORK/markers") "$WORK/deaddrop.log" "$WORK/functions.log" "$WORK/diff" "$WORK/diff.log" "$WORK/moves" "$WORK/service.log"; then
  fail "secrets are where they should not be"
fi
leak_check
