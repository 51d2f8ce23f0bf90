#!/usr/bin/env bash
# Both files pass Kubernetes' own validation and the Pod Security Standard "restricted".
# Then Podman, which runs Kubernetes' YAML without a cluster, runs pod.yaml on a real
# Vault: the service gets its secrets, and sees a rotation. See README.md for what of a
# cluster that leaves out.
# shellcheck disable=SC2154 # variables that "marker" sets
# shellcheck source-path=SCRIPTDIR source=../e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
begin kubernetes
use_deaddrop
here=$REPO/examples/kubernetes

step "the manifests are what an API server takes"
mkdir "$WORK/approle" "$WORK/serviceaccount"
(cd "$here/validate" && go build -o "$WORK/validate" .) || fail "the validation cannot be built"
"$WORK/validate" -data "$WORK/approle" "$here/pod.yaml"
"$WORK/validate" -data "$WORK/serviceaccount" "$here/pod-kubernetes-auth.yaml"
sed 's/shareProcessNamespace/shareProcesNamespace/' "$here/pod.yaml" >"$WORK/typo.yaml"
if "$WORK/validate" "$WORK/typo.yaml" >"$WORK/typo" 2>&1; then fail "a mistake passes the validation"; fi
expect "the mistake is named" grep -q 'unknown field "spec.shareProcesNamespace"' "$WORK/typo"
# Their logins are files of the pod.
for file in role_id secret_id token; do echo placeholder >"$WORK/$file"; done
for config in "$WORK/approle/deaddrop.hcl" "$WORK/serviceaccount/deaddrop.hcl"; do
  sed -i -E "s#/etc/deaddrop/login|/var/run/secrets/vault#$WORK#" "$config"
  "$DEADDROP" validate "$config"
done

for program in podman catatonit; do
  command -v "$program" >/dev/null || skip "there is no $program here; the manifests were validated, and not run"
done

# --- Podman, with storage of its own ---------------------------------------------------

# All of it is on a tmpfs: Podman does not know "medium: Memory", and deaddrop is told to
# require it. Limits are those that every machine has.
memory=$(mktemp -d /dev/shm/deaddrop-e2e.XXXXXX)
pods() { podman --root "$memory/root" --runroot "$memory/run" "$@"; }
export CONTAINERS_CONF=$WORK/containers.conf
cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
END

remove_pods() {
  local status=$?
  set +e
  if [ "$status" != 0 ] && [ "$status" != 77 ]; then
    for name in nexa-deaddrop-init nexa-nexa nexa-deaddrop; do echo "===== $name"; pods logs "$name"; done
  fi
  pods pod rm -f -a >/dev/null 2>&1
  pods rmi -f -a >/dev/null 2>&1
  umount "$memory/root/overlay" 2>/dev/null
  rm -rf "$memory"
  (exit "$status")
  finish
}
trap remove_pods EXIT

step "an image of the service"
mkdir "$WORK/nexa"
(cd "$REPO" && CGO_ENABLED=0 go build -o "$WORK/nexa/nexa" ./examples/service)
chmod 0755 "$WORK/nexa/nexa"
cat >"$WORK/nexa/Dockerfile" <<'END'
FROM scratch
COPY nexa /nexa
ENTRYPOINT ["/nexa", "/run/deaddrop/nexa/nexa.env", "/dev/null"]
END
NEXA_IMAGE=deaddrop-e2e-nexa:$(random 4)
docker build -q -t "$NEXA_IMAGE" "$WORK/nexa" >/dev/null 2>&1
own_image "$NEXA_IMAGE"
docker save "$DEADDROP_IMAGE" "$NEXA_IMAGE" | pods load -q >/dev/null || skip "podman cannot load an image here"
pods run --rm --network none "localhost/$DEADDROP_IMAGE" version >"$WORK/podman-works" 2>&1 ||
  skip "podman cannot run containers here: $(tail -n 1 "$WORK/podman-works"); the manifests were validated, and not run"

step "Vault, and the login"
use_vault
marker first; marker second
put demo nexa "API_KEY=$first" MODEL=one
login demo "$WORK/login-demo" --service nexa

step "the pod"
# Podman 4.3 is no kubelet: it mounts Secrets undecoded, for which a ConfigMap stands in,
# and starts an init container that has succeeded again under "restartPolicy: Always". It
# has no "subPath", either: two folders of this machine are mounted, as by a kubelet.
{
  cat <<END
apiVersion: v1
kind: ConfigMap
metadata:
  name: nexa-login
data:
  role_id: $(cat "$WORK/login-demo/role_id")
  secret_id: $(cat "$WORK/login-demo/secret_id")
---
END
  sed -e "s|https://vault.vault.svc:8200|$VAULT_ADDR|" -e "s|image: deaddrop:dev|image: localhost/$DEADDROP_IMAGE|" \
    -e "s|image: nexa:dev|image: localhost/$NEXA_IMAGE|" \
    -e 's|^  shareProcessNamespace: .*|&\n  restartPolicy: OnFailure|' \
    -e 's|secret:$|configMap:|' -e 's|secretName: nexa-deaddrop|name: nexa-login|' \
    -e "s|emptyDir:|hostPath:\n        path: $memory/secrets|" -e '/medium: Memory/d' -e '/sizeLimit: /d' \
    -e '/^ \{8\}- name: secrets$/{N;N;s|name: secrets\(.*\)\n *subPath: nexa|name: subfolder\1|}' "$here/pod.yaml"
  cat <<END
    - name: subfolder
      hostPath:
        path: $memory/secrets/nexa
END
} >"$WORK/pod.yaml"
mkdir -m 0777 "$memory/secrets"
install -d -m 0700 -o 65532 -g 65532 "$memory/secrets/nexa" # as the init container makes it
pods kube play "$WORK/pod.yaml" >"$WORK/play" 2>&1 || { cat "$WORK/play"; fail "podman kube play"; }
said() { pods logs nexa-nexa 2>&1; }
wait_for "the service starts with its secret" has "service started: MODEL=one API_KEY=…${first: -4}" said

step "a rotation"
put demo nexa "API_KEY=$second" MODEL=two
wait_for "the service is told of the new secret" has "service reloaded: MODEL=two API_KEY=…${second: -4}" said

step "what it runs with"
pid=$(pods inspect -f '{{.State.Pid}}' nexa-deaddrop)
of_process() { awk -v name="$1:" '$1 == name { print $2 }' "/proc/$pid/status"; }
expect "it is no root" is 65532 of_process Uid
expect "it has no capability" is 0000000000000000 of_process CapEff
expect "it can get none" is 1 of_process NoNewPrivs
expect "its calls are filtered" is 2 of_process Seccomp
expect "the secret is its user's alone" is "600 65532" stat -c '%a %u' "$memory/secrets/nexa/nexa.env"
expect "it can keep a journal" fails has "nothing is kept" pods logs nexa-deaddrop
echo "resident: $(of_process VmRSS) kB; the limit is 64 MiB"

step "the probes"
# As the kubelet runs them: Podman 4.3 wants a shell for that.
expect "it is alive" pods exec nexa-deaddrop /deaddrop status --alive
expect "the files are current" pods exec nexa-deaddrop /deaddrop status --check
pods exec nexa-deaddrop /deaddrop status
pods exec nexa-deaddrop /deaddrop status -o json >"$WORK/status"

step "no secret where it should not be"
{ pods logs nexa-nexa; pods logs nexa-deaddrop; pods inspect nexa-nexa nexa-deaddrop; tr '\0' ' ' <"/proc/$pid/cmdline"; tr '\0' '\n' <"/proc/$pid/environ"; cat "$WORK/status"; } >"$WORK/said" 2>&1
sed -i '/^$/d' "$WORK/markers"
if grep -n -F -f "$WORK/markers" "$WORK/said"; then fail "secrets are where they should not be"; fi
leak_check
