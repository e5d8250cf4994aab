# Sourced by the scripts beside it, from the root of the checkout.
# shellcheck shell=bash

log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf '%s\n' "$*" >&2; }

# Run a command; what it prints is shown only when it fails.
quietly() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        say "${0##*/}: this failed, see above: $*"
        exit 1
    fi
}

# Install Debian packages, or say which are missing.
need() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "Missing on this machine. Install with: sudo apt-get install $*"
        exit 1
    fi
    say "Installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update
    quietly apt-get install --yes --no-install-recommends "$@"
}

# A name on the PATH proves nothing: a version manager's shim exists and fails when run.
suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' >/dev/null 2>&1 </dev/null
}

# Put uv into .venv, unless it cannot be had: then pip does the same, slower.
have_uv() {
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet "uv>=0.6" \
        >"$log" 2>&1 </dev/null || return 1
    # uv does not read pip's configuration: an index, certificates or a proxy that only pip knows are handed on.
    eval "$(.venv/bin/python scripts/pip_to_uv.py)"
}

# install PYTHON ARGUMENTS...: what `pip install` takes, into the virtual environment of that Python.
install() {
    local python=$1
    shift
    # Compiled once here, as pip does by itself: otherwise each test worker would compile it.
    if have_uv && .venv/bin/uv pip install --compile-bytecode --python "$python" "$@" >"$log" 2>&1 </dev/null; then
        return
    fi
    say "uv could not install this; trying with pip, which takes longer ..."
    "$python" -m pip --version >/dev/null 2>&1 || quietly "$python" -m ensurepip
    quietly "$python" -m pip --disable-pip-version-check --no-input install "$@"
}

# make_env PYTHON FOLDER: a virtual environment, with uv where it can be had.
make_env() {
    if have_uv; then
        quietly .venv/bin/uv venv --quiet --no-project --clear --python "$1" "$2"
    else
        quietly "$1" -m venv --clear "$2"
    fi
}

# unpack SDIST FOLDER: the tests, and all that they need but the package itself: what they import must be the wheel.
unpack() {
    mkdir -p "$2"
    tar -xzf "$1" -C "$2" --strip-components=1
    rm -r "$2/langchain_daytona_ws"
}
