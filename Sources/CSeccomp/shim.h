#pragma once
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whose numbers of system calls a filter is about; 0 where it has not been tried. */
static inline unsigned clat_audit_arch(void) {
#if defined(__x86_64__) && !defined(__ILP32__)
	return AUDIT_ARCH_X86_64;
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
	return AUDIT_ARCH_AARCH64;
#else
	return 0;
#endif
}

/* Calls with any number of arguments, which the importer cannot see. */
static inline int clat_no_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
static inline int clat_seccomp_filter(struct sock_fprog *program, unsigned flags) {
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
}
