#!/bin/sh
# fuzz.sh SECONDS: fuzzes discovery (Router Advertisements, resolvers' answers, and what follows from them), then the translator, for so
# long each, with libFuzzer, guided by coverage, from the inputs in seeds-*.txt.
# What is pure in them and the harness are compiled as one module. What crashes is left in .build/fuzz/.
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
sources=$here/../../Sources
agent=$sources/ClatAgent
work=$here/../../.build/fuzz
mkdir -p "$work"
cd "$work"

flags="-O -swift-version 6 -enable-upcoming-feature InternalImportsByDefault -Xcc -D_GNU_SOURCE -I $sources/CLinux -I ."
sanitized="-wmo -sanitize=fuzzer,address -assert-config Debug"
pure=$(find "$sources/ClatTranslator" -maxdepth 1 -name '*.swift' \
	! -name 'TUN*' ! -name '*Engine*' ! -name 'BPF*' ! -name 'Steering*')
discovery=$(find "$agent/Discovery" -name '*.swift' ! -name 'DNSClient*' ! -name 'RouterSocket*' ! -name 'SystemResolvers*')
# module NAME FILES: a static library.
module() {
	name=$1; shift
	# shellcheck disable=SC2086
	swiftc $flags -parse-as-library -emit-module -emit-library -static -module-name "$name" -o "lib$name.a" "$@"
}
# shellcheck disable=SC2086
{
	module ClatBase "$sources"/ClatBase/*.swift
	module ClatTranslator $pure
	swiftc $flags $sanitized -parse-as-library -module-name ClatAgent $discovery "$agent/Model/Step.swift" "$here/FuzzDiscovery.swift" \
		-L . -lClatTranslator -lClatBase -o fuzz-discovery
	swiftc $flags $sanitized -parse-as-library -module-name ClatTranslator $pure "$here/FuzzTranslator.swift" -L . -lClatBase -o fuzz-translator
}

for target in discovery translator; do
	mkdir -p "corpus-$target" "seeds-$target"
	number=0
	while read -r line; do
		case $line in '' | \#*) continue ;; esac
		number=$((number + 1))
		printf '%s' "$line" | tr -d ' ' | sed 's/../\\x&/g' | xargs -0 printf '%b' > "seeds-$target/$number"
	done < "$here/seeds-$target.txt"
	./fuzz-$target -max_total_time="$seconds" -max_len=4096 -timeout=5 -print_final_stats=1 "corpus-$target" "seeds-$target"
done
