/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * At egress of the host's uplink: what bears an address of ours as its source, in IPv4 or ARP, goes no further.
 *
 * The host has 192.0.0.x for the CLAT alone, but where an uplink has no IPv4 address of its own the kernel takes any other for
 * what a program forces out of it, and it answers ARP for every address it has on every link.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* 192.0.0.0/29 (RFC 7335 section 6) and the dummy address (RFC 7600 section 4.8) */
#define CONTINUITY 0xc0000000
#define CONTINUITY_MASK 0xfffffff8
#define DUMMY 0xc0000008
/* Octets of an ARP packet before the sender's protocol address, on Ethernet (RFC 826) */
#define ARP_SENDER (8 + ETH_ALEN)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} guard_stopped SEC(".maps");

SEC("tc")
int guard_uplink(struct __sk_buff *skb)
{
	__u32 zero = 0, offset;
	__be32 address;
	__u64 *stopped;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		offset = offsetof(struct iphdr, saddr);
	else if (skb->protocol == bpf_htons(ETH_P_ARP))
		offset = ARP_SENDER;
	else
		return TC_ACT_UNSPEC;
	/* not every link has an Ethernet header before it */
	if (bpf_skb_load_bytes_relative(skb, offset, &address, sizeof(address), BPF_HDR_START_NET))
		return TC_ACT_UNSPEC;
	address = bpf_ntohl(address);
	if ((address & CONTINUITY_MASK) != CONTINUITY && address != DUMMY)
		return TC_ACT_UNSPEC;
	stopped = bpf_map_lookup_elem(&guard_stopped, &zero);
	if (stopped)
		__sync_fetch_and_add(stopped, 1);
	return TC_ACT_SHOT;
}

char program_license[] SEC("license") = "GPL";
