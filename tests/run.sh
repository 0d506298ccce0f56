#!/usr/bin/env bash
# Runs every test: installs the real peers from Debian, then the suite twice, the second time with every portable
# fallback forced. A peer that cannot be installed is a failure, not a skip.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(haproxy mandoc busybox curl iproute2)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cargo test "$@"
RUSTFLAGS="${RUSTFLAGS:-} --cfg beacond_portable" cargo test --target-dir target/portable "$@"
tests/readme.sh
