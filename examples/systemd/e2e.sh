#!/usr/bin/env bash
# Brings the units of this folder up under a real systemd, in a container, as the README
# tells, and sees them work: it runs the test that does so. It ends with 0, or with 77
# where this machine cannot do it, with the reason as its last line.
set -euo pipefail
cd "$(dirname "$0")"

said=$(mktemp)
trap 'rm -f "$said"' EXIT
go test -count=1 -timeout 10m -run 'TestUnderARealSystemd|TestTheUnits' -v . | tee "$said"
# The reason stands before the verdict.
reason=$(grep -B1 '^ *--- SKIP: ' "$said" | sed -n '1s/^ *[a-z_]*\.go:[0-9]*: //p') || true
if [ -n "$reason" ]; then
  echo "skipped: $reason"
  exit 77
fi
