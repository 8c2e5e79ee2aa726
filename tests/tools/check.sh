#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs tests and counts them. The Makefile calls it, with everything built:
#
#   check.sh unit PROGRAM...            Check programs
#   check.sh fuzz-replay PROGRAM...     replay_NAME with the files of tests/fuzz/corpus/NAME
#   check.sh e2e [ARGUMENT...]          pytest
#   check.sh all NEED MAKE...           installs what is needed, then makes each of the above, lint, and
#                                       conformance of what the others have recorded in $BUILD/check
#
# Each ends with "NAME: N passed, N failed, N skipped", and fails when anything did. A program that
# crashes, says nothing or tests nothing counts as a failure: silence is never success. The last line of
# `all` is the sum: "N passed, N failed", with ", N skipped" only when there are any.

set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
BUILD=${BUILD:-build}
LIMIT=${LIMIT:-300} # seconds, for one program
passed=0 failed=0 skipped=0

summary() {
    printf '%s: %d passed, %d failed, %d skipped\n' "$1" "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ]
}

# Seconds with one decimal since $1 (a value of EPOCHREALTIME).
since() {
    awk -v a="${1/,/.}" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f", b - a }'
}

indent() {
    sed 's/^/      /'
}

how_it_ended() {
    if [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; then
        echo "did not end within $LIMIT s"
    elif [ "$1" -gt 128 ]; then
        echo "was killed by signal $(($1 - 128)) ($(kill -l $(($1 - 128))))"
    else
        echo "exit status $1"
    fi
}

# --- Check ---------------------------------------------------------------------------------------

# run_logged DIR PROGRAM RECORD: its output, exit status and time go to files in DIR, results of its tests to RECORD.
run_logged() {
    local start=$EPOCHREALTIME to
    to=$1/$(tr / _ <<<"$2")
    rm -f "$3" # what a program does not live to record is not known
    CK_TAP_LOG_FILE_NAME=$3 timeout -k 5 "$LIMIT" "$2" >"$to.out" 2>&1 </dev/null
    echo $? "$(since "$start")" >"$to.end"
}

unit() {
    local program i out rc seconds counts checks bad begun=$EPOCHREALTIME
    if [ $# -eq 0 ]; then
        echo "no unit tests found in tests/unit" >&2
        failed=1
    fi
    mkdir -p "$BUILD/check/unit" || exit 1
    dir=$(mktemp -d) || exit 1 # no local: the trap runs at the end of the script
    trap 'rm -rf "$dir"' EXIT
    # Those of upstream, which come last, mostly wait: they begin, and more than one run on a processor.
    for ((i = $#; i > 0; i--)); do
        [ "$(jobs -rp | wc -l)" -lt $((3 * $(nproc))) ] || wait -n
        run_logged "$dir" "${!i}" "$BUILD/check/unit/${!i##*/}.tap" 2>/dev/null &
    done
    wait
    for program; do
        out=$(cat "$dir/$(tr / _ <<<"$program").out")
        read -r rc seconds <"$dir/$(tr / _ <<<"$program").end" || rc=1
        # One line for each suite runner of the program: 100%: Checks: 12, Failures: 0, Errors: 0
        counts=$(sed -n 's/^[0-9]*%: Checks: \([0-9]*\), Failures: \([0-9]*\), Errors: \([0-9]*\)$/\1 \2 \3/p' \
            <<<"$out" | awk '{ n += $1; bad += $2 + $3 } END { print n + 0, bad + 0 }')
        read -r checks bad <<<"$counts"
        passed=$((passed + checks - bad))
        if [ "$checks" -eq 0 ] || { [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ]; }; then
            bad=$((bad + 1))
            out+=$'\n'"$program: $checks checks counted, $(how_it_ended "$rc")"
        fi
        failed=$((failed + bad))
        if [ "$bad" -eq 0 ]; then
            printf 'ok    %-24s %4d checks %6s s\n' "${program##*/unit/}" "$checks" "$seconds"
        else
            printf 'FAIL  %-24s %4d checks %6s s, %d failed\n' "${program##*/unit/}" "$checks" "$seconds" "$bad"
            indent <<<"$out"
        fi
    done
    printf 'unit tests took %s s\n' "$(since "$begun")"
    summary unit
}

# --- fuzz corpus ---------------------------------------------------------------------------------

fuzz_replay() {
    local program name dir out rc file bad
    local -a files
    if [ $# -eq 0 ]; then
        echo "no fuzzers found in tests/fuzz" >&2
        failed=1
    fi
    for program; do
        name=${program##*/replay_}
        dir=tests/fuzz/corpus/$name
        mapfile -t files < <(find "$dir" -type f 2>/dev/null | LC_ALL=C sort)
        if [ ${#files[@]} -eq 0 ]; then
            printf 'FAIL  %s: fed nothing: there are no files in %s\n' "$name" "$dir"
            failed=$((failed + 1))
            continue
        fi
        out=$(timeout -k 5 "$LIMIT" "$program" "${files[@]}" 2>&1 </dev/null)
        rc=$?
        if [ $rc -eq 0 ]; then
            passed=$((passed + ${#files[@]}))
            printf 'ok    %-16s %4d inputs\n' "$name" ${#files[@]}
            continue
        fi
        # Which ones? One at a time.
        bad=0
        for file in "${files[@]}"; do
            # In $() the shell does not report the crash itself.
            if _=$(timeout -k 5 "$LIMIT" "$program" "$file" 2>&1 </dev/null); then
                passed=$((passed + 1))
            else
                bad=$((bad + 1))
                printf '      %s\n' "$file"
            fi
        done
        [ $bad -gt 0 ] || bad=1 # only all of them in a row fail
        failed=$((failed + bad))
        printf 'FAIL  %-16s %4d inputs, %d failed, %s\n' "$name" ${#files[@]} $bad "$(how_it_ended $rc)"
        tail -n 40 <<<"$out" | indent
    done
    summary fuzz-replay
}

# --- pytest --------------------------------------------------------------------------------------

find_pytest() {
    for PYTHON in /usr/bin/python3 "$(command -v python3)"; do
        [ -x "$PYTHON" ] && "$PYTHON" -c 'import pytest' 2>/dev/null && return
    done
    return 1
}

# Adds up pytest's closing line: "2 failed, 40 passed, 1 skipped, 1 xfailed, 1 error in 12.34s".
count_pytest() {
    local line number word
    line=$(sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -E '(^|[ =])([0-9]+ [a-z]+(, )?)+ in [0-9.]+s' | tail -n 1)
    while read -r number word; do
        case $word in
        passed) passed=$((passed + number)) ;;
        failed | error | errors | xpassed) failed=$((failed + number)) ;;
        skipped | xfailed) skipped=$((skipped + number)) ;;
        esac
    done < <(grep -oE '[0-9]+ [a-z]+' <<<"${line% in *}")
}

e2e() {
    local log rc
    if ! find_pytest; then
        echo "no python3 with pytest: install python3-pytest (make deps)" >&2
        failed=1
        summary e2e
        return
    fi
    mkdir -p "$BUILD/check" || return
    log=$BUILD/check/pytest.log
    "$PYTHON" -m pytest tests/e2e "$@" </dev/null 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    count_pytest "$log"
    if [ "$rc" -ne 0 ] && [ $failed -eq 0 ]; then
        [ "$rc" -ne 5 ] || echo "no test was selected"
        failed=1
    elif [ $((passed + failed)) -eq 0 ]; then
        echo "no test ran"
        failed=1
    fi
    summary e2e
}

# --- all of them ---------------------------------------------------------------------------------

last_line() {
    printf '%d passed, %d failed' "$1" "$2"
    [ "$3" -eq 0 ] || printf ', %d skipped' "$3"
    printf '\n'
}

all() {
    local need=$1 step log rc p f s start
    local -a broken=()
    shift
    # The jobs of the make that called us are not ours to share: it does not know that we run make.
    MAKEFLAGS=$(sed 's/ -j[0-9]*//; s/ --jobserver-auth=[^ ]*//' <<<"${MAKEFLAGS:-}")
    trap 'echo "interrupted"; exit 130' INT TERM
    if ! $need build run check npm clients; then # with our input: sudo may have to ask
        echo "what the tests need is not there"
        last_line 0 1 0
        return 1
    fi
    mkdir -p "$BUILD/check" || return
    export STRICT=1 # conformance: all that is claimed must have run here
    for step in unit fuzz-replay lint e2e conformance; do
        start=$EPOCHREALTIME
        printf -- '--- %s ---\n' "$step"
        log=$BUILD/check/$step.log
        "$@" "$step" </dev/null 2>&1 | tee "$log"
        rc=${PIPESTATUS[0]}
        read -r p f s < <(sed -n "s/^$step: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped\$/\1 \2 \3/p" \
            "$log" | tail -n 1) || p=0 f=0 s=0
        # It did not get as far as counting, or failed after that.
        [ "$rc" -eq 0 ] || [ "$f" -gt 0 ] || f=1
        [ $((p + f)) -gt 0 ] || f=1
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        if [ "$f" -gt 0 ]; then # named again at the end: of a long log often only that is seen
            broken+=("failed: $step ($f): $log")
            mapfile -t -n 40 -O ${#broken[@]} broken < <(grep -A 4 "^FAIL" "$log" | cut -c 1-300)
        fi
        printf -- '--- %s: %s s ---\n\n' "$step" "$(since "$start")"
    done
    [ ${#broken[@]} -eq 0 ] || printf "%s\n" "${broken[@]}"
    last_line $passed $failed $skipped
    [ $failed -eq 0 ]
}

command=${1:-}
shift
case $command in
unit) unit "$@" ;;
fuzz-replay) fuzz_replay "$@" ;;
e2e) e2e "$@" ;;
all) all "$@" ;;
*)
    echo "check.sh: unit, fuzz-replay, e2e or all; see the top of the file" >&2
    exit 2
    ;;
esac
