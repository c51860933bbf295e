#!/bin/sh
# Installs what the demo and the tests need and is missing, and says what. Debian 12, Debian 13 and their relatives; as
# root, or with sudo. A PostgreSQL, etcd or HAProxy that already runs here is left as it is, and none is started.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif have sudo; then
    as_root() { sudo "$@"; }
else
    as_root() { say "needs root for: $*"; say "run it as root, or install sudo"; exit 1; }
fi

# The packages for the programs that are missing.
packages=
need() { # program package
    have "$1" || packages="$packages $2"
}
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
need etcd etcd-server
need etcdctl etcd-client
need haproxy haproxy
need protoc protobuf-compiler
[ -e /usr/include/google/protobuf/descriptor.proto ] || packages="$packages libprotobuf-dev"
need ip iproute2
need nft nftables
need cc build-essential
if ! have cargo && ! [ -x "$HOME/.cargo/bin/cargo" ] && apt-cache show rustup >/dev/null 2>&1; then
    packages="$packages rustup"
fi
if ! have just && apt-cache show just >/dev/null 2>&1; then
    packages="$packages just"
fi

# Debian starts a service when its package is installed. Exit code 101 of this file forbids it for the time being.
policy=/usr/sbin/policy-rc.d
forbid_services() {
    [ ! -e $policy ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    trap 'as_root rm -f $policy' EXIT
    trap 'exit 1' INT TERM
}

install_packages() {
    say "installing from Debian: $*"
    # It also makes and starts a database cluster along with PostgreSQL. Nobody asked for one.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        say "wrote /etc/postgresql-common/createcluster.conf, so that no database cluster is made"
    fi
    forbid_services
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || install_packages $packages

# Rust. The pinned version of rust-toolchain.toml comes by itself once rustup is there; Debian's own cargo is too old.
PATH="$HOME/.cargo/bin:$PATH"
if ! have rustup; then
    say "Rust's rustup is missing, and this Debian has no package of it. Install it with"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    say "and run this again."
    exit 1
fi

if ! have just; then
    bin=/usr/local/bin
    [ -w $bin ] || bin="$HOME/.cargo/bin"
    say "installing just from PyPI (rust-just) into $bin"
    if ! python3 -m venv .tools/just 2>/dev/null; then
        install_packages python3-venv
        rm -rf .tools/just
        python3 -m venv .tools/just
    fi
    .tools/just/bin/pip install -q --disable-pip-version-check rust-just
    mkdir -p "$bin"
    cp .tools/just/bin/just "$bin/just"
    rm -rf .tools/just
fi
say "everything is there"
