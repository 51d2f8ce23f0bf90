#!/bin/sh
# Before a removal (dpkg says remove, rpm 0), not before an upgrade. Files stay.
case "$1" in
remove | 0)
  if [ -d /run/systemd/system ]; then
    systemctl stop 'deaddrop@*.service' || true
  fi
  ;;
esac
