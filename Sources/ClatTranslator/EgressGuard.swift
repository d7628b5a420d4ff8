import CLibBpf
import ClatBase
import Glibc

/// An eBPF program at egress of the host's uplink that stops IPv4 and ARP with a source of the CLAT's own.
///
/// It needs tcx (Linux 6.6), where a program goes with the descriptor that attached it: on the host's own device nothing may
/// outlive the process.
public struct EgressGuard: ~Copyable, Sendable {
    private let link: OwnedDescriptor
    private let counter: OwnedDescriptor

    /// The link's, valid as long as this value lives.
    public var descriptor: CInt { link.rawValue }

    /// Attaches it to that device of the calling thread's network namespace, in the place of what `former`, which stays the
    /// caller's, is the link of.
    public init(uplink: UInt32, replacing former: CInt? = nil) throws(SteeringError) {
        let object = try BPFObjectFile(BPFObjectFile.image(GuardObject.hexadecimal))
        let program = try object.program("guard_uplink")
        let attach = bpf_attach_type(UInt32(CLAT_BPF_TCX_EGRESS))
        let counter = try object.map("guard_stopped")
        if let former {
            try checkLink(former, isOn: uplink, attach)
            try check(bpf_link_update(former, program.rawValue, nil), "exchange an eBPF program")
            link = try adopt(fcntl(former, F_DUPFD_CLOEXEC, 3), "duplicate an eBPF link")
        } else {
            link = try adopt(
                bpf_link_create(program.rawValue, CInt(uplink), attach, nil), "attach an eBPF program by tcx")
        }
        self.counter = counter
    }

    /// How many it has stopped.
    public var stopped: UInt64 {
        var (key, value) = (UInt32(0), UInt64(0))
        return bpf_map_lookup_elem(counter.rawValue, &key, &value) == 0 ? value : 0
    }
}
