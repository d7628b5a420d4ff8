#pragma once
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* Enumerators of linux/bpf.h since 6.6, so the preprocessor cannot tell whether the header has them. */
enum { CLAT_BPF_TCX_INGRESS = 46, CLAT_BPF_TCX_EGRESS = 47 };

/* What the kernel tells of a tcx link: the beginning of struct bpf_link_info, of which older headers lack the last two. */
struct clat_tcx_link_info {
	__u32 type;
	__u32 id;
	__u32 prog_id;
	__u32 padding;
	__u32 ifindex; /* zero once the device has gone */
	__u32 attach_type;
};
