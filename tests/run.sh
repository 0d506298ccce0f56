#!/usr/bin/env bash
# Runs every test: installs the real peers from Debian, then the suite twice, the second time with every portable
# fallback forced. A peer that cannot be installed is a failure, not a skip.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(haproxy apache2 nginx libnginx-mod-stream caddy prometheus dnsmasq-base etcd-server mandoc busybox curl iproute2
  openssl python3 util-linux)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  # Servers would start, and take port 80: the tests start their own. A policy that somebody has set stays.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
  else
    policy=
  fi
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  if [ -n "$policy" ]; then
    $sudo rm -f "$policy"
    trap - EXIT
  fi
fi

cargo test "$@"
RUSTFLAGS="${RUSTFLAGS:-} --cfg beacond_portable" cargo test --target-dir target/portable "$@"
tests/readme.sh
