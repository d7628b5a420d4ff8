import CSeccomp
import ClatBase
import Glibc

/// What a thread that moves strangers' packets gives up before it sees the first one: signals, capabilities, and all system
/// calls but the few that it, the C library and the Swift runtime make on it.
enum PacketThread {
    /// The filter of a thread that moves packets.
    ///
    /// - Parameters:
    ///   - sources: the descriptors that it may read(2).
    ///   - errors: the one descriptor that it may recvmsg(2) from, if any.
    ///   - targets: the descriptors that it may write(2) to. Standard error is one as well, for the runtime's last words.
    static func filter(reading sources: [CInt], errors: CInt? = nil, writing targets: [CInt]) -> SystemCallFilter {
        // Memory that holds code, or shows what a descriptor holds, is not to be had.
        let data = [
            SystemCallFilter.Rule(
                SYS_mmap, .none(argument: 2, PROT_EXEC), .all(argument: 3, MAP_ANONYMOUS | MAP_PRIVATE)),
            SystemCallFilter.Rule(SYS_mprotect, .none(argument: 2, PROT_EXEC)),
        ]
        // poll(2) is another call on each processor.
        var plain = [SYS_ppoll]
        #if arch(x86_64)
            plain.append(SYS_poll)
        #endif
        plain += [
            // The clock where the kernel's page of code does not tell it, locks, memory.
            SYS_clock_gettime, SYS_futex, SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise,
            // The allocator asks how many processors there are before it makes another arena.
            SYS_sched_getaffinity,
            // The signal that wakes the thread; a debugger or SIGSTOP that came in between.
            SYS_rt_sigreturn, SYS_restart_syscall,
            // The thread's end, and the process's.
            SYS_rt_sigprocmask, SYS_exit, SYS_exit_group, SYS_getpid, SYS_gettid,
        ]
        return SystemCallFilter(
            allowing: [
                SystemCallFilter.Rule(SYS_read, .oneOf(argument: 0, sources)),
                SystemCallFilter.Rule(SYS_preadv2, .oneOf(argument: 0, sources)),
                SystemCallFilter.Rule(SYS_write, .oneOf(argument: 0, targets + [STDERR_FILENO])),
            ]
                + (errors.map { [SystemCallFilter.Rule(SYS_recvmsg, .oneOf(argument: 0, [$0]))] } ?? [])
                + plain.map { SystemCallFilter.Rule($0) } + data
                // What abort(3) does.
                + [SystemCallFilter.Rule(SYS_tgkill, .oneOf(argument: 2, [SIGABRT]))],
            // Before it gives memory back the allocator looks into /proc/sys/vm/overcommit_memory.
            denying: [SYS_openat])
    }

    /// Confines the calling thread; throws where the kernel has no filters. The rest is given up nevertheless.
    static func confine(_ filter: SystemCallFilter, wakeSignal: CInt? = nil) throws(SystemError) {
        var signals = sigset_t()
        sigfillset(&signals)
        for number in [wakeSignal, SIGSYS].compactMap({ $0 }) { sigdelset(&signals, number) }
        pthread_sigmask(SIG_SETMASK, &signals, nil)
        try Privileges.keepOnly([])
        try filter.confineThread()
    }
}
