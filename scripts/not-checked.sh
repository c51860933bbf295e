#!/bin/sh
# Names and counts what the tests and lints could not check on this machine. Says nothing when everything was checked.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

not_checked() { printf 'NOT CHECKED: %s\n' "$*"; }

# shellcheck disable=SC2016 # backquotes for people
have cargo-deny || not_checked '1 of 3 lints, deny.toml (bans, licences and sources of the dependencies):' \
    'cargo-deny is not installed; `just setup-dev` installs it'

tests=crates/pgha-agent/tests/pid1.rs
unshare --pid --fork --mount-proc true 2>/dev/null ||
    not_checked "$(grep -c '^#\[test\]' $tests) tests of $tests: pid namespaces are not permitted"

faults=target/debug/pgha-faults
[ ! -x $faults ] || $faults --list | sed -n 's/^\([^ ]*\)  \(.*\): SKIPPED, /NOT CHECKED: fault scenario \1 (\2): /p'
