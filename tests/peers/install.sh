#!/bin/sh
# Installs the third-party peers of the tests: Python environments under target/peers (venv for IEC 104 and SKIP,
# etsi014 for clients and judges of ETSI GS QKD 014), tshark, rngtest, dieharder, PostgreSQL (its programs; the tests
# start servers of their own), SoftHSM, stunnel, openssl, nginx (a rival in `qurrent bench kms`; kme.sh builds the other),
# and WireGuard in userspace with the tools that set it up.
# Idempotent; quick when everything is there. Exits 1 and says what is missing if it cannot install something.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${PEERS_VENV:-$root/target/peers/venv}
python=${PYTHON:-python3}
c104=2.2.1
skip_qkd=1.0.0

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

have_skip_qkd() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "
import sys, importlib.metadata as m
sys.exit(m.version('skip-qkd') != '$skip_qkd')" 2>/dev/null
}

if ! have_skip_qkd; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "skip-qkd==$skip_qkd" || {
        echo "cannot install skip-qkd==$skip_qkd from PyPI into $venv" >&2
        exit 1
    }
fi

# Clients and judges of ETSI GS QKD 014, in an environment of their own: they need other versions of the same packages.
etsi014=${PEERS_ETSI014:-$root/target/peers/etsi014}
etsi014_packages="etsi-qkd-014-client==0.9.0 qkdsec[doctor]==0.3.0 schemathesis==4.32.5 openapi-spec-validator==0.9.0"
etsi014_done=$etsi014/installed.txt

if [ "$(cat "$etsi014_done" 2>/dev/null)" != "$etsi014_packages" ]; then
    "$python" -m venv "$etsi014"
    # shellcheck disable=SC2086 # a list of words
    "$etsi014/bin/python" -m pip install --quiet --disable-pip-version-check $etsi014_packages || {
        echo "cannot install $etsi014_packages from PyPI into $etsi014" >&2
        exit 1
    }
    echo "$etsi014_packages" >"$etsi014_done"
fi

# Debian's packages by the program that the tests call.
missing=""
command -v tshark >/dev/null 2>&1 || missing="$missing tshark"
command -v rngtest >/dev/null 2>&1 || missing="$missing rng-tools5"
command -v dieharder >/dev/null 2>&1 || missing="$missing dieharder"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
command -v softhsm2-util >/dev/null 2>&1 || missing="$missing softhsm2"
command -v stunnel >/dev/null 2>&1 || missing="$missing stunnel4"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v wg >/dev/null 2>&1 || missing="$missing wireguard-tools"
command -v wireguard-go >/dev/null 2>&1 || missing="$missing wireguard-go"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v ping >/dev/null 2>&1 || missing="$missing iputils-ping"
command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"

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
