#!/bin/sh
# embed.sh SOURCE.bpf.c OUTPUT.swift: compiles an eBPF program and writes its object file as a Swift constant.
set -eu
source=$1 output=$2
object=${output%.swift}.o
${CLAT_BPF_CLANG:-clang} -target bpf -mcpu=v3 -O2 -g -Wall -Werror \
	-idirafter "/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object"
{
	echo '/// The compiled eBPF program (an ELF object) in hexadecimal. Written by embed.sh.'
	printf 'enum BPFObject { static let hexadecimal: StaticString = "'
	od -An -v -tx1 "$object" | tr -d ' \n'
	echo '" }'
} > "$output"
