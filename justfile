# The one place that people and CI call. `just` alone lists the recipes.

set shell := ["bash", "-euo", "pipefail", "-c"]

export PATH := env("HOME") / ".cargo/bin" + ":" + env("PATH")

# How the tests run: by nextest where it is installed.
runner := `command -v cargo-nextest >/dev/null && echo "cargo nextest run" || echo "cargo test"`

# Lists the recipes.
default:
    @just --list --unsorted

# Installs what is missing and says what.
setup:
    sh scripts/setup.sh

# Installs the cargo tools that are good to have: nextest (tests side by side) and deny (licences, advisories).
setup-dev: setup
    cargo install --locked cargo-nextest cargo-deny

# Starts etcd, three nodes and HAProxy until ctrl-C; `just demo --script failover` measures a failover.
demo *ARGS:
    cargo build --release -p pgha-agent -p pgha-ctl -p pgha-integration --bins
    target/release/pgha-demo {{ ARGS }}

# Everything: lint, unit tests, the simulator, real clusters.
test: lint build-agents sim planted
    {{ runner }} --workspace
    @{{ just_executable() }} not-checked

# Tests without the simulator and without real clusters.
unit:
    {{ runner }} --workspace --exclude pgha-integration

# Tests on real clusters; an argument selects by name.
cluster *ARGS: build-agents
    {{ runner }} -p pgha-integration {{ ARGS }}

# Real faults on real clusters, every scenario of integration/faults or those named (`just faults F01 F17`); as root.
faults *NAMES: build-agents
    target/debug/pgha-faults {{ NAMES }}

# The programs that the cluster tests start.
build-agents:
    cargo build -p pgha-agent -p pgha-ctl -p pgha-integration --bins

# Formatting, clippy without a warning, and what deny.toml says of the dependencies, where cargo-deny is installed.
lint: && not-checked
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p pgha-sim --features planted-bugs --all-targets -- -D warnings
    if command -v cargo-deny >/dev/null; then cargo deny --offline check --hide-inclusion-graph bans licenses sources; fi

# Names and counts what could not be checked here.
[private]
not-checked:
    @sh scripts/not-checked.sh

# Known security faults of the dependencies. Fetches the list of them.
advisories:
    cargo deny check advisories

# Formats everything.
fmt:
    cargo fmt --all

# Simulates clusters; a failing seed is printed and can be replayed.
sim SEEDS="0..2000":
    cargo run --profile sim -q -p pgha-sim -- run --seeds {{ SEEDS }}

# Plants defects that other projects had, one after the other; the simulator has to find each.
planted *ARGS:
    cargo run --profile sim -q -p pgha-sim --features planted-bugs -- planted {{ ARGS }}

# Measures pgha and Patroni side by side and writes docs/benchmarks.md.
bench *ARGS:
    sh scripts/setup-bench.sh
    cargo build --release -p pgha-agent -p pgha-ctl -p pgha-integration --bins
    target/release/pgha-bench {{ ARGS }}

# The API documentation of the workspace.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
