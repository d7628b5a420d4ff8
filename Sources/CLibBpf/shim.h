#pragma once
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "../ClatTranslator/BPF/clat.h"

/* Enumerators of linux/bpf.h since 6.6, so the preprocessor cannot tell whether the header has them. */
enum { CLAT_BPF_TCX_INGRESS = 46, CLAT_BPF_TCX_EGRESS = 47 };
