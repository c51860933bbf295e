#!/bin/sh
# Installs Patroni from PyPI into .tools/patroni, for `just bench` and for trying the tests themselves on it.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

version=4.1.5
if .tools/patroni/bin/patroni --version 2>/dev/null | grep -qF "$version"; then
    exit 0
fi
# The system's interpreter, since others (pyenv's, for example) lie in directories that PostgreSQL's user cannot enter.
python=/usr/bin/python3
rm -rf .tools/patroni
if ! $python -m venv .tools/patroni >/dev/null 2>&1; then
    install_packages python3-venv
    rm -rf .tools/patroni
    $python -m venv .tools/patroni
fi
say "installing Patroni $version from PyPI into .tools/patroni"
.tools/patroni/bin/pip install -q --disable-pip-version-check --use-pep517 "patroni[etcd3,psycopg3]==$version"
.tools/patroni/bin/patroni --version
