/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the eBPF programs and their loader both know: the configuration that goes in, the counters that come out. */
#pragma once
#include <linux/types.h>

/* As many pairs of addresses as the translator has: the current one and those that drain after a renumbering. */
#define CLAT_MAPPINGS 4

/* Flags of a configuration. */
enum {
	CLAT_KERNEL_PATH = 1, /* translate plain packets here; without it all go to the translator */
};

/* Flags of a mapping. */
enum {
	CLAT_PUBLIC_ONLY = 1, /* leave private IPv4 addresses to the translator, which refuses them */
};

/* An IPv6 address as two numbers in host byte order: octets 0 to 7 and octets 8 to 15. */
struct clat_address {
	__u64 high;
	__u64 low;
};

/* One IPv4 address of the host, the IPv6 address it appears as, and the PREF64 of its flows. */
struct clat_mapping {
	struct clat_address ipv6;
	struct clat_address prefix; /* bits past the length are zero */
	struct clat_address mask;   /* the first `length` bits */
	__u32 ipv4;                 /* host byte order */
	__u32 length;               /* 32, 40, 48, 56, 64 or 96 (RFC 6052 section 2.2) */
	__u32 flags;
};

/* Never changed in place: the loader makes a map with a new one and puts that in the old one's stead. */
struct clat_config {
	struct clat_mapping mappings[CLAT_MAPPINGS];
	struct clat_address next_hop; /* the router that leads to every PREF64; zero where the routes must tell */
	__u32 mappings_count;
	__u32 flags;
	__u32 uplink;       /* interface indexes */
	__u32 host;
	__u32 tun;
	__u32 ipv6_mtu; /* octets; of the uplink */
	__u32 ipv4_mtu; /* octets; towards the host */
	__u32 lowest_ipv6_mtu; /* octets; larger packets without DF are fragmented */
	__u8 hop_decrement;
	__u8 traffic_class_mask; /* all ones, or zero where it is not copied */
	__u8 host_link[12]; /* Ethernet destination and source of what goes to the host */
};

enum clat_direction { CLAT_OUTBOUND, CLAT_INBOUND, CLAT_DIRECTIONS };
enum clat_protocol { CLAT_TCP, CLAT_UDP, CLAT_ICMP, CLAT_PROTOCOLS };

/* Why the kernel path leaves a packet to the translator. */
enum clat_reason {
	CLAT_HEADER,    /* options, or a length or checksum that is wrong */
	CLAT_FRAGMENT,
	CLAT_HOP_LIMIT, /* it would not survive, and the sender is to be told */
	CLAT_ADDRESS,
	CLAT_PROTOCOL,  /* neither TCP nor UDP with a checksum nor echo, or behind extension headers */
	CLAT_SIZE,      /* larger than the MTU on the other side */
	CLAT_MEMORY,    /* the kernel had no room for the other header */
	CLAT_REASONS
};

/* Counted by each processor for itself, so that none waits for another. */
struct clat_counts {
	__u64 packets[CLAT_DIRECTIONS][CLAT_PROTOCOLS]; /* translated here; a super-packet is one */
	__u64 octets[CLAT_DIRECTIONS];          /* of these, with their new IP headers */
	__u64 passed[CLAT_DIRECTIONS][CLAT_REASONS]; /* not translated here; without CLAT_KERNEL_PATH none */
	__u64 to_translator[CLAT_DIRECTIONS];   /* packets handed to the TUN */
	__u64 from_translator[CLAT_DIRECTIONS]; /* packets the TUN handed back */
	__u64 to_stack;                         /* packets for the CLAT address left to the kernel */
	__u64 ignored;                          /* what the host sent that is not untagged IPv4 */
	__u64 failed;                           /* lost halfway, for want of memory or because they are too large */
};
