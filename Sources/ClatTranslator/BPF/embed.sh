#!/bin/sh
# embed.sh SOURCE.bpf.c NAME OUTPUT.swift: compiles an eBPF program and writes its object file as a Swift constant of the enum NAME.
set -eu
source=$1 name=$2 output=$3
object=${output%.swift}.o
${CLAT_BPF_CLANG:-clang} -target bpf -mcpu=v3 -O2 -fno-strict-aliasing -g -Wall -Werror \
	-idirafter "/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object"
{
	echo '/// A compiled eBPF program (an ELF object) in hexadecimal. Written by embed.sh.'
	printf 'enum %s { static let hexadecimal: StaticString = "' "$name"
	od -An -v -tx1 "$object" | tr -d ' \n'
	echo '" }'
} > "$output"
