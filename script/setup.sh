# Make Python ready: an environment with everything that requirements*.txt pin.
#
#   bash script/setup.sh            what training needs
#   bash script/setup.sh --tests    and the test tools
#
# demo.sh and test.sh source this file; it leaves the interpreter in $python. The active virtual environment is used if
# there is one, else .venv in the repository. pip's own configuration (index, find-links, proxy, PIP_*) is honoured.
set -euo pipefail

repository=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 PYTHONNOUSERSITE=1
unset PYTHONHOME

stop() {
    printf 'setup: %s\n' "$*" >&2
    exit 2
}

check_platform() {
    case "$(uname -s)" in
        Linux | Darwin) ;;
        MINGW* | MSYS* | CYGWIN* | Windows*) stop "Windows shells are not supported; run this inside WSL 2" ;;
        *) stop "$(uname -s) is not supported; use Linux, macOS on Apple silicon, or Windows with WSL 2" ;;
    esac
}

# Prints nothing if the interpreter $1 fits, else one line that says why not; fails if it does not run at all.
reason_against() {
    "$1" -I -c '
import platform, struct, sys, sysconfig

system, machine = platform.system(), platform.machine().lower()
libc, libc_version = platform.libc_ver()
where = f"{sys.executable} is Python {platform.python_version()}"
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    print(f"{where}; install Python 3.11, 3.12 or 3.13")
elif sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(f"{where}, but not the ordinary CPython build that packages are built for; install that")
elif struct.calcsize("P") != 8:
    print(f"{where} for 32 bits; torch needs a 64-bit Python")
elif system == "Darwin" and machine != "arm64":
    print(f"{where} for Intel Macs, which torch no longer supports; use a Mac with Apple silicon and its own Python")
elif machine not in ("x86_64", "amd64", "aarch64", "arm64"):
    print(f"{where} for {machine}; torch needs x86_64 or arm64")
elif system == "Linux" and libc != "glibc":
    print(f"{where} on a system without glibc (such as Alpine); use a glibc distribution or container image")
elif system == "Linux" and tuple(map(int, libc_version.split(".")[:2])) < (2, 28):
    print(f"{where} on glibc {libc_version}; torch needs a distribution with glibc 2.28 or newer")
' 2>/dev/null
}

find_python() {
    local candidate reason rejected=""
    # The first `python3` is what the user chose (pyenv, conda, a container), so it goes before the versioned names.
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        reason=$(reason_against "$candidate") || continue
        if [ -z "$reason" ] && ! "$candidate" -I -c 'import ensurepip, venv' 2>/dev/null; then
            reason="$candidate has no venv module; install it (on Debian and Ubuntu the package python3-venv)"
        fi
        if [ -z "$reason" ]; then
            printf '%s\n' "$candidate"
            return
        fi
        rejected=${rejected:-$reason}
    done
    stop "${rejected:-no Python found; install Python 3.11, 3.12 or 3.13}"
}

# Sets $environment and $python.
use_environment() {
    local base reason
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        environment=$VIRTUAL_ENV
        python=$environment/bin/python
        reason=$(reason_against "$python") || stop "VIRTUAL_ENV is $environment, whose Python does not run; deactivate it"
        [ -z "$reason" ] || stop "the active virtual environment: $reason"
        "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 ||
            stop "the active virtual environment $environment has no pip; add it, or deactivate the environment"
        return
    fi
    environment=$repository/.venv
    python=$environment/bin/python
    if "$python" -m pip --version >/dev/null 2>&1; then
        reason=$(reason_against "$python")
        [ -z "$reason" ] || stop "$reason; remove $environment to have it made again"
        return
    fi
    base=$(find_python) || exit
    echo "setup: making $environment"
    # --clear, because an interrupted or moved environment may lie there.
    "$base" -m venv --clear "$environment" || stop "could not make $environment; see above"
}

has_gpu() {
    # Here and below the output is taken whole: `| grep -q` closes the pipe early, which pipefail counts as a failure.
    case "$(nvidia-smi -L 2>/dev/null)" in *GPU*) ;; *) return 1 ;; esac
}

has_own_index() {
    case "$("$python" -m pip config list 2>/dev/null)" in *index-url=* | *find-links=*) ;; *) return 1 ;; esac
}

announce_download() {
    local cpu="about 0.6 GB to download, 2 GB on disk" cuda="about 4 GB to download, 9 GB on disk"
    echo "setup: installing the pinned packages into $environment with pip"
    if [ "$(uname -s)" = Darwin ]; then
        echo "setup: $cpu"
    elif has_gpu; then
        echo "setup: $cuda (the CUDA build of torch; less where pip's cache has it)"
    elif has_own_index; then
        echo "setup: $cpu if your package index has torch's CPU build; with the CUDA build $cuda"
    else
        echo "setup: $cuda, because the default index serves the CUDA build of torch"
        echo "setup: no GPU here: with PyTorch's CPU index in PIP_EXTRA_INDEX_URL (its install page names it) it is $cpu"
    fi
}

fingerprint() {
    "$python" -I -c '
import hashlib, platform, sys

digest = hashlib.sha256(f"{sys.version} {platform.machine()}".encode())
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())' "$@"
}

report_torch() {
    "$python" -c '
import platform, torch

cuda = "available" if torch.cuda.is_available() else "not available"
print(f"setup: Python {platform.python_version()}, torch {torch.__version__}, CUDA {cuda}")'
}

# Installs one set of requirements unless its stamp says that this has been done: install_once NAME FILE...
install_once() {
    local stamp=$environment/.lampyris-$1 wanted install=("$python" -m pip install --disable-pip-version-check --no-user)
    shift
    wanted=$(fingerprint "$@")
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    rm -f "$stamp"
    case "$1" in
        */requirements.txt)
            announce_download
            "${install[@]}" -r "$1" && "${install[@]}" --no-deps -r "$2" && report_torch ;;
        *) "${install[@]}" -r "$1" ;;
    esac || stop "pip could not install the packages; see above, then run this again"
    # Written last, so that an interrupted installation is repeated.
    printf '%s\n' "$wanted" >"$stamp"
}

check_platform
use_environment
install_once packages "$repository/requirements.txt" "$repository/requirements-unsloth.txt"
if [ "${1:-}" = --tests ]; then
    install_once tests "$repository/requirements-test.txt"
fi
