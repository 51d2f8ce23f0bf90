#!/usr/bin/env bash
# Runs the e2e.sh of the examples, with a line for each: "make e2e", or "make e2e
# EXAMPLES='nexa n8n'". It fails if one of them does. JOBS of them run side by side: one,
# if it is not set. The images that they have in common are made once.

# shellcheck source=examples/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
names=()
for example in "${@:-*}"; do
  for script in "$REPO"/examples/$example/e2e.sh; do
    [ -x "$script" ] || fail "there is no example $example"
    names+=("$(basename "$(dirname "$script")")")
  done
done
begin all
use_deaddrop
use_vault_image
! has_python || use_python # without it those that need it skip
use_busybox
export REPO LIMIT=${LIMIT:-600} # seconds for one example

# run NAME runs one example, and says how it went.
run() {
  local status=0 started=$SECONDS
  SHARED_IMAGES=1 timeout --kill-after=60 "$LIMIT" "$REPO/examples/$1/e2e.sh" >"$WORK/out.$1" 2>&1 || status=$?
  case $status in
    0) echo "$1: ok ($((SECONDS - started)) s)" ;;
    77) echo "$1: $(tail -n 1 "$WORK/out.$1")" ;;
    124 | 137) cat "$WORK/out.$1"; echo "$1: FAILED: not done within $LIMIT s"; return 1 ;;
    *) cat "$WORK/out.$1"; echo "$1: FAILED"; return 1 ;;
  esac
}

export -f run
# shellcheck disable=SC2016 # The inner shell expands it.
printf '%s\0' "${names[@]}" | xargs -0 -P "${JOBS:-1}" -n 1 bash -c 'run "$1"' run || exit 1
