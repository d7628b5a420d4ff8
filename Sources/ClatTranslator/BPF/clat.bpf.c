/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "clat.h"

SEC("tc")
int nothing(struct __sk_buff *skb)
{
	return 0;
}

char program_license[] SEC("license") = "GPL";
