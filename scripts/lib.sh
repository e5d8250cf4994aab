# Functions of the other scripts, which source this file in the root of the checkout.
# shellcheck shell=bash

log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf '%s\n' "$*" >&2; }

# Run a command; show its output only if it fails.
quietly() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        say "${0##*/}: this failed, see above: $*"
        exit 1
    fi
}

# Install Debian packages; if this user cannot, print the command that does, and exit.
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

# Return whether a program is a suitable Python. Run it to see: a version manager's shim on the PATH may fail.
suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' >/dev/null 2>&1 </dev/null
}

# Install uv into .venv, and set its environment variables. If this fails, pip is used, which is slower.
have_uv() {
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet "uv>=0.6" \
        >"$log" 2>&1 </dev/null || return 1
    # uv does not read pip's configuration, such as an index, certificates or a proxy.
    eval "$(.venv/bin/python scripts/pip_to_uv.py)"
}

# install PYTHON ARGUMENTS...: `pip install ARGUMENTS` into the virtual environment of that Python.
install() {
    local python=$1
    shift
    # Byte-compiled here, as pip does: otherwise each test worker would compile.
    if have_uv && .venv/bin/uv pip install --compile-bytecode --python "$python" "$@" >"$log" 2>&1 </dev/null; then
        return
    fi
    say "uv could not install this; trying with pip, which takes longer ..."
    "$python" -m pip --version >/dev/null 2>&1 || quietly "$python" -m ensurepip
    quietly "$python" -m pip --disable-pip-version-check --no-input install "$@"
}

# make_env PYTHON FOLDER: create a virtual environment, with uv if available.
make_env() {
    if have_uv; then
        quietly .venv/bin/uv venv --quiet --no-project --clear --python "$1" "$2"
    else
        quietly "$1" -m venv --clear "$2"
    fi
}

# unpack SDIST FOLDER: unpack the source distribution without the package, so that its tests import the wheel.
unpack() {
    mkdir -p "$2"
    tar -xzf "$1" -C "$2" --strip-components=1
    rm -r "$2/langchain_daytona_ws"
}
