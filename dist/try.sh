#!/usr/bin/env bash
# The whole story on loopback, with a real HAProxy: backends announce themselves, one falls silent and returns, one
# fails its health check, one says goodbye, a stranger is refused, receiver and balancer are restarted. Every step is
# judged by requests through HAProxy; the exit status is 0 only if each was observed. Takes about 10 s once built, asks
# for no set-up, leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH+=:/usr/sbin:/sbin

missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v busybox >/dev/null || missing+=(busybox)
command -v curl >/dev/null || missing+=(curl)
if ((${#missing[@]})); then
  echo "installing from Debian: ${missing[*]}"
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
cargo build --release
beacond=$(realpath "${CARGO_TARGET_DIR:-target}/release/beacond")

work=$(mktemp -d)
net=127.$((64 + RANDOM % 128)).$((RANDOM % 256)) # addresses of our own: nothing else binds there
web=$net.1:8000
receiver=$net.1:5555
declare -A pid
start=${EPOCHREALTIME/./}

cleanup() {
  status=$?
  trap - EXIT
  if ((status)); then
    echo "FAILED; what the receiver said last:"
    tail -n 20 "$work/listen.log" || true
  fi 2>/dev/null
  for name in "${!pid[@]}"; do kill -9 "${pid[$name]}" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() {
  local us=$((${EPOCHREALTIME/./} - start))
  printf '%3d.%01d s  %s\n' $((us / 1000000)) $((us / 100000 % 10)) "$*"
}

# Runs a command in the background under a name, with a log of its own.
run() {
  local name=$1
  shift
  "$@" >>"$work/$name.log" 2>&1 &
  pid[$name]=$!
}

# Ends what runs under a name: `end NAME SIGNAL`.
end() {
  kill "-$2" "${pid[$1]}"
  wait "${pid[$1]}" 2>/dev/null || true
  unset "pid[$1]"
}

# One request through HAProxy: who answered, or the status if nobody did.
ask() {
  curl -s -m 2 -o "$work/answer" -w '%{http_code}' "http://$web/" >"$work/status" || true
  if [ "$(<"$work/status")" = 200 ]; then echo "$(<"$work/answer")"; else echo "$(<"$work/status")"; fi
}

# Twelve requests, counted by who answered, as "6x backend-1, 6x backend-2".
requests() {
  local who
  declare -A count=()
  for _ in {1..12}; do
    who=$(ask)
    count[$who]=$((${count[$who]:-0} + 1))
  done
  for who in "${!count[@]}"; do echo "${count[$who]}x $who"; done | sort -k2 | paste -sd, | sed 's/,/, /g'
}

# Repeats twelve requests until exactly these answer, in equal shares if there are two: `served_by backend-1 backend-2`.
served_by() {
  local wanted seen deadline=$((${EPOCHREALTIME/./} + 6000000))
  wanted=$(for who in "$@"; do echo "$((12 / $#))x $who"; done | paste -sd, | sed 's/,/, /g')
  while seen=$(requests) && [ "$seen" != "$wanted" ]; do
    if ((${EPOCHREALTIME/./} > deadline)); then
      say "wanted $wanted of twelve requests, but saw $seen"
      exit 1
    fi
  done
  say "   twelve requests: $seen"
}

# Requests without a pause in the background, until `calm` says that none of them failed.
storm() {
  rm -f "$work/over"
  (while [ ! -e "$work/over" ]; do ask; done) >"$work/storm" 2>&1 &
  pid[storm]=$!
}
calm() {
  wait_for "a dozen requests" enough
  touch "$work/over"
  wait "${pid[storm]}"
  unset 'pid[storm]'
  local all failed
  all=$(wc -l <"$work/storm")
  failed=$(grep -vc '^backend-' "$work/storm" || true)
  say "   $all requests meanwhile, $failed failed"
  ((all > 10 && failed == 0))
}
enough() { (($(wc -l <"$work/storm") > 11)); }

wait_for() {
  for _ in {1..100}; do
    if "${@:2}" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  say "waited in vain for $1"
  exit 1
}

backend() { # backend N: a web server that says its name
  mkdir -p "$work/www$1"
  echo "backend-$1" >"$work/www$1/index.html"
  run "backend-$1" busybox httpd -f -p "$net.1$1:8080" -h "$work/www$1"
  wait_for "backend-$1" curl -sf "http://$net.1$1:8080/"
}

announce() { # announce N SECRET [OPTION]...: announces backend N
  run "announce-$1" "$beacond" --control "$work/announce-$1.sock" announce --address "$receiver" \
    --advertise "http://$net.1$1:8080" --allow 127.0.0.0/8 --balancer web --secret-file "$2" --interval 200ms \
    --check "http://$net.1$1:8080/" --check-interval 100ms --leave-on-fail "${@:3}"
}

listen() { # the receiver, and HAProxy's follower
  run listen "$beacond" --control "$work/control" --state "$work/state" \
    listen --listen "$receiver" --allow 127.0.0.0/8 --balancer web --secret-file "$work/secret" --timeout 2 \
    + haproxy --balancer web --socket "$work/haproxy.sock" --backend web \
    --server-options "check inter 200ms rise 1 fall 2"
  wait_for "the receiver" "$beacond" status --control "$work/control"
}

mismatches() { # how many announcements were dropped for a wrong signature
  "$beacond" status --json --control "$work/control" | grep -o '"beacon.drop.mac_mismatch":[0-9]*' | cut -d: -f2
}

refused() { # whether at least that many were
  (($(mismatches) >= $1))
}

say "an unmodified HAProxy with an empty backend; a receiver beside it"
cat >"$work/haproxy.cfg" <<END
global
  stats socket $work/haproxy.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend www
  bind $web
  default_backend web
backend web
  balance roundrobin
END
run haproxy haproxy -W -f "$work/haproxy.cfg"
wait_for "HAProxy" test -S "$work/haproxy.sock"
(umask 077 && "$beacond" keygen secret >"$work/secret" && "$beacond" keygen secret >"$work/wrong")
listen
wait_for "HAProxy's answer" curl -s "http://$web/"
served_by 503

say "two backends announce themselves"
for n in 1 2; do backend $n && announce $n "$work/secret"; done
served_by backend-1 backend-2

say "the announcer of backend-1 is killed: it falls silent, though the backend itself still answers"
end announce-1 KILL
served_by backend-2
curl -sf "http://$net.11:8080/" >/dev/null

say "it is heard again"
announce 1 "$work/secret"
served_by backend-1 backend-2

say "backend-2 dies; its announcer notices and says goodbye for it"
end backend-2 KILL
served_by backend-1

say "backend-2 is back"
backend 2
served_by backend-1 backend-2

say "a stranger announces backend-3 with a wrong secret"
backend 3
announce 3 "$work/wrong"
wait_for "three refused announcements" refused 3
say "   $(mismatches) announcements refused: mac mismatch"
served_by backend-1 backend-2

say "the receiver is killed and started again"
storm
end listen KILL
sleep 0.3
listen
sleep 1
calm
served_by backend-1 backend-2

say "HAProxy is reloaded, and forgets all servers that were added at run time"
kill -USR2 "${pid[haproxy]}"
served_by backend-1 backend-2

say "backend-2 is stopped in good order"
storm
end announce-2 TERM
sleep 0.3
calm
served_by backend-1

say "every step was observed; cleaning up"
