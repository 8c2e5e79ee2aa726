#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing for the named groups of packages.txt, or says what to type.
#
#   tests/tools/need.sh [build] [run] [check] [extra] [bench] [tsung] [npm] [clients]      (default: build run check npm clients)
#
# npm is the group of package-lock.json, clients that of tests/clients/package-lock.json: they go into node_modules
# beside them, nowhere else. When nothing is missing this takes a fraction of a second. Installing never starts a system service, and a
# service that came along (Prosody, ejabberd) stays off at the next boot too: the tests run their own.
#
#   SKIP_DEPS=1   looks for nothing, installs nothing: for systems where the list is met in another way

set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P) || exit 1
LIST=$ROOT/tests/tools/packages.txt
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
NODE_MIN=18

[ "${SKIP_DEPS:-0}" = 0 ] || exit 0

fail() {
    printf 'need.sh: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '         %s\n' "$@" >&2
    exit 1
}

# --- what is missing -----------------------------------------------------------------------------

# wanted GROUP...: prints the lines of the groups, comments removed: "a | b ?command"
wanted() {
    awk -v groups=" $* " '
        { sub(/#.*/, ""); gsub(/^[ \t]+|[ \t]+$/, "") }
        /^\[/ { gsub(/[][]/, ""); on = index(groups, " " $0 " ") > 0; next }
        on && NF { print }' "$LIST"
}

# Sets MISSING (array of lines of the list) from the groups given.
find_missing() {
    local line names installed command name
    local -a lines
    MISSING=()
    mapfile -t lines < <(wanted "$@")
    names=$(printf '%s\n' "${lines[@]}" | sed 's/?.*//; s/|/ /g')
    # shellcheck disable=SC2086
    installed=" $(dpkg-query -W -f '${Package}:${db:Status-Status} ' $names 2>/dev/null) "
    for line in "${lines[@]}"; do
        command=
        [[ $line != *\?* ]] || command=${line##*\?}
        [ -z "$command" ] || ! command -v "$command" >/dev/null || continue
        line=${line%%\?*}
        line=${line%"${line##*[! ]}"}
        for name in ${line//|/ }; do
            [[ $installed != *" $name:installed "* ]] || continue 2
        done
        MISSING+=("$line")
    done
}

# --- apt -----------------------------------------------------------------------------------------

as_root() {
    # shellcheck disable=SC2086
    $SUDO "$@" </dev/null
}

# How to become root: nothing to do, without a question, or with one where somebody can answer it.
find_sudo() {
    SUDO=
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || return 1
    if sudo -n true 2>/dev/null; then
        SUDO='sudo -n'
    elif [ -t 0 ]; then
        echo "need.sh: sudo may ask for your password to install packages." >&2
        sudo -v || return 1
        SUDO='sudo'
    else
        return 1
    fi
}

# choose LINE...: sets CHOSEN, for each line the first package that this release has, and ABSENT.
choose() {
    local line name known first
    CHOSEN=() ABSENT=()
    for line; do
        first=
        for name in ${line//|/ }; do
            first=${first:-$name}
            known=$(LC_ALL=C apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
            if [ -n "$known" ] && [ "$known" != "(none)" ]; then
                CHOSEN+=("$name")
                continue 2
            fi
        done
        ABSENT+=("$first")
    done
}

# Where systemd runs, packages start their service: a mask in /run, gone with the next boot at the latest,
# keeps the services of packages that we bring in from starting. Elsewhere run level 1 does the same.
hold_services() {
    HELD=()
    [ -d "${SYSTEMD_RUNTIME:-/run/systemd/system}" ] || return 0
    local name
    for name; do
        case $name in
        prosody | ejabberd | apache2) ;;
        *) continue ;;
        esac
        as_root systemctl mask --runtime --quiet "$name.service" >/dev/null 2>&1 && HELD+=("$name.service")
    done
    [ ${#HELD[@]} -eq 0 ] || trap 'release_services; rm -f "$LOG"' EXIT
}

release_services() {
    [ ${#HELD[@]} -gt 0 ] || return 0
    as_root systemctl unmask --runtime --quiet "${HELD[@]}" >/dev/null 2>&1
    as_root systemctl disable --quiet "${HELD[@]}" >/dev/null 2>&1 &&
        echo "need.sh: ${HELD[*]} came with a package and was left off; the tests start their own." >&2
    HELD=()
}

# The line for a person to type.
say_line() {
    local sudo='sudo '
    [ "$(id -u)" -ne 0 ] || sudo=
    printf '\n    %sapt-get update && %sapt-get install -y --no-install-recommends %s\n\n' \
        "$sudo" "$sudo" "${CHOSEN[*]}" >&2
}

install_packages() {
    local -a options=(-y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    local packages="${MISSING[*]}"
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        fail "this system has no apt-get. These packages are needed (Debian's names):" "$packages" \
            "Install what corresponds to them, then run make again with SKIP_DEPS=1."
    fi
    choose "${MISSING[@]}"
    if ! find_sudo; then
        CHOSEN+=(${ABSENT[@]+"${ABSENT[@]}"}) # the index may only be out of date
        printf 'need.sh: packages are missing, and this user may not install them (sudo). Type:\n' >&2
        say_line
        exit 1
    fi
    LOG=$(mktemp) || exit 1
    trap 'rm -f "$LOG"' EXIT
    printf 'need.sh: installing, which can take some minutes: %s\n' "$packages" >&2
    # A failed update is no end: the packages may be in the index that is there.
    as_root env LC_ALL=C apt-get update -qq -o DPkg::Lock::Timeout=300 >"$LOG" 2>&1 ||
        printf 'need.sh: apt-get update failed; trying with the package lists that are there.\n' >&2
    choose "${MISSING[@]}"
    [ ${#ABSENT[@]} -eq 0 ] || fail "this system's package sources do not have: ${ABSENT[*]}" \
        "They are in Debian 12. Install what corresponds to them, then run make again with SKIP_DEPS=1."
    hold_services "${CHOSEN[@]}"
    if ! as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install "${options[@]}" "${CHOSEN[@]}" >>"$LOG" 2>&1; then
        tail -n 25 "$LOG" >&2
        printf 'need.sh: apt-get could not install the packages (its messages are above). Type:\n' >&2
        say_line
        exit 1
    fi
    release_services
    find_missing "${GROUPS_WANTED[@]}"
    [ ${#MISSING[@]} -eq 0 ] || fail "still missing after the installation: ${MISSING[*]}"
}

# --- npm -----------------------------------------------------------------------------------------

# need_npm DIRECTORY: what its package-lock.json lists.
need_npm() {
    local version log dir=$1
    [ -f "$dir/package-lock.json" ] || return 0
    # npm writes this file last: where it is newer than the lock, node_modules is complete.
    [ ! "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ] || return 0
    { command -v node && command -v npm; } >/dev/null ||
        fail "node and npm are needed for the web page and its tests." "Run: tests/tools/need.sh run npm"
    version=$(node -p 'process.versions.node' 2>/dev/null)
    [ "${version%%.*}" -ge $NODE_MIN ] 2>/dev/null ||
        fail "$(command -v node) is version ${version:-unknown}; $NODE_MIN or newer is needed." \
            "Put a newer one first on the PATH, or remove it: Debian's nodejs is then installed."
    log=$(mktemp) || exit 1
    if ! (cd "$dir" && npm ci --omit=optional --no-audit --no-fund --no-progress --loglevel=error \
        --update-notifier=false </dev/null >"$log" 2>&1); then
        cat "$log" >&2
        rm -f "$log"
        fail "npm ci failed in $dir (its messages are above)." \
            "Is the npm registry reachable, and may you write there? Try: cd $dir && npm ci --omit=optional"
    fi
    rm -f "$log"
    # npm may find everything in place and write nothing.
    touch -c "$dir/node_modules/.package-lock.json"
}

# --- the run -------------------------------------------------------------------------------------

GROUPS_WANTED=() NPM=()
[ $# -gt 0 ] || set -- build run check npm clients
for group; do
    if [ "$group" = npm ]; then
        NPM+=("$ROOT")
    elif [ "$group" = clients ]; then
        NPM+=("$ROOT/tests/clients")
    elif grep -qx "\[$group\]" "$LIST"; then
        GROUPS_WANTED+=("$group")
    else
        fail "no group '$group' in $LIST" "Groups: $(sed -n 's/^\[\(.*\)\].*/\1/p' "$LIST" | tr '\n' ' ')npm clients"
    fi
done
if [ ${#GROUPS_WANTED[@]} -gt 0 ]; then
    find_missing "${GROUPS_WANTED[@]}"
    [ ${#MISSING[@]} -eq 0 ] || install_packages
fi
for group in ${NPM[@]+"${NPM[@]}"}; do
    need_npm "$group"
done
exit 0
