#pragma once
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "../ClatTranslator/BPF/clat.h"

/* An enumerator of linux/bpf.h since 6.6, so the preprocessor cannot tell whether the header has it: tcx ingress. */
enum { CLAT_BPF_TCX_INGRESS = 46 };
