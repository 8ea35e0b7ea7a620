# shellcheck shell=bash
# What holdline-tune and nic share: a plan of kernel files to write, shown, applied and undone.
# Sourced, not run. A plan is four arrays of the same length; a path is as the host sees it, without ROOT.
#
# The state file keeps, for each file that was changed, `path <tab> what was there <tab> what we wrote`. It is written
# before the first change, so that a kill in between loses nothing, and the second field is never overwritten: however
# often `apply` runs, `undo` returns to what was there before the first.

ROOT=
NAMES=()
PATHS=()
WANTED=()
REASONS=()
failures=0

# Ends the script with one line that says what is wrong and how to mend it.
fail() {
    echo "error: $*" >&2
    exit 1
}

# plan NAME PATH WANTED REASON: an empty WANTED means that nothing needs to change.
plan() {
    NAMES+=("$1")
    PATHS+=("$2")
    WANTED+=("$3")
    REASONS+=("$4")
}

# The content of a kernel file on one line with single spaces; nothing when it cannot be read.
now() {
    local words=()
    { read -r -d '' -a words <"$ROOT$1"; } 2>/dev/null
    echo "${words[*]}"
}

# Whether the file holds this value; a mask of CPUs is the same with and without leading zeros.
holds() {
    local value
    value=$(now "$1")
    [ "$value" = "$2" ] || { [[ $1 == *_cpus ]] && [ "$(bare_mask "$value")" = "$(bare_mask "$2")" ]; }
}

bare_mask() {
    local digits=${1//,/}
    shopt -s extglob
    digits=${digits##+(0)}
    echo "${digits:-0}"
}

# Whether the file is there and says something.
usable() { [ -n "$(now "$1")" ]; }

# Whether entry AT of the plan is to be written.
is_due() {
    [ -n "${WANTED[$1]}" ] && usable "${PATHS[$1]}" && ! holds "${PATHS[$1]}" "${WANTED[$1]}"
}

need_root() {
    [ -n "$ROOT" ] || [ "$(id -u)" -eq 0 ] || fail "$1 writes to the kernel and needs root: start it with sudo"
}

# take_lock: one apply or undo at a time; the lock goes with the process.
take_lock() {
    mkdir -p "$(dirname "$STATE")" || fail "cannot make the folder of $STATE: name another file with --state"
    exec 9<"$(dirname "$STATE")" || fail "cannot read the folder of $STATE: name another file with --state"
    flock -n 9 || fail "another apply or undo is at work on $STATE: wait for it"
}

show_plan() {
    local at changes=0
    for at in "${!NAMES[@]}"; do
        if ! usable "${PATHS[at]}"; then
            printf '%s\n    not on this kernel, or its module is not loaded; left out\n' "${NAMES[at]}"
        elif is_due "$at"; then
            printf '%s\n    %s -> %s\n    %s\n' "${NAMES[at]}" "$(now "${PATHS[at]}")" "${WANTED[at]}" "${REASONS[at]}"
            changes=$((changes + 1))
        else
            printf '%s\n    %s: good as it is\n' "${NAMES[at]}" "$(now "${PATHS[at]}")"
        fi
    done
    echo "$changes to change"
}

# A state is three arrays: the paths, what was there, what we wrote.
KEPT=()
BEFORE=()
AFTER=()

read_state() {
    local path before after
    KEPT=() BEFORE=() AFTER=()
    [ -f "$STATE" ] || return 0
    while IFS=$'\t' read -r path before after; do
        # The file is root's own, but a damaged line must not become a write to anywhere.
        if [[ $path != /proc/* && $path != /sys/* ]] || [[ $path == */../* || -z $after ]]; then
            fail "$STATE is damaged at '$path': mend or delete it"
        fi
        KEPT+=("$path") BEFORE+=("$before") AFTER+=("$after")
    done <"$STATE"
}

# Writes the three arrays; a state of nothing is no file.
write_state() {
    local at
    if [ ${#KEPT[@]} -eq 0 ]; then
        rm -f "$STATE"
        return
    fi
    if ! for at in "${!KEPT[@]}"; do
        printf '%s\t%s\t%s\n' "${KEPT[at]}" "${BEFORE[at]}" "${AFTER[at]}"
    done >"$STATE.new" || ! mv "$STATE.new" "$STATE"; then
        fail "cannot write $STATE: make room, or name another file with --state"
    fi
}

# keep PATH VALUE: VALUE will be written to PATH.
keep() {
    local at
    for at in "${!KEPT[@]}"; do
        if [ "${KEPT[at]}" = "$1" ]; then
            AFTER[at]=$2
            return
        fi
    done
    KEPT+=("$1") BEFORE+=("$(now "$1")") AFTER+=("$2")
}

# put PATH VALUE: writes it, and says in one line which file would not take it and why.
put() {
    local said
    # The kernel's refusal comes from the write, the shell's from the opening; both end here.
    if said=$({ printf '%s\n' "$2" >"$ROOT$1"; } 2>&1); then
        return 0
    fi
    echo "error: $1 did not take '$2': ${said##*: }" >&2
    failures=$((failures + 1))
    return 1
}

# Writes what differs. A file that fails does not hold up the others, because each value helps alone; the exit status tells.
apply_plan() {
    local at path written=0
    read_state
    for at in "${!NAMES[@]}"; do
        if is_due "$at"; then keep "${PATHS[at]}" "${WANTED[at]}"; fi
    done
    write_state
    for at in "${!NAMES[@]}"; do
        path=${PATHS[at]}
        if ! usable "$path"; then
            echo "${NAMES[at]}: not on this kernel, or its module is not loaded; left out"
        elif is_due "$at"; then
            echo "${NAMES[at]}: $(now "$path") -> ${WANTED[at]}"
            if put "$path" "${WANTED[at]}"; then
                # The kernel rounds some values, and what it holds is what undo has to find.
                keep "$path" "$(now "$path")"
                written=$((written + 1))
            fi
        fi
    done
    drop_unchanged
    write_state
    echo "$written changed, $failures failed"
}

# What would not change is nothing to undo.
drop_unchanged() {
    local at kept=() before=() after=()
    for at in "${!KEPT[@]}"; do
        if ! holds "${KEPT[at]}" "${BEFORE[at]}"; then
            kept+=("${KEPT[at]}") before+=("${BEFORE[at]}") after+=("${AFTER[at]}")
        fi
    done
    KEPT=("${kept[@]}") BEFORE=("${before[@]}") AFTER=("${after[@]}")
}

# Puts back what was there, last change first. A value that someone else has changed since is theirs: it stays, and is named.
undo_plan() {
    local at path value back=0 kept=() before=() after=()
    read_state
    for ((at = ${#KEPT[@]} - 1; at >= 0; at--)); do
        path=${KEPT[at]}
        if ! usable "$path"; then
            echo "$path: no longer there"
        elif holds "$path" "${BEFORE[at]}"; then
            continue
        elif ! holds "$path" "${AFTER[at]}"; then
            echo "$path: changed to '$(now "$path")' by someone else since; left, it was '${BEFORE[at]}'"
        elif put "$path" "${BEFORE[at]}"; then
            echo "$path: $(now "$path") again"
            back=$((back + 1))
        else
            kept=("$path" "${kept[@]}") before=("${BEFORE[at]}" "${before[@]}") after=("${AFTER[at]}" "${after[@]}")
        fi
    done
    # What failed stays on record, for another undo.
    KEPT=("${kept[@]}") BEFORE=("${before[@]}") AFTER=("${after[@]}")
    write_state
    # The folder that apply made, unless somebody has put something there.
    [ "$(dirname "$STATE")" != "$ROOT/var/lib/holdline" ] || rmdir "$ROOT/var/lib/holdline" 2>/dev/null
    echo "$back put back, $failures failed"
}
