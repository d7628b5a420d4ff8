import ClatBase
import ClatNetlink
import ClatTranslator

/// Keeps the CLAT's own IPv4 addresses off the wire: 192.0.0.0/29 (RFC 7335) and 192.0.0.8 (RFC 7600), as sources of IPv4 and
/// of ARP.
///
/// The host has 192.0.0.x for the CLAT alone, but an uplink of an IPv6-only network has no other, so the kernel takes it for
/// whatever a program forces out of there, and answers ARP for it on every link. It stands at egress of the host's own device, and
/// goes with the process, however that ends. It outlasts the CLAT for a while, as `GuardTimer` tells.
final class UplinkGuard {
    private enum Way: ~Copyable {
        /// By an eBPF program.
        case program(EgressGuard)
        /// By a table of nftables that is ours alone, where the kernel has no tcx (before Linux 6.6) or refuses eBPF.
        case table(EgressTable)
        /// By what a process before this one has set up, and this one cannot replace.
        case inherited(OwnedDescriptor)
    }

    private let way: Way

    /// Sets it up on that device of the calling thread's network namespace, in the place of one that was inherited; in words why
    /// neither can be had.
    init(uplink: UInt32, name: String, inherited: consuming OwnedDescriptor? = nil) throws(Instance.Failure) {
        let refusal: SteeringError
        do throws(SteeringError) {
            way = .program(try EgressGuard(uplink: uplink, replacing: inherited?.rawValue))
            return
        } catch { refusal = error }
        if let inherited = consume inherited {
            way = .inherited(inherited)
            return
        }
        do throws(NetlinkError) {
            let sources = [(IPv4Address(192, 0, 0, 0), 29), (IPv4Address(192, 0, 0, 8), 32)]
            way = .table(
                try EgressTable(
                    named: "clat-agent-\(uplink)", device: name,
                    sources: sources.compactMap { IPPrefix(.v4($0), length: $1) }))
        } catch {
            throw Instance.Failure(
                description:
                    "a program that forces IPv4 out of \(name) can show 192.0.0.x there, as this kernel has neither of two guards "
                    + "(\(refusal); \(error))")
        }
    }

    /// How many packets it has stopped, where it can tell.
    var stopped: UInt64? {
        switch way {
        case .program(let program): program.stopped
        case .table: nil
        case .inherited: nil
        }
    }

    /// What keeps it, for the process that comes next.
    var descriptor: CInt {
        switch way {
        case .program(let program): program.descriptor
        case .table(let table): table.descriptor
        case .inherited(let descriptor): descriptor.rawValue
        }
    }
}
