#!/bin/bash
# fuzz.sh SECONDS [TARGET...]: fuzzes the parsers with libFuzzer and AddressSanitizer, guided by coverage, from Tests/Fuzz/seeds;
# all of them, one after the other, where none is named. What crashes is left in .build-fuzz/found/TARGET.
set -euo pipefail
# The runtime's own report of a crash would be a second one.
export SWIFT_BACKTRACE=enable=no
cd "$(dirname "$0")/../.."
seconds=${1:-60}; shift || true
targets=(${@:-$(cd Tests/Fuzz/seeds && printf '%s\n' * | sed 's/\.txt$//')})

# The package manager's --sanitize links libFuzzer, but has nothing instrumented for coverage: that the compiler is told apart.
CLAT_FUZZ=1 swift build -c release --scratch-path .build-fuzz --product fuzz --sanitize=fuzzer --sanitize=address \
	-Xswiftc -sanitize=fuzzer,address -Xswiftc -enable-testing -Xswiftc -assert-config -Xswiftc Debug 2>&1 | grep -E 'error|warning: unre|Compiling|Build' | tail -n 3
fuzz=$(CLAT_FUZZ=1 swift build -c release --scratch-path .build-fuzz --show-bin-path)/fuzz

# A line of a seed file is an input: text with \n and its like after a quotation mark, else octets in hexadecimal. Of either,
# <61*3> is 616161.
seed() {
	local number=0 line many
	while IFS= read -r line; do
		case $line in '' | \#*) continue ;; esac
		number=$((number + 1))
		while [[ $line =~ ^(.*)'<'([^<>]*)\*([0-9]+)'>'(.*)$ ]]; do
			printf -v many '%*s' "${BASH_REMATCH[3]}" ''
			line=${BASH_REMATCH[1]}${many// /"${BASH_REMATCH[2]}"}${BASH_REMATCH[4]}
		done
		case $line in
		\"*) printf '%b' "${line#?}" ;;
		*) printf '%b' "$(tr -d ' ' <<< "$line" | sed 's/../\\x&/g')" ;;
		esac > "$2/$number"
	done < "$1"
}

failed=0
for target in "${targets[@]}"; do
	work=.build-fuzz/found/$target
	mkdir -p "$work/corpus" "$work/seeds"
	seed "Tests/Fuzz/seeds/$target.txt" "$work/seeds"
	if FUZZ_TARGET=$target "$fuzz" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
		-artifact_prefix="$work/" "$work/corpus" "$work/seeds" > "$work/log" 2>&1 &&
		grep -q 'inline 8-bit counters' "$work/log"; then # without these it is guided by nothing
		printf '%-14s %s executions in %s s of up to %s octets, %s inputs kept, peak %s MB\n' "$target" \
			"$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")" \
			"$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) .*/\1/p' "$work/log")" "$(sed -n 's/^Inputs of up to \([0-9]*\) octets$/\1/p' "$work/log")" \
			"$(find "$work/corpus" -type f | wc -l)" "$(sed -n 's/^stat::peak_rss_mb: *//p' "$work/log")"
	else
		failed=$((failed + 1))
		printf '%-14s FAILED; the end of %s:\n' "$target" "$work/log"
		tail -n 40 "$work/log"
	fi
done
printf '%s passed, %s failed\n' $((${#targets[@]} - failed)) "$failed"
[ "$failed" = 0 ]
