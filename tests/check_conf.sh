#!/usr/bin/env bash
# Whether a shipped configuration is right: `check_conf.sh BEACOND FILE`. Checks a copy whose secret is a fresh one in a
# folder of its own, and wants `ok` and no warning.
set -euo pipefail
beacond=$1 conf=$2
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
(umask 077 && "$beacond" keygen secret >"$box/secret")
sed "s|/etc/beacond/secret|$box/secret|" "$conf" >"$box/beacond.conf"
said=$("$beacond" check -c "$box/beacond.conf" 2>&1) || {
  printf '%s: %s\n' "$conf" "$said" >&2
  exit 1
}
if [ "$said" != ok ]; then
  printf '%s: wanted ok and nothing else: %s\n' "$conf" "$said" >&2
  exit 1
fi
