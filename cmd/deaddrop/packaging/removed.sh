#!/bin/sh
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
# Journals stay until dpkg purges. rpm knows no purge.
if [ "$1" = purge ]; then
  rm -rf /var/lib/deaddrop
fi
