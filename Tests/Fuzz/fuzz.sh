#!/bin/sh
# fuzz.sh SECONDS: fuzzes the translator with libFuzzer, guided by coverage, from the packets in seeds.txt.
# The translator's pure part and the harness are compiled as one module. What crashes is left in .build/fuzz/.
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
sources=$here/../../Sources
work=$here/../../.build/fuzz
mkdir -p "$work/corpus" "$work/seeds"

flags="-O -swift-version 6 -enable-upcoming-feature InternalImportsByDefault -Xcc -D_GNU_SOURCE -I $sources/CLinux"
cd "$work"
swiftc $flags -parse-as-library -emit-module -emit-library -static -module-name ClatBase -o libClatBase.a "$sources"/ClatBase/*.swift
pure=$(find "$sources/ClatTranslator" -maxdepth 1 -name '*.swift' \
	! -name 'TUN*' ! -name '*Engine*' ! -name 'BPF*' ! -name 'Steering*')
# shellcheck disable=SC2086
swiftc $flags -wmo -parse-as-library -sanitize=fuzzer,address -assert-config Debug -module-name ClatTranslator -I . \
	$pure "$here/Fuzz.swift" -L . -lClatBase -o fuzz-translator

number=0
while read -r line; do
	case $line in '' | \#*) continue ;; esac
	number=$((number + 1))
	printf '%s' "$line" | tr -d ' ' | sed 's/../\\x&/g' | xargs -0 printf '%b' > "seeds/$number"
done < "$here/seeds.txt"
exec ./fuzz-translator -max_total_time="$seconds" -max_len=4096 -timeout=5 -print_final_stats=1 corpus seeds
