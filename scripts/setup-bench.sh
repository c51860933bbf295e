#!/bin/sh
# Installs Patroni from PyPI into .tools/patroni, for `just bench` and for trying the tests themselves on it.
set -eu
cd "$(dirname "$0")/.."
version=4.1.5
if [ -x .tools/patroni/bin/patroni ] && .tools/patroni/bin/patroni --version | grep -qF "$version"; then
    exit 0
fi
# The system's interpreter, since others (pyenv's, for example) lie in directories that PostgreSQL's user cannot enter.
python=/usr/bin/python3
[ -x $python ] || python=python3
echo "setup: installing Patroni $version from PyPI into .tools/patroni"
rm -rf .tools/patroni
$python -m venv .tools/patroni || {
    echo "setup: $python has no venv module; install python3-venv"
    exit 1
}
.tools/patroni/bin/pip install -q --disable-pip-version-check "patroni[etcd3,psycopg3]==$version"
.tools/patroni/bin/patroni --version
