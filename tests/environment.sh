# shellcheck shell=bash
# What the tests need besides Rust, installed into tests/.env (which git ignores) or by apt-get where it must be.
# Sourced by the scripts under tests/. Every function is idempotent and quick when its part is there.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ENV_DIR=$REPO/tests/.env
export REPO ENV_DIR
# Debian has nats-server and ip there, and not everybody looks there.
export PATH=$PATH:/usr/sbin:/sbin

# Ends the script with one line that says what is wrong and how to mend it.
fail() {
    echo "error: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        fail "'$*' needs root: run it yourself, then start the tests again"
    fi
}

# need_packages COMMAND:PACKAGE...: installs the packages whose command is not there.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "these programs are missing and there is no apt-get: ${missing[*]}"
    echo "installing with apt-get: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    hash -r
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || fail "${pair#*:} is installed, but there is no ${pair%%:*}"
    done
}

# is_fresh DIR FILE...: whether DIR was made from just these files.
is_fresh() {
    local dir=$1
    shift
    [ -f "$dir/.made-from" ] && [ "$(cat -- "$@" | sha256sum)" = "$(cat "$dir/.made-from")" ]
}

mark_fresh() {
    local dir=$1
    shift
    cat -- "$@" | sha256sum >"$dir/.made-from"
}

# A Python 3 environment with the packages of tests/clients/requirements.txt: $ENV_DIR/python/bin/python.
need_python() {
    local dir=$ENV_DIR/python list=$REPO/tests/clients/requirements.txt
    need_packages python3:python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11: put a newer one first in PATH"
    is_fresh "$dir" "$list" && "$dir/bin/python" -c '' 2>/dev/null && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || as_root env DEBIAN_FRONTEND=noninteractive \
        sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null'
    rm -rf "$dir"
    mkdir -p "$ENV_DIR"
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$list"
    mark_fresh "$dir" "$list"
}

# The packages of tests/clients/package.json, for require() through NODE_PATH: $ENV_DIR/node/node_modules.
need_node() { need_node_packages clients node; }

# need_node_packages FOLDER NAME: those of tests/FOLDER/package.json, in $ENV_DIR/NAME/node_modules.
need_node_packages() {
    local from=$REPO/tests/$1 dir=$ENV_DIR/$2
    need_packages node:nodejs npm:npm
    is_fresh "$dir" "$from/package.json" "$from/package-lock.json" && [ -d "$dir/node_modules" ] && return
    rm -rf "$dir"
    mkdir -p "$dir"
    cp "$from/package.json" "$from/package-lock.json" "$dir/"
    (cd "$dir" && npm ci --silent --no-audit --no-fund --ignore-scripts </dev/null)
    mark_fresh "$dir" "$from/package.json" "$from/package-lock.json"
}

# Builds the release program once per run; its path is in TEST_PROGRAM (set it to test another one).
need_server() {
    if [ -z "${TEST_PROGRAM:-}" ]; then
        (cd "$REPO" && cargo build --release --quiet --bin holdline)
        TEST_PROGRAM=${CARGO_TARGET_DIR:-$REPO/target}/release/holdline
    fi
    [ -x "$TEST_PROGRAM" ] || fail "no program at $TEST_PROGRAM"
    export TEST_PROGRAM
}
