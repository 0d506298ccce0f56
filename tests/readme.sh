#!/usr/bin/env bash
# Tries the README: each of its blocks that is marked `<!-- tried: ... -->` is run as it stands there, in order, as its
# reader would: with HAProxy, Apache, nginx, Caddy and etcd, a name server's worth of /etc/hosts and a backend, in namespaces
# of its own, so that the real paths, ports and addresses of the text are used and nothing of this machine is touched.
#
#   repository              run in the root of the repository, to a good end
#   exit                    run, to a good end
#   until "TEXT"            run in the background until its output has TEXT; it stays until the end
#   instead "TEXT"          the same, in the place of the receivers that run
#   said "TEXT"...          run, again for a while if need be, until what runs in the background has said every TEXT
#   output                  not run: each line is one of the last block, or of the background, numbers aside
#   write FILE              written to FILE, a program
#   shows "TEXT"...         run, again for a while if need be, until its output has every TEXT
#   append FILE             appended to FILE; the server whose configuration that is gets started
#   check FILE              written to FILE, which `beacond check` must approve
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${IN_SANDBOX:-}" ]; then
  cargo build --release
  export IN_SANDBOX=1
  if unshare --map-root-user --mount --net true 2>/dev/null; then exec unshare --map-root-user --mount --net "$0"; fi
  if sudo -n unshare --mount --net true; then exec sudo --preserve-env=IN_SANDBOX,PATH,HOME unshare --mount --net "$0"; fi
  echo "tests/readme.sh needs namespaces (unshare --mount --net), and they are not allowed here" >&2
  exit 1
fi

repository=$PWD
box=$(mktemp -d)
pids=()
cleanup() {
  status=$?
  trap - EXIT
  # Process groups, for what was begun through a shell and sudo.
  for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  wait 2>/dev/null
  rm -rf "$box"
  exit "$status"
}
trap cleanup EXIT

# The reader's machine: an /etc with little in it, an empty /run and /usr/local/bin, two names, one network.
mkdir -p "$box/etc/"{haproxy,apache2,nginx/conf.d,caddy} "$box/bin" "$box/home" "$box/www"
for name in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl; do
  if [ -e "/etc/$name" ]; then cp -rH "/etc/$name" "$box/etc/" 2>/dev/null || true; fi
done
printf '127.0.0.1 localhost\n10.0.0.1 balancer.example www.example.com\n' >"$box/etc/hosts"
mount --bind "$box/etc" /etc
mount -t tmpfs none /run
mount -t tmpfs none /usr/local/bin
mkdir -p /run/haproxy
ip link set lo up
ip address add 10.0.0.1/8 dev lo
ip address add 10.0.0.2/8 dev lo
printf '#!/bin/sh\nexec "$@"\n' >"$box/bin/sudo"
chmod +x "$box/bin/sudo"
PATH=$box/bin:/usr/local/bin:$PATH:/usr/sbin
export PATH CARGO_NET_OFFLINE=true

set -m # what runs in the background has a process group of its own
cat >/etc/haproxy/haproxy.cfg <<END
global
    stats socket /run/haproxy/admin.sock mode 660 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
END
cat >/etc/apache2/apache2.conf <<END
ServerRoot $box/etc/apache2
ServerName balancer.example
PidFile /run/apache2.pid
ErrorLog /run/apache2.log
DefaultRuntimeDir /run
Mutex file:/run default
END
for module in mpm_event authn_core authz_core authz_host proxy proxy_http slotmem_shm proxy_balancer lbmethod_byrequests; do
  echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so" >>/etc/apache2/apache2.conf
done
cat >/etc/nginx/nginx.conf <<END
user root;
pid /run/nginx.pid;
error_log /run/nginx.log;
events { }
http {
    access_log off;
    client_body_temp_path /run/nginx.1;
    proxy_temp_path /run/nginx.2;
    fastcgi_temp_path /run/nginx.3;
    uwsgi_temp_path /run/nginx.4;
    scgi_temp_path /run/nginx.5;
    include /etc/nginx/conf.d/*.conf;
}
END
echo well >"$box/www/health"
for address in 127.0.0.1 10.0.0.1; do
  busybox httpd -f -p "$address:8080" -h "$box/www" &
  pids+=($!)
done

# A service with TLS.
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$box/key.pem" -out "$box/cert.pem" -days 1 \
  -subj /CN=www.example.com 2>/dev/null
python3 -c '
import socket, ssl, sys, threading
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1], sys.argv[2])
door = socket.create_server(("10.0.0.1", 8443))
def serve(client):
    while client.recv(16, socket.MSG_PEEK)[:4] == b"\r\n\r\n":  # a PROXY header
        client.recv(16 + int.from_bytes(client.recv(16, socket.MSG_PEEK)[14:16], "big"))
    with tls.wrap_socket(client, server_side=True) as stream:
        stream.recv(4096)
        stream.sendall(b"HTTP/1.0 200 OK\r\n\r\nwell\n")
while True:
    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
' "$box/cert.pem" "$box/key.pem" 2>/dev/null &
pids+=($!)

fail() {
  printf 'README, block %s: %s\n%s\n--- its output:\n' "$number" "$1" "$block" >&2
  cat "$output" >&2
  exit 1
}

# Whether the output has every one of the quoted texts in `mark`.
has_all() {
  local text
  while IFS= read -r text; do
    cat "${1:-$output}" "${@:2}" | grep -F -- "$text" >/dev/null || return 1
  done < <(grep -o '"[^"]*"' <<<"$mark" | tr -d '"')
}

# Text without what differs from run to run: numbers, names of sessions, blanks in front.
alike() { sed -E 's/\{[0-9a-f]+\}/{N}/g; s/[0-9][0-9.]*/N/g; s/^ +//; s/ +$//'; }

# Whether each line of the block was in the last block's output, or in that of what runs.
was_output() {
  local line
  cat "$last" "${running[@]}" | alike >"$box/alike"
  while IFS= read -r line; do grep -qxF -- "$line" "$box/alike" || return 1; done < <(alike <<<"${block%$'\n'}")
}

# Runs the server that has this configuration; what would give up root, as somebody else from the start, for in a
# namespace there may be nobody to become.
serve() {
  local other=(unshare --user --map-user=33 --map-group=33)
  case $1 in
    */haproxy.cfg) exec haproxy -W -f "$1" ;;
    */apache2.conf) exec "${other[@]}" apache2 -f "$1" -DFOREGROUND ;;
    */nginx/*)
      until [ -e /etc/nginx/web.members ]; do sleep 0.1; done
      exec "${other[@]}" nginx -e /run/nginx.log -g 'daemon off;'
      ;;
    */caddy.json) HOME=$box/home exec caddy run --config "$1" ;;
  esac
}

# Whether it has started.
serves() {
  case $1 in
    */haproxy.cfg) [ -S /run/haproxy/admin.sock ] ;;
    */apache2.conf) curl -sf http://127.0.0.1:8081/balancer-manager ;;
    */caddy.json) curl -sf http://127.0.0.1:2019/config/ ;;
  esac
}

try() {
  cd "$box/home"
  output=$box/output.$number
  : >"$output"
  case $mark in
    repository) (cd "$repository" && bash -euo pipefail -c "$block") >"$output" 2>&1 || fail "status $?" ;;
    exit) bash -euo pipefail -c "$block" >"$output" 2>&1 || fail "status $?" ;;
    until* | instead*)
      if [[ $mark = instead* ]]; then
        for receiver in "${receivers[@]}"; do kill -TERM -- "-$receiver"; done
        for receiver in "${receivers[@]}"; do wait "$receiver" 2>/dev/null || true; done
        receivers=()
      fi
      bash -euo pipefail -c "$block" >"$output" 2>&1 &
      pids+=($!) running+=("$output")
      if [[ $block = *"beacond listen"* || $mark = instead* ]]; then receivers+=($!); fi
      for _ in {1..200}; do has_all && return; sleep 0.1; done
      fail "never said: ${mark#until }"
      ;;
    shows*)
      for _ in {1..100}; do
        bash -euo pipefail -c "$block" >"$output" 2>&1 && has_all && return
        sleep 0.1
      done
      fail "did not show: ${mark#shows }"
      ;;
    said*)
      for _ in {1..100}; do
        bash -euo pipefail -c "$block" >"$output" 2>&1 || true
        sleep 0.1
        has_all "${running[@]}" && return
      done
      output=${running[-2]}
      fail "nobody said: ${mark#said }"
      ;;
    output)
      for _ in {1..30}; do was_output && return; sleep 0.1; done
      cp "$box/alike" "$output"
      fail "no such output"
      ;;
    write*)
      printf '%s' "$block" >"${mark#write }"
      chmod 755 "${mark#write }"
      ;;
    append*)
      printf '%s\n' "$block" >>"${mark#append }"
      serve "${mark#append }" >"$output" 2>&1 &
      pids+=($!)
      # nginx waits for the file that the next block makes.
      if [[ $mark = *nginx* ]]; then return; fi
      for _ in {1..100}; do serves "${mark#append }" >/dev/null 2>&1 && return; sleep 0.1; done
      fail "the server did not start"
      ;;
    check*)
      printf '%s\n' "$block" >"${mark#check }"
      beacond check -c "${mark#check }" >"$output" 2>&1 || fail "status $?"
      [ "$(tail -n 1 "$output")" = ok ] || fail "not ok"
      ;;
    *) fail "unknown mark: $mark" ;;
  esac
}

running=() receivers=() last=/dev/null
number=0 mark='' block='' inside=''
while IFS= read -r line; do
  case $line in
    '<!-- tried: '*) mark=${line#<!-- tried: } mark=${mark% -->} ;;
    '```'*)
      if [ -n "$inside" ]; then
        inside=''
        if [ -n "$mark" ]; then
          number=$((number + 1))
          try </dev/null
          last=$output
          printf 'README, block %s: %s\n' "$number" "$mark"
        fi
        mark='' block=''
      else
        inside=1
      fi
      ;;
    *) if [ -n "$inside" ]; then block+=$line$'\n'; fi ;;
  esac
done <"$repository/README.md"
((number > 0))
echo "README: $number blocks tried"
