#!/bin/sh
# Installs the third-party peers of the tests: a Python environment under target/peers/venv, tshark,
# rngtest and dieharder.
# Idempotent; quick when everything is there. Exits 1 and says what is missing if it cannot install something.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${PEERS_VENV:-$root/target/peers/venv}
python=${PYTHON:-python3}
c104=2.2.1

have_c104() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "
import sys, importlib.metadata as m
sys.exit(m.version('c104') != '$c104')" 2>/dev/null
}

if ! have_c104; then
    "$python" -m venv "$venv" || {
        echo "cannot make a Python environment: install Python 3.9 or later with venv (Debian: python3-venv)" >&2
        exit 1
    }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "c104==$c104" || {
        echo "cannot install c104==$c104 from PyPI into $venv" >&2
        exit 1
    }
fi

# Debian's packages by the program that the tests call.
missing=""
command -v tshark >/dev/null 2>&1 || missing="$missing tshark"
command -v rngtest >/dev/null 2>&1 || missing="$missing rng-tools5"
command -v dieharder >/dev/null 2>&1 || missing="$missing dieharder"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of words
        apt-get install -y -q --no-install-recommends $missing >/dev/null || {
            apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $missing >/dev/null
        } || {
            echo "cannot install$missing with apt-get" >&2
            exit 1
        }
    else
        echo "missing:$missing; install with: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
fi

echo "peers ready: $venv/bin/python (c104 $c104), $(command -v tshark)"
