public import ClatBase
import Glibc

/// How duplicate address detection (RFC 4862 section 5.4) ended.
public enum DADOutcome: Hashable, Sendable {
    /// No one else has the address; it is in use.
    case preferred
    /// Another node has the address.
    case duplicate
    /// The address or its link is gone.
    case vanished
    /// Not ended at the deadline.
    case timedOut
}

extension NetlinkMonitor {
    /// Waits until DAD of an address has ended. For programs that have nothing else to do: other notices are lost.
    ///
    /// The monitor must listen to addresses, and have been opened before the address was added: the kernel deletes an
    /// address with a limited lifetime when it is a duplicate, and only the notice of the deletion then tells why.
    ///
    /// - Parameter socket: a socket of the same namespace, to see how the address stands.
    public mutating func waitForDAD(
        of address: IPv6Address, on index: UInt32, checking socket: inout NetlinkSocket, until deadline: BootInstant
    ) throws(NetlinkError) -> DADOutcome {
        while true {
            if try readsDuplicate(address, index) { return .duplicate }
            let found = try socket.addresses(.ipv6, on: index).first { $0.address == .v6(address) }
            guard let found else {
                // It may have gone between the notices and the list.
                return try readsDuplicate(address, index) ? .duplicate : .vanished
            }
            if found.flags.contains(.dadFailed) { return .duplicate }
            if !found.flags.contains(.tentative) { return .preferred }
            if try !wait(until: deadline) { return .timedOut }
        }
    }

    /// Reads the notices there are; true where one says that the address is a duplicate.
    private mutating func readsDuplicate(_ address: IPv6Address, _ index: UInt32) throws(NetlinkError) -> Bool {
        var duplicate = false
        while let notice = try next() {
            guard case .address(let heard, _) = notice, heard.index == index, heard.address == .v6(address) else {
                continue
            }
            duplicate = heard.flags.contains(.dadFailed)
        }
        return duplicate
    }
}
