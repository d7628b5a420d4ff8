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

    /// Attaches it to that device of the calling thread's network namespace.
    public init(uplink: UInt32) throws(SteeringError) {
        let object = try BPFObjectFile(BPFObjectFile.image(GuardObject.hexadecimal))
        let program = try object.program("guard_uplink")
        let attach = bpf_attach_type(UInt32(CLAT_BPF_TCX_EGRESS))
        let link = try adopt(
            bpf_link_create(program.rawValue, CInt(uplink), attach, nil), "attach an eBPF program by tcx")
        let counter = try object.map("guard_stopped")
        self.link = link
        self.counter = counter
    }

    /// How many it has stopped.
    public var stopped: UInt64 {
        var (key, value) = (UInt32(0), UInt64(0))
        return bpf_map_lookup_elem(counter.rawValue, &key, &value) == 0 ? value : 0
    }
}
