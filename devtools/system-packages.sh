#!/bin/sh
# Installs those of the named Debian packages that are missing: python3-venv, postgresql, redis-server, chromium,
# prometheus, nginx-light, curl, jq, debootstrap.
# Where apt cannot do it, one line says what to install.
set -eu

have() {
    case $1 in
        python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        postgresql) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ;;
        redis-server) command -v redis-server >/dev/null ;;
        chromium) command -v chromium >/dev/null ;;
        prometheus) command -v promtool >/dev/null ;;
        nginx-light) PATH="$PATH:/usr/sbin" command -v nginx >/dev/null ;;
        curl | jq) command -v "$1" >/dev/null ;;
        debootstrap) command -v debootstrap >/dev/null ;;
        *) echo "system-packages.sh knows no package $1" >&2; exit 2 ;;
    esac
}

missing=
for package in "$@"; do
    have "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

give_up() {
    echo "Please install these packages, then repeat the command:$missing ($1)" >&2
    exit 1
}

command -v apt-get >/dev/null || give_up "there is no apt-get here"
sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || give_up "this user is not root, and there is no sudo"
    sudo=sudo
fi

echo "Installing Debian packages:$missing ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    give_up "apt-get failed as shown above"
fi

for package in "$@"; do
    have "$package" || give_up "they were installed and still are not found"
done
