#!/usr/bin/env bash
# Brings the units of this folder up under a real systemd, in a container, as the README
# tells, and sees them work: it runs the test that does so. It ends with 0, or with 77
# where this machine cannot do it.
set -euo pipefail
cd "$(dirname "$0")"

said=$(mktemp)
trap 'rm -f "$said"' EXIT
go test -count=1 -timeout 10m -run 'TestUnderARealSystemd|TestTheUnits' -v . | tee "$said"
if grep -q '^--- SKIP: TestUnderARealSystemd' "$said"; then
  echo "skipped: $(grep -m1 -A1 '^--- SKIP: TestUnderARealSystemd' "$said" | tail -n1 | sed 's/^ *//')"
  exit 77
fi
