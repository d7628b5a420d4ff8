import CLibCap
import CSeccomp
import Glibc

/// A privilege of Linux (capabilities(7)).
public struct Capability: Hashable, Sendable, CustomStringConvertible {
    /// The kernel's number of it.
    public let number: CInt

    /// That one.
    public init(_ number: CInt) { self.number = number }

    /// Links, addresses, routes, the TUN, and eBPF programs at a device.
    public static let netAdmin = Capability(CAP_NET_ADMIN)
    /// Raw sockets, and sockets bound to a device.
    public static let netRaw = Capability(CAP_NET_RAW)
    /// Files that this user may not read by their modes.
    public static let dacReadSearch = Capability(CAP_DAC_READ_SEARCH)
    /// What processes of other users, or with more capabilities, have open.
    public static let sysPtrace = Capability(CAP_SYS_PTRACE)
    /// Network namespaces. bpf(2) takes it for CAP_BPF and CAP_PERFMON, so those are needed beside it by no kernel.
    public static let sysAdmin = Capability(CAP_SYS_ADMIN)

    /// `CAP_NET_ADMIN`; where libcap is older than the capability, its number.
    public var description: String {
        guard let name = cap_to_name(number) else { return "\(number)" }
        defer { cap_free(name) }
        return String(cString: name).uppercased()
    }
}

/// What the calling thread may do beyond what its user may. The kernel keeps that for each thread, and a new thread begins
/// with what its maker has: what is given up before there is a second thread, is given up by all.
public enum Privileges {
    /// Those of `wanted` that the thread does not have.
    public static func missing(of wanted: [Capability]) throws(SystemError) -> [Capability] {
        guard let set = cap_get_proc() else { throw .last("cap_get_proc") }
        defer { cap_free(UnsafeMutableRawPointer(set)) }
        return wanted.filter { capability in
            var flag = CAP_CLEAR
            return cap_get_flag(set, capability.number, CAP_EFFECTIVE, &flag) != 0 || flag != CAP_SET
        }
    }

    /// Gives up all capabilities but those of these that it has, and with them the way to get any back: no program that is started from here has
    /// more (`no_new_privs`), and where the thread may say so (CAP_SETPCAP, which root has), none ever can.
    public static func keepOnly(_ kept: [Capability]) throws(SystemError) {
        try retrying("prctl PR_SET_NO_NEW_PRIVS") { clat_no_new_privileges() }
        for number in 0..<CInt(64) where cap_get_bound(number) == 1 && !kept.contains(Capability(number)) {
            // Without CAP_SETPCAP it stays in the bounding set, out of which no_new_privs lets nothing come.
            guard cap_drop_bound(number) == 0 else { break }
        }
        guard let set = cap_init() else { throw .last("cap_init") }
        defer { cap_free(UnsafeMutableRawPointer(set)) }
        let missing = try missing(of: kept)
        let numbers = kept.filter { !missing.contains($0) }.map(\.number)
        for flag in [CAP_PERMITTED, CAP_EFFECTIVE] where !numbers.isEmpty {
            try retrying("cap_set_flag") { cap_set_flag(set, flag, CInt(numbers.count), numbers, CAP_SET) }
        }
        // What is not inheritable the kernel takes out of the ambient set, too.
        try retrying("cap_set_proc") { cap_set_proc(set) }
    }

    /// Hands those of the thread's capabilities to the program it is about to become: without this, one of another user than
    /// root has none. ``keepOnly(_:)`` takes it back.
    public static func passOn(_ capabilities: [Capability]) throws(SystemError) {
        guard let set = cap_get_proc() else { throw .last("cap_get_proc") }
        defer { cap_free(UnsafeMutableRawPointer(set)) }
        let numbers = capabilities.map(\.number)
        try retrying("cap_set_flag") { cap_set_flag(set, CAP_INHERITABLE, CInt(numbers.count), numbers, CAP_SET) }
        try retrying("cap_set_proc") { cap_set_proc(set) }
        for number in numbers { try retrying("cap_set_ambient") { cap_set_ambient(number, CAP_SET) } }
    }
}
