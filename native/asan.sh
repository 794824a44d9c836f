#!/bin/sh
# Compiles the hook and its unit tests with every warning an error and with AddressSanitizer and
# UndefinedBehaviorSanitizer, and runs them: once per compiler that is installed (or those in $EDGECAL_CC).
# The build is in a temporary folder that is removed. Fails if no compiler is there or a check fails.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
ran=0
for compiler in ${EDGECAL_CC:-gcc clang}; do
    command -v "$compiler" >/dev/null 2>&1 || continue
    "$compiler" -std=c11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror \
        -fsanitize=address,undefined -fno-sanitize-recover=all \
        "$here/edgecal_hook.c" "$here/test_hook.c" -o "$build/test_hook_$compiler"
    printf '%s: ' "$compiler"
    "$build/test_hook_$compiler"
    ran=$((ran + 1))
done
if [ "$ran" -eq 0 ]; then
    echo "no C compiler found: looked for ${EDGECAL_CC:-gcc clang}; install one, or name it in EDGECAL_CC" >&2
    exit 1
fi
