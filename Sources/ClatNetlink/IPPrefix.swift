public import ClatBase

/// A destination of either family: an address and how many of its bits count.
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible {
    /// The bits.
    public let address: IPAddress
    /// 0 to 32 or to 128.
    public let length: Int

    /// Nil where the length is more than the family's.
    public init?(_ address: IPAddress, length: Int) {
        guard (0...address.family.bits).contains(length) else { return nil }
        self.address = address
        self.length = length
    }

    /// One address: /32 or /128.
    public init(_ address: IPAddress) {
        self.address = address
        length = address.family.bits
    }

    /// `0.0.0.0/0` or `::/0`
    public static func any(_ family: AddressFamily) -> IPPrefix {
        IPPrefix(unchecked: family == .ipv4 ? .v4(IPv4Address(rawValue: 0)) : .v6(.unspecified), length: 0)
    }

    private init(unchecked address: IPAddress, length: Int) {
        self.address = address
        self.length = length
    }

    /// `ADDRESS/LENGTH`
    public var description: String { "\(address)/\(length)" }
}

extension RawSpan {
    /// An address that fills the range.
    func address(_ family: AddressFamily, at range: Range<Int>) throws(MalformedMessage) -> IPAddress {
        guard let address = IPAddress(family, bytes: octets(at: range)) else {
            throw .truncated(needed: family.bits / 8, available: range.count)
        }
        return address
    }
}
