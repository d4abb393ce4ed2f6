#!/bin/sh
# Make every password, key and certificate of the compose file, once, below the directory
# that is named: in one directory for each of those who need them, readable to it alone.
#
#   sh setup.sh DIRECTORY
set -eu
umask 077
out=$1
[ ! -e "$out/gateway/done" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out/gateway" "$out/state" "$out/redis" "$out/idp" "$out/agent" "$out/etl" "$out/billing" "$out/grafana"

random() { openssl rand -hex 24; }

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 825 -subj "/CN=crossfade compose" \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
certificate() { # name: $work/name.pem and $work/name.key
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$1" \
    -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
  printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' "$1" >"$work/$1.ext"
  openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 825 \
    -extfile "$work/$1.ext" -out "$work/$1.pem" 2>/dev/null
}
certificate gateway
certificate idp
cp "$work/gateway.pem" "$out/gateway/tls.crt"
cp "$work/gateway.key" "$out/gateway/tls.key"
# The password of the store is in idp.json; what protects the key is who may read it.
openssl pkcs12 -export -name idp -inkey "$work/idp.key" -in "$work/idp.pem" -certfile "$work/ca.pem" \
  -passout pass:compose -out "$out/idp/idp.p12"

redis=$(random)
printf '%s\n' "$redis" >"$out/gateway/redis-password"
printf '%s\n' "$redis" >"$out/redis/password"
printf 'requirepass %s\nappendonly yes\n' "$redis" >"$out/redis/redis.conf"

worker() { # account directory scheme host
  password=$(random)
  printf '%s:%s\n' "$1" "$(printf '%s\n' "$password" | openssl passwd -6 -stdin)" >>"$out/gateway/luigi.htpasswd"
  printf '[core]\ndefault_scheduler_url = %s://%s:%s@%s/\n' "$3" "$1" "$password" "$4" >"$out/$2/luigi.cfg"
}
: >"$out/gateway/luigi.htpasswd" # a start that was broken off may have left lines
worker svc-etl etl http 127.0.0.1:8182        # the agent
worker svc-billing billing https gateway:8082

random >"$out/agent/client-secret"
random >"$out/grafana/password"
for who in gateway agent billing; do cp "$work/ca.pem" "$out/$who/ca.pem"; done

if [ "$(id -u)" = 0 ]; then
  chown -R 65532:65532 "$out/gateway" "$out/state" "$out/agent"
  chown -R 999:1000 "$out/redis"
  chown -R 1000:1000 "$out/etl" "$out/billing"
  chown -R 472:0 "$out/grafana"
  # The provider's image has a user of its own, whose number its releases may change.
  chmod -R a+rX "$out/idp"
fi
: >"$out/gateway/done"
