#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make run`: a private Prosody and a private httpd with mod_bosh and the web page, in the foreground.
#
#   PORT=8080 tests/tools/run.sh
#
# Everything it writes is under build/run. It ends on Ctrl-C, SIGTERM or SIGHUP, and when one of the two
# servers dies; whichever way, both are stopped before it returns. One run at a time in a checkout: the
# kernel's lock on build/run/lock says so, so that a stale file cannot. If this script itself is killed
# with SIGKILL, the kernel sends the servers SIGTERM (setpriv --pdeathsig).
#
# RUN_DIR=DIRECTORY puts its files there instead; BOSH_MODULE=FILE takes another module (both for tests).
#
# Exit status: 0 stopped on request, 1 could not start, or a server died.

# shellcheck disable=SC2015,SC2317  # "a && b || fail" means just that; the traps' functions are reached
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P) || exit 1
HERE=$ROOT/tests/tools
BUILD=$ROOT/build
RUN=${RUN_DIR:-$BUILD/run}
WEB=$BUILD/web
MODULE=${BOSH_MODULE:-$BUILD/mod_bosh.so}
PORT=${PORT:-8080}

PROSODY_PID=
HTTPD_PID=
COPY= # a copy of the page outside the checkout, where httpd's user cannot read the checkout

fail() {
    printf 'make run: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '          %s\n' "$@" >&2
    exit 1
}

# --- stopping ------------------------------------------------------------------------------------

alive() {
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null
}

# Asks a server to stop and waits for it; after five seconds, or when it died alone, kills its process
# group, for httpd's children outlive an httpd that was killed.
stop_server() {
    local pid=$1 i
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null
    for ((i = 0; i < 50; i++)); do
        alive "$pid" || break
        sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

cleanup() {
    local pid
    trap '' INT TERM HUP
    stop_server "$HTTPD_PID" # first: it ends the sessions, so Prosody sees the users leave
    # Prosody, and what a signal met between its start and the next line of this script.
    for pid in $(jobs -p); do
        stop_server "$pid"
    done
    [ -z "$COPY" ] || rm -rf "$COPY"
    rm -f "$RUN/run.pid" "$RUN/run.url" "$RUN/prosody.pid" "$RUN/httpd.pid"
}

stopped() {
    trap '' INT TERM HUP
    printf '\nStopping ...\n'
    cleanup
    trap - EXIT
    printf 'Stopped. Nothing is left running.\n'
    exit 0
}

# --- before anything is started ------------------------------------------------------------------

# Is somebody listening? (bash's own /dev/tcp: no tool needed)
listening() {
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

has_ipv6_loopback() {
    grep -qs '^00000000000000000000000000000001 ' /proc/net/if_inet6
}

check_port() {
    [[ $PORT =~ ^[0-9]{1,5}$ ]] && ((10#$PORT >= 1 && 10#$PORT <= 65535)) ||
        fail "PORT=$PORT is not a port number (1 to 65535)." "Try: make run PORT=8080"
    PORT=$((10#$PORT))
    if ((PORT < 1024)) && [ "$(id -u)" -ne 0 ] &&
        ((PORT < $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024))); then
        fail "only root may listen on port $PORT." "Try: make run PORT=8080"
    fi
}

port_in_use() {
    fail "port $PORT on this machine is already in use by another program." \
        "Take another one: make run PORT=$((PORT < 65535 ? PORT + 1 : 8080))" \
        "(to see who has it: ss -ltnp 'sport = :$PORT')"
}

find_programs() {
    HTTPD=$(command -v apache2 || command -v httpd) ||
        fail "Apache httpd is not installed." "On Debian: apt-get install apache2"
    PROSODY=$(command -v prosody) && PROSODYCTL=$(command -v prosodyctl) ||
        fail "Prosody is not installed." "On Debian: apt-get install prosody"
    MODULES=$(apxs -q LIBEXECDIR 2>/dev/null)
    [ -d "${MODULES:-}" ] || MODULES=/usr/lib/apache2/modules
    [ -f "$MODULES/mod_mpm_event.so" ] ||
        fail "no httpd modules (mod_mpm_event.so) in $MODULES." "On Debian: apt-get install apache2 apache2-dev"
    [ -f "$MODULE" ] || fail "$MODULE is not built." "Run: make"
    [ -f "$WEB/index.html" ] && [ -f "$WEB/strophe.umd.min.js" ] ||
        fail "the web page is not complete in $WEB." "Run: make run (it copies the page and strophe.js there)"
    case $ROOT$RUN in
    *[\"\\\$\']* | *$'\n'*) fail "the path of this checkout has a quote, a dollar or a backslash: $ROOT" ;;
    esac
}

take_lock() {
    mkdir -p "$RUN/log" "$RUN/data" "$RUN/certs" "$RUN/web" 2>/dev/null && [ -w "$RUN" ] &&
        exec 9>>"$RUN/lock" || fail "cannot write to $RUN." "Was it made by another user? Remove it, or run as that user."
    if ! flock -n 9; then
        fail "already running in this checkout: process $(cat "$RUN/run.pid" 2>/dev/null || echo '?')" \
            "Page: $(cat "$RUN/run.url" 2>/dev/null || echo 'it is just starting')" \
            "Stop it with Ctrl-C in its terminal, or: kill $(cat "$RUN/run.pid" 2>/dev/null || echo PID)"
    fi
    trap cleanup EXIT
    trap stopped INT TERM HUP
    echo $$ >"$RUN/run.pid"
}

# Processes with a configuration file of ours among their arguments.
our_processes() {
    # shellcheck disable=SC2062  # the last argument is the files
    grep -lzxF --regexp="$RUN/httpd.conf" --regexp="$RUN/prosody.cfg.lua" /proc/[0-9]*/cmdline 2>/dev/null | tr -dc '0-9\n'
}

# We have the lock, so these are of a run that was killed so hard that it could not stop them.
stop_leftovers() {
    local i pids
    rm -f "$RUN/prosody.pid" "$RUN/httpd.pid"
    mapfile -t pids < <(our_processes)
    [ ${#pids[@]} -gt 0 ] || return 0
    echo "Servers of an earlier run are still there (processes ${pids[*]}): stopping them."
    kill -TERM "${pids[@]}" 2>/dev/null
    for ((i = 0; i < 80; i++)); do
        mapfile -t pids < <(our_processes)
        [ ${#pids[@]} -gt 0 ] || return 0
        [ $i -lt 30 ] || kill -KILL "${pids[@]}" 2>/dev/null # httpd's children without their parent are deaf
        sleep 0.1
    done
    fail "servers of an earlier run do not stop: processes ${pids[*]}"
}

# --- configuration -------------------------------------------------------------------------------

# fill TEMPLATE OUT NAME VALUE [NAME VALUE ...]
fill() {
    local text out=$2
    text=$(<"$1")
    shift 2
    while [ $# -gt 0 ]; do
        text=${text//"@$1@"/"$2"}
        shift 2
    done
    printf '%s\n' "$text" >"$out"
}

# The user httpd's children run as, when we are root: the checkout's owner if that is a person, else the
# user Debian made for it.
httpd_user() {
    [ "$(id -u)" -eq 0 ] || return 0
    local user
    user=$(stat -c %U "$ROOT")
    [ "$user" != root ] && [ "$user" != UNKNOWN ] || user=www-data
    id "$user" >/dev/null 2>&1 || user=nobody
    echo "$user"
}

write_httpd_conf() {
    local user user_lines='' listen load='' name web=$WEB config=$RUN/web
    listen="Listen 127.0.0.1:$PORT"
    ! has_ipv6_loopback || listen+=$'\n'"Listen [::1]:$PORT"
    user=$(httpd_user)
    if [ -n "$user" ]; then
        user_lines="User $user"$'\n'"Group $(id -gn "$user")"
        if ! setpriv --reuid="$user" --regid="$(id -gn "$user")" --clear-groups \
            test -r "$WEB/index.html" -a -r "$RUN/web"; then
            COPY=$(mktemp -d "${TMPDIR:-/tmp}/mod_bosh-page.XXXXXX") || fail "cannot make a temporary directory."
            cp -R "$WEB" "$COPY/page" && cp -R "$RUN/web" "$COPY/config" && chmod -R a+rX "$COPY" ||
                fail "cannot copy the page to $COPY."
            web=$COPY/page config=$COPY/config
        fi
    fi
    for name in mpm_event unixd authz_core dir mime headers alias log_config; do
        [ -f "$MODULES/mod_$name.so" ] || continue # built in
        load+="LoadModule ${name}_module \"$MODULES/mod_$name.so\""$'\n'
    done
    fill "$HERE/httpd.conf.in" "$RUN/httpd.conf" RUN "$RUN" WEB "$web" WEB_CONFIG "$config" MODULE "$MODULE" \
        LISTEN "$listen" LOAD_MODULES "${load%$'\n'}" USER "$user_lines" C2S_PORT "$C2S_PORT"
}

write_page_config() {
    cat >"$RUN/web/config.js" <<'EOF'
/* Written by `make run`; see web/config.js of the sources. */
export default {
    boshUrl: '/http-bind',
    domain: 'localhost',
    anonymousDomain: 'anon.localhost',
    roomService: 'conference.localhost',
};
EOF
    chmod a+r "$RUN/web/config.js"
}

# --- servers -------------------------------------------------------------------------------------

# launch LOG COMMAND...: in a process group of its own, so that Ctrl-C reaches this script alone. Sets PID.
launch() {
    local log=$1
    shift
    setsid setpriv --pdeathsig TERM "$@" >>"$log" 2>&1 </dev/null 9>&- &
    PID=$!
}

# died NAME LOG...: says why and ends the run.
died() {
    local name=$1 log
    shift
    printf '\nmake run: %s stopped by itself. The end of its log:\n' "$name" >&2
    for log; do
        [ -s "$log" ] || continue
        printf '  %s\n' "--- $log" >&2
        tail -n 12 "$log" | sed 's/^/  /' >&2
    done
    exit 1
}

# add_account NAME PASSWORD FRIEND: once; what the user does to the contact list afterwards stays.
add_account() {
    [ -s "$RUN/data/localhost/accounts/$1.dat" ] && return
    mkdir -p "$RUN/data/localhost/roster"
    printf 'return { [false] = { version = 1 }, ["%s@localhost"] = { subscription = "both", groups = {} } };\n' \
        "$3" >"$RUN/data/localhost/roster/$1.dat"
    "$PROSODYCTL" --config "$RUN/prosody.cfg.lua" register "$1" localhost "$2" \
        >"$RUN/log/prosodyctl.log" 2>&1 9>&- </dev/null &
    wait $! # a wait can be interrupted by a signal, a command in the foreground cannot
    [ -s "$RUN/data/localhost/accounts/$1.dat" ] || fail "prosodyctl could not create the account $1:" \
        "$(tail -n 5 "$RUN/log/prosodyctl.log")"
}

start_prosody() {
    local i port
    for ((port = 15222; port < 15322; port++)); do
        listening 127.0.0.1 "$port" && continue
        C2S_PORT=$port
        fill "$HERE/prosody.cfg.lua.in" "$RUN/prosody.cfg.lua" RUN "$RUN" C2S_PORT "$port"
        add_account alice alice bob
        add_account bob bob alice
        : >"$RUN/log/prosody.log"
        : >"$RUN/log/prosody.out"
        launch "$RUN/log/prosody.out" "$PROSODY" -F --config "$RUN/prosody.cfg.lua"
        PROSODY_PID=$PID
        for ((i = 0; i < 200; i++)); do
            alive "$PROSODY_PID" || died Prosody "$RUN/log/prosody.out" "$RUN/log/prosody.log"
            # Somebody took the port since we looked: next one.
            if grep -qs 'Failed to open server port' "$RUN/log/prosody.log"; then
                stop_server "$PROSODY_PID"
                PROSODY_PID=
                continue 2
            fi
            listening 127.0.0.1 "$port" && return
            sleep 0.05
        done
        fail "Prosody does not listen on 127.0.0.1:$port after 10 seconds. See $RUN/log/prosody.log"
    done
    fail "no free port between 15222 and 15321 for Prosody."
}

start_httpd() {
    local i
    write_page_config
    write_httpd_conf
    : >"$RUN/log/httpd-error.log"
    : >"$RUN/log/httpd.out"
    launch "$RUN/log/httpd.out" "$HTTPD" -DFOREGROUND -f "$RUN/httpd.conf"
    HTTPD_PID=$PID
    for ((i = 0; i < 200; i++)); do
        if ! alive "$HTTPD_PID"; then
            ! grep -qs 'Address already in use' "$RUN/log/httpd.out" || port_in_use
            died httpd "$RUN/log/httpd.out" "$RUN/log/httpd-error.log"
        fi
        [ -s "$RUN/httpd.pid" ] && listening 127.0.0.1 "$PORT" && return
        sleep 0.05
    done
    fail "httpd does not listen on 127.0.0.1:$PORT after 10 seconds. See $RUN/log/httpd-error.log"
}

announce() {
    echo "$URL" >"$RUN/run.url"
    cat <<EOF

  mod_bosh is running.

    Open        $URL
    Accounts    alice, password alice
                bob, password bob        (two browser windows: one for each)
                or "Continue as guest"
    Chat rooms  any name at conference.localhost
    BOSH        ${URL}http-bind   for other clients; domains localhost, anon.localhost
    Logs        $RUN/log/

  Ctrl-C stops it.
EOF
}

# --- the run -------------------------------------------------------------------------------------

check_port
find_programs
URL=http://localhost:$PORT/
take_lock
stop_leftovers
! listening 127.0.0.1 "$PORT" || port_in_use
! has_ipv6_loopback || ! listening ::1 "$PORT" || port_in_use
start_prosody
start_httpd
announce

# `wait -n` alone would wait for ever for a server that died just before it: hence the sleep.
while alive "$HTTPD_PID" && alive "$PROSODY_PID"; do
    sleep 3 9>&- &
    wait -n "$HTTPD_PID" "$PROSODY_PID" $!
done
alive "$HTTPD_PID" || died httpd "$RUN/log/httpd.out" "$RUN/log/httpd-error.log"
died Prosody "$RUN/log/prosody.out" "$RUN/log/prosody.log"
