# Read by the setup scripts: saying things, being root, installing from Debian.

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

can_be_root() { [ "$(id -u)" = 0 ] || have sudo; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt-get as root. Its hundreds of lines are shown only if it fails.
apt() {
    apt_log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null >"$apt_log" 2>&1; then
        cat "$apt_log"
        say "failed: apt-get $*"
        rm -f "$apt_log"
        exit 1
    fi
    rm -f "$apt_log"
}

# The lists of packages, fetched once per run: a fresh system has none.
lists_are_fresh=
refresh_lists() {
    [ -z "$lists_are_fresh" ] || return 0
    say "apt-get update"
    apt update
    lists_are_fresh=yes
}

# Whether Debian has it. (`apt-cache show` also says yes to names that other packages merely mention.)
in_debian() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

# Debian starts a service when its package is installed. Exit code 101 of this file forbids it for the time being.
policy=/usr/sbin/policy-rc.d
forbid_services() {
    [ ! -e $policy ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    trap 'as_root rm -f $policy' EXIT
    trap 'exit 1' INT TERM
}

# Installs packages, or says which are missing and ends.
install_packages() {
    if ! have apt-get; then
        say "this is not Debian. Install by hand what these packages of Debian contain, and run this again: $*"
        exit 1
    fi
    if ! can_be_root; then
        say "missing: $*"
        say "install them as root (this script does it too), or install sudo"
        exit 1
    fi
    refresh_lists
    say "installing from Debian, which takes a minute or two: $*"
    forbid_services
    apt install -y --no-install-recommends "$@"
}
