#!/usr/bin/env bash
# Every figure, side by side in one run: a line each, with its goal. Ends with status 1 if one is missed by more than the
# noise of a shared machine. Wants two CPUs with nothing else to do, HAProxy and etcd.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
missed=0
for bench in receiver daemon haproxy sinks rounds files etcd proxy; do
  cargo bench -q --bench "$bench" || missed=1
done
for bench in wire members wheel; do
  cargo bench -q --bench "$bench" -- --quick || missed=1
done
benches/size.sh || missed=1
exit "$missed"
