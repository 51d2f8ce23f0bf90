# shellcheck shell=bash
# What the e2e.sh of the examples have in common. A script begins with:
#
#   . "$(dirname "$0")/../e2e/lib.sh"
#   begin nexa                        # a run of its own: names, a folder, cleaning up
#   use_deaddrop; use_vault; use_python
#
# It ends with 0 (the example works), 77 (skipped, with the reason as the last line) or
# anything else (it does not; the logs of all containers are shown). Whatever it has
# made is removed. Nothing is pulled: images are made of what is on this machine.
set -euo pipefail
umask 077

# REPO is the top of the repository, and SHARED_IMAGES is set where run.sh has made the
# images for several scripts, and removes them.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# --- the run ---------------------------------------------------------------------------

# skip ends the script: this machine cannot do it.
skip() {
  echo "skipped: $*"
  exit 77
}

# fail ends the script: the example does not work.
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# step says what is done now.
step() { echo "--- $*"; }

# need skips where programs are missing.
need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || skip "there is no $program here"
  done
}

# begin NAME starts a run: RUN is a name that nothing else has, and WORK a folder that
# is removed at the end. It skips where there is no Docker engine.
begin() {
  need docker go make curl busybox
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || skip "there is no Docker engine here"
  RUN=deaddrop-e2e-$1-$(random 4)
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/$RUN.XXXXXX")
  export RUN WORK COMPOSE_PROJECT_NAME=$RUN
  # What the user's own shell has is not for the examples.
  unset VAULT_ADDR VAULT_TOKEN VAULT_NAMESPACE VAULT_ROLE_ID VAULT_SECRET_ID VAULT_CACERT
  touch "$WORK/markers"
  trap finish EXIT
  trap 'exit 130' INT TERM
}

# running are processes that end with the run. Their logs are $WORK/*.log.
running=()

# finish shows the logs if something has failed, and removes what the run has made:
# all that has its label, or that of its compose project, whatever has become of it.
finish() {
  local status=$?
  trap - EXIT
  set +e
  kill "${running[@]}" 2>/dev/null
  if [ "$status" != 0 ] && [ "$status" != 77 ]; then show_logs; fi
  containers -a | xargs -r docker rm -f -v >/dev/null 2>&1
  of_run "docker network ls -q" | xargs -r docker network rm >/dev/null 2>&1
  of_run "docker volume ls -q" | xargs -r docker volume rm -f >/dev/null 2>&1
  echo "${OWN_IMAGES:-}" | xargs -r docker rmi -f >/dev/null 2>&1
  [ -n "${SHARED_IMAGES:-}" ] || remove_images
  rm -rf "$WORK" 2>/dev/null
  exit "$status"
}

# of_run COMMAND lists what the run has made by one of Docker's commands.
of_run() {
  { $1 --filter "label=deaddrop.e2e=$RUN"; $1 --filter "label=com.docker.compose.project=$RUN"; } | sort -u
}

# containers [-a] are the ids of the run's containers.
containers() { of_run "docker ps -q ${1:-}"; }

# show_logs is for whoever has to find out why it failed.
show_logs() {
  local id
  tail -n 20 "$WORK"/*.log 2>/dev/null
  for id in $(containers -a); do
    echo "===== $(docker inspect -f '{{.Name}}: {{.State.Status}}, exit code {{.State.ExitCode}}, health {{if .State.Health}}{{json .State.Health.Status}}{{end}}' "$id")"
    docker logs --tail 30 "$id" 2>&1 | grep -v "\"@level\":\"info\"" # of Vault's
  done
}

# random N is 2N hexadecimal digits.
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# wait_for TEXT COMMAND... waits for a command to succeed, for WAIT seconds at most.
wait_for() {
  local text=$1 deadline=$((SECONDS + ${WAIT:-60}))
  shift
  until "$@" >"$WORK/wait" 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      cat "$WORK/wait"
      fail "$text: not within ${WAIT:-60} s"
    fi
    sleep 0.2
  done
}

# is WANT COMMAND... is whether a command prints exactly that.
is() {
  local want=$1 got
  shift
  got=$("$@" 2>&1) || { echo "$got"; return 1; }
  [ "$got" = "$want" ] || { echo "it is $got, not $want"; return 1; }
}

# has WANT COMMAND... is whether a command prints that among other things.
has() {
  local want=$1 got
  shift
  got=$("$@" 2>&1) || { echo "$got"; return 1; }
  case $got in *"$want"*) ;; *) echo "$got"; return 1 ;; esac
}

# fails COMMAND... is whether a command does not succeed.
fails() { ! "$@"; }

# expect TEXT COMMAND... is wait_for for what has to be so already.
expect() {
  local text=$1
  shift
  "$@" >"$WORK/wait" 2>&1 || { cat "$WORK/wait"; fail "$text"; }
}

# --- secrets ---------------------------------------------------------------------------

# marker NAME sets a variable to a new secret value. leak_check searches for all of them.
marker() {
  printf -v "$1" 'Mk%s' "$(random 12)"
  echo "${!1}" >>"$WORK/markers"
}

# secrets_of FILE... makes markers of what is in files, such as secret ids.
secrets_of() {
  local file
  for file in "$@"; do { cat "$file"; echo; } >>"$WORK/markers"; done
}

# fingerprint VALUE is what services say of a secret: the beginning of its SHA-256.
fingerprint() { printf %s "$1" | sha256sum | cut -c1-12; }

# leak_check fails where a secret is in the logs of a container, its settings, its
# environment, its processes' command lines, or its files, without those of volumes.
leak_check() {
  local id found=0
  sed -i '/^$/d' "$WORK/markers"
  [ -s "$WORK/markers" ] || fail "leak_check: there is nothing to search for"
  for id in $(containers -a); do
    {
      docker logs "$id" 2>&1
      docker inspect "$id"
      docker top "$id" -eo args 2>/dev/null || true
    } >"$WORK/said"
    docker export "$id" | { grep -a -o -F -f "$WORK/markers" || true; } >"$WORK/kept" || fail "leak_check: no files of $id"
    if grep -n -F -f "$WORK/markers" "$WORK/said" || grep . "$WORK/kept"; then
      echo "that is of $(docker inspect -f '{{.Name}}' "$id")"
      found=1
    fi
  done
  [ "$found" = 0 ] || fail "secrets are where they should not be"
}

# --- images ----------------------------------------------------------------------------

# remove_images removes what the use_ functions have made.
remove_images() {
  echo "${MADE_IMAGES:-}" | xargs -r docker rmi -f >/dev/null 2>&1 || true
}

# made NAME remembers an image, to remove it.
made() { MADE_IMAGES="${MADE_IMAGES:-} $1"; }

# own_image NAME remembers an image of this example alone, to remove it.
own_image() { OWN_IMAGES="${OWN_IMAGES:-} $1"; }

# use_deaddrop has DEADDROP_IMAGE, as "make image" builds it, and DEADDROP and TENANTCTL,
# the programs. One at a time: the folder bin/ is shared.
use_deaddrop() {
  export DEADDROP=$REPO/bin/deaddrop TENANTCTL=$REPO/bin/tenantctl
  [ -n "${DEADDROP_IMAGE:-}" ] && return
  mkdir -p "$(cache)"
  DEADDROP_IMAGE=deaddrop:e2e-$(random 4)
  flock "$(cache)/e2e.lock" make -s -C "$REPO" build image VERSION="${DEADDROP_IMAGE#*:}" >"$WORK/build" 2>&1 ||
    { cat "$WORK/build"; fail "the image of deaddrop cannot be built"; }
  made "$DEADDROP_IMAGE"
  export DEADDROP_IMAGE
}

# cache is the folder where devvault is kept, too.
cache() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/deaddrop"; }

# tarred PATH... writes programs and folders of this machine to an archive, with the
# libraries that they need. Links are followed.
tarred() {
  local libraries
  libraries=$(find "$@" -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + 2>/dev/null | grep -o '/[^ :]*\.so[^ :]*' | sort -u || true)
  # shellcheck disable=SC2086 # one word each
  tar -ch --exclude=__pycache__ --exclude=test --exclude=config-3.* -f - "$@" $libraries 2>/dev/null
}

# use_vault_image has VAULT_IMAGE: devvault, the real thing in one program, and busybox.
use_vault_image() {
  [ -n "${VAULT_IMAGE:-}" ] && return
  local root=$WORK/vault-image
  mkdir -p "$root/bin" "$root/tmp" "$root/vault/file" "$root/vault/logs" "$root/vault/config"
  ln -s "$(cd "$REPO" && go run ./examples/e2e/vaultbinary)" "$root/bin/vault"
  ln -s "$(command -v busybox)" "$root/bin/sh"
  VAULT_IMAGE=deaddrop-e2e-vault:$(random 4)
  chmod -R a+rX "$root"
  tar -C "$root" --owner=0 --group=0 -ch . | docker import -c 'ENV PATH=/bin' \
    -c 'ENTRYPOINT ["vault","server","-config=/vault/config"]' - "$VAULT_IMAGE" >/dev/null
  rm -rf "$root"
  made "$VAULT_IMAGE"
  export VAULT_IMAGE
}

# has_python is whether this machine has a Python that use_python finds its way in.
has_python() { [ -x /usr/bin/python3 ] && [ -d "/usr/lib/$(basename "$(readlink -f /usr/bin/python3)")" ]; }

# use_python has PYTHON_IMAGE: this machine's Python with its standard library, and a
# shell with the usual tools, in the places where Debian has them.
use_python() {
  [ -n "${PYTHON_IMAGE:-}" ] && return
  has_python || skip "there is no Python of Debian's packages here"
  local python libraries root=$WORK/python-image
  python=$(readlink -f /usr/bin/python3)
  libraries=/usr/lib/$(basename "$python")
  tools "$root"
  ln -s "$(basename "$python")" "$root/usr/bin/python3"
  PYTHON_IMAGE=deaddrop-e2e-python:$(random 4)
  tarred "$python" "$libraries" | tar -x -C "$root"
  imported "$root" "$PYTHON_IMAGE"
  export PYTHON_IMAGE
}

# use_busybox has BUSYBOX_IMAGE: a shell with the usual tools.
use_busybox() {
  [ -n "${BUSYBOX_IMAGE:-}" ] && return
  BUSYBOX_IMAGE=deaddrop-e2e-busybox:$(random 4)
  tools "$WORK/busybox-image"
  imported "$WORK/busybox-image" "$BUSYBOX_IMAGE"
  export BUSYBOX_IMAGE
}

# tools DIR lays out a system of busybox.
tools() {
  local applet
  mkdir -p "$1/usr/bin" "$1/etc" "$1/tmp" "$1/run" "$1/lib64"
  ln -s usr/bin "$1/bin"
  cp "$(command -v busybox)" "$1/usr/bin/busybox"
  for applet in $(busybox --list | grep -vx busybox); do ln -s busybox "$1/usr/bin/$applet"; done
  echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
}

# imported DIR NAME makes an image of a folder, which goes.
imported() {
  chmod -R a+rX "$1"
  chmod 1777 "$1/tmp"
  tar -C "$1" --owner=0 --group=0 -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'CMD ["sh"]' - "$2" >/dev/null
  rm -rf "$1"
  made "$2"
}

# --- Vault -----------------------------------------------------------------------------

# use_vault starts a Vault with the platform's configuration, and sets it up as
# compose/README.md does. Containers reach it on the network SMARTER_NET as
# http://smarteros-vault:8200, or http://vault:8200. VAULT_ADDR and VAULT_TOKEN are for
# tenantctl and curl on this machine.
use_vault() {
  use_deaddrop
  use_vault_image
  SMARTER_NET=$RUN-net
  VAULT_CONTAINER=$RUN-vault
  export SMARTER_NET VAULT_CONTAINER
  docker network create --label "deaddrop.e2e=$RUN" "$SMARTER_NET" >/dev/null
  docker create --name "$VAULT_CONTAINER" --label "deaddrop.e2e=$RUN" --network "$SMARTER_NET" \
    --network-alias vault --network-alias smarteros-vault -e VAULT_DISABLE_MLOCK=true "$VAULT_IMAGE" >/dev/null
  docker cp -q "$REPO/compose/vault.hcl" "$VAULT_CONTAINER:/vault/config/vault.hcl"
  docker start "$VAULT_CONTAINER" >/dev/null
  vault_address
  (cd "$WORK" && "$TENANTCTL" setup --init --keys-file vault-keys.json) >"$WORK/setup" 2>&1 ||
    { cat "$WORK/setup"; fail "Vault cannot be set up"; }
  VAULT_TOKEN=$(sed -n 's/.*"root_token": *"\([^"]*\)".*/\1/p' "$WORK/vault-keys.json")
  [ -n "$VAULT_TOKEN" ] || fail "there is no root token in vault-keys.json"
  echo "$VAULT_TOKEN" >>"$WORK/markers"
  export VAULT_TOKEN
}

# vault_address sets VAULT_ADDR: a restart may change it.
vault_address() {
  VAULT_ADDR=http://$(docker inspect -f "{{(index .NetworkSettings.Networks \"$SMARTER_NET\").IPAddress}}" "$VAULT_CONTAINER"):8200
  export VAULT_ADDR
}

# restart_vault kills Vault, and starts it again, sealed.
restart_vault() {
  docker kill "$VAULT_CONTAINER" >/dev/null
  docker start "$VAULT_CONTAINER" >/dev/null
  vault_address
}

# unseal_vault is what an operator has to come for.
unseal_vault() {
  "$TENANTCTL" setup --unseal --keys-file "$WORK/vault-keys.json" --no-credentials --no-demo >"$WORK/setup" 2>&1 ||
    { cat "$WORK/setup"; fail "Vault cannot be unsealed"; }
}

# put TENANT SERVICE KEY=VALUE... sets values of a secret; no value is on a command line.
put() {
  local tenant=$1 service=$2 pair
  shift 2
  for pair in "$@"; do
    printf %s "${pair#*=}" | "$TENANTCTL" tenant set "$tenant" "$service" "${pair%%=*}=-" >"$WORK/put" 2>&1 ||
      { cat "$WORK/put"; fail "${pair%%=*} cannot be set"; }
  done
}

# login TENANT DIR [OPTION...] issues a login and leaves its role_id and secret_id in a
# folder. Only the folder's owner gets in, so that containers, which get the files one
# by one, may read them whatever user they run as.
login() {
  local tenant=$1 dir=$2
  shift 2
  "$TENANTCTL" credentials issue "$tenant" --out-dir "$dir" "$@" >"$WORK/login" 2>&1 ||
    { cat "$WORK/login"; fail "no credentials for $tenant"; }
  chmod 0700 "$dir"
  chmod 0444 "$dir/role_id" "$dir/secret_id"
  secrets_of "$dir/secret_id"
}

# --- compose ---------------------------------------------------------------------------

# use_example copies the example's files to WORK/example and goes there: what is put
# beside them, such as credentials, must not stay in the repository.
use_example() {
  if docker-compose version >/dev/null 2>&1; then COMPOSE=docker-compose
  elif docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"
  else skip "there is no docker-compose here"; fi
  mkdir "$WORK/example"
  cp -R "$REPO/examples/$1/." "$WORK/example"
  chmod -R go+rX "$WORK/example"
  cd "$WORK/example"
}

# compose runs the user's Compose on the example.
compose() { $COMPOSE "$@"; }

# up OPTION... starts the example.
up() { compose up "$@" >"$WORK/up" 2>&1 || { cat "$WORK/up"; fail "the example does not come up"; }; }

# id_of SERVICE is the id of a service's container, running or not.
id_of() {
  docker ps -aq --filter "label=com.docker.compose.project=$RUN" --filter "label=com.docker.compose.service=$1" | head -n 1
}

# field SERVICE TEMPLATE is one thing that Docker knows of a service's container.
field() { docker inspect -f "$2" "$(id_of "$1")"; }

# address_of SERVICE is where this machine reaches it.
address_of() { field "$1" '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' | cut -d ' ' -f 1; }

# get SERVICE PORT PATH asks a service by HTTP.
get() { curl -sS --noproxy '*' --max-time 5 "http://$(address_of "$1"):$2$3"; }

# healthy SERVICE... is whether Docker finds them so.
healthy() {
  local service
  for service in "$@"; do
    is healthy field "$service" '{{.State.Health.Status}}' || return 1
  done
}

# inside SERVICE COMMAND... runs a command in a service's container. Where the container
# ends meanwhile, Docker may not notice.
inside() {
  local service=$1
  shift
  timeout 30 docker exec "$(id_of "$service")" "$@"
}
