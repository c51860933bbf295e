#!/bin/sh
# Installs what the demo and the tests need and is missing, and says what. Debian 12, Debian 13 and their relatives; as
# root, or with sudo. A PostgreSQL, etcd or HAProxy that already runs here is left as it is, and none is started.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

path_of_caller=$PATH
PATH="$HOME/.cargo/bin:$PATH"

# The packages for the programs that are missing.
packages=
need() { # program package
    have "$1" || packages="$packages $2"
}
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    packages="$packages postgresql"
    # The package also makes and starts a database cluster. Nobody asked for one.
    if can_be_root && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        say "wrote /etc/postgresql-common/createcluster.conf, so that no database cluster is made"
    fi
fi
need etcd etcd-server
need etcdctl etcd-client
need haproxy haproxy
need protoc protobuf-compiler
[ -e /usr/include/google/protobuf/descriptor.proto ] || packages="$packages libprotobuf-dev"
need ip iproute2
need nft nftables
need strace strace
need pkill procps
need openssl openssl
need cc build-essential
[ -e /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"

# From Debian where Debian has them; else they come from elsewhere, below.
if { ! have rustup || ! have just; } && have apt-get && can_be_root; then
    refresh_lists
    # Debian's rustup would replace Debian's cargo. What is installed is not ours to remove.
    if ! have rustup && ! have cargo && ! have rustc && in_debian rustup; then
        packages="$packages rustup"
    fi
    if ! have just && in_debian just; then
        packages="$packages just"
    fi
fi
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || install_packages $packages

if ! have just; then
    say "installing just from PyPI (rust-just)"
    if ! python3 -m venv .tools/just >/dev/null 2>&1; then
        install_packages python3-venv
        rm -rf .tools/just
        python3 -m venv .tools/just
    fi
    .tools/just/bin/pip install -q --disable-pip-version-check rust-just
    if can_be_root; then
        as_root install -m 755 .tools/just/bin/just /usr/local/bin/just
    else
        install -D -m 755 .tools/just/bin/just "$HOME/.cargo/bin/just"
    fi
    rm -rf .tools/just
    say "just is now $(command -v just)"
fi

# The pinned version of rust-toolchain.toml comes by itself once rustup is there.
if ! have rustup; then
    if have cargo || have rustc; then
        say "Rust is here without rustup, which fetches the pinned version. Debian's packages of both exclude each other,"
        say "so rustup comes from its own site, into your home:"
    else
        say "Rust's rustup is missing, and this Debian has no package of it. Install it with"
    fi
    have curl || say "    apt-get install -y curl    # as root"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    say "and run this again."
    exit 1
fi

# What was found in ~/.cargo/bin is found by the recipes, but `just` itself has to be on the caller's PATH.
if ! (PATH=$path_of_caller && have just); then
    say "just is in $HOME/.cargo/bin, which is not on your PATH: . \"\$HOME/.cargo/env\""
    exit 1
fi
say "everything is there"
