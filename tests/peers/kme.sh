#!/bin/sh
# Builds the open KME that `qurrent bench kms` runs beside ours: qkd_kme_server (MIT licence), at one pinned commit, into
# target/peers/qkd_kme_server. It is run as a process of its own and never linked. Idempotent.
#
# QURRENT_PEER_KME_SOURCE: a git repository to build from instead of GitHub (a path or an address)
# PEERS_KME:               where to put it instead of target/peers/qkd_kme_server
#
# The bench looks for target/peers/qkd_kme_server/bin/qkd_kme_server; another binary is named by QURRENT_PEER_KME.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
place=${PEERS_KME:-$root/target/peers/qkd_kme_server}
commit=4d53a3dc1d005ad07f7c114d861ab2b2e3528236
source=${QURRENT_PEER_KME_SOURCE:-https://github.com/thomasarmel/qkd_kme_server}
binary=$place/bin/qkd_kme_server

if [ -x "$binary" ] && [ "$(cat "$place/commit.txt" 2>/dev/null)" = "$commit" ]; then
    echo "peer ready: $binary"
    exit 0
fi

case $source in
/*) source=file://$source ;;
esac
mkdir -p "$place"
place=$(cd "$place" && pwd)
# The distribution's OpenSSL where its headers are there; else the peer compiles its own.
if pkg-config --exists openssl 2>/dev/null; then
    export OPENSSL_NO_VENDOR=1
fi
export CARGO_NET_GIT_FETCH_WITH_CLI=true
export CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback
export CARGO_TARGET_DIR="$place/build"
# From the root folder, so that no configuration of ours applies.
(cd / && cargo install --quiet --git "$source" --rev "$commit" --root "$place" --no-track --force qkd_kme_server) || {
    echo "cannot build qkd_kme_server from $source; QURRENT_PEER_KME_SOURCE may name a clone of it" >&2
    exit 1
}
rm -rf "$CARGO_TARGET_DIR"
echo "$commit" >"$place/commit.txt"
echo "peer ready: $binary"
