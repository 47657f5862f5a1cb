#!/usr/bin/env bash
# Makes the certificates of the TLS tests anew. The keys protect nothing: they are for tests on the loopback.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
serial=1000
from=20200101000000Z
to=21200101000000Z

# sign NAME SUBJECT EXTENSIONS FROM TO SIGNER...: a key and its certificate.
sign() {
  local name=$1 subject=$2 extensions=$3 from=$4 to=$5
  shift 5
  serial=$((serial + 1))
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$name.key" 2>"$work/log"
  openssl req -new -key "$name.key" -subj "$subject" -out "$work/$name.csr"
  printf '%s\n' "$extensions" >"$work/extensions"
  : >"$work/index"
  printf '%s\n' "$serial" >"$work/serial"
  printf '%s\n' '[ca]' 'default_ca=it' '[it]' "database=$work/index" "serial=$work/serial" \
    "new_certs_dir=$work" 'default_md=sha256' 'unique_subject=no' 'policy=any' 'preserve=yes' \
    '[any]' 'commonName=optional' 'organizationName=optional' >"$work/ca.cnf"
  # Of all commands only this one takes both dates in every release.
  openssl ca -batch -notext -config "$work/ca.cnf" -in "$work/$name.csr" -extfile "$work/extensions" \
    -startdate "$from" -enddate "$to" -out "$name.pem" "$@" 2>"$work/log" || {
    cat "$work/log" >&2
    return 1
  }
}

# authority NAME SUBJECT
authority() {
  sign "$1" "$2" $'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign' \
    "$from" "$to" -selfsign -keyfile "$1.key"
}

# leaf NAME AUTHORITY SUBJECT EXTENSIONS [FROM TO]
leaf() {
  sign "$1" "$3" "$4" "${5:-$from}" "${6:-$to}" -cert "$2.pem" -keyfile "$2.key"
}

server='subjectAltName=DNS:localhost,IP:127.0.0.1
extendedKeyUsage=serverAuth'
client='extendedKeyUsage=clientAuth'

authority ca '/CN=downlink test authority'
authority foreign-ca '/CN=downlink test authority'
leaf server ca '/CN=server' "$server"
leaf server2 ca '/CN=server2' "$server"
leaf expired ca '/CN=expired' "$server" 20200101000000Z 20210101000000Z
leaf client ca '/CN=82200520004869' "$client"
leaf client-expired ca '/CN=82200520004869' "$client" 20200101000000Z 20210101000000Z
leaf client-capitals ca '/CN=04AB373B' "$client"
leaf client-nameless ca '/O=a device without a name' "$client"
leaf client-two-names ca '/CN=82200520004869/CN=82200520004870' "$client"
leaf client-foreign foreign-ca '/CN=82200520004869' "$client"
rm -f ca.key foreign-ca.key
