public import ClatBase

/// A NAT64 prefix (RFC 6052 section 2.2): how an IPv4 address is written as an IPv6 address on this network.
///
/// The four octets follow the prefix, and step over octet 8, which is zero; what is left after them (the suffix) is zero
/// when written and ignored when read.
///
///     length   32       40         48         56         64         96
///     octets   4 to 7   5 to 7, 9  6, 7, 9, 10  7, 9 to 11  9 to 12    12 to 15
public struct PREF64: Hashable, Sendable, TextCodable {
    /// The prefix.
    public let prefix: IPv6Prefix
    let layout: EmbeddingLayout

    /// Nil where the length is none of 32, 40, 48, 56, 64 and 96, or where the prefix is of a kind that no router forwards:
    /// multicast, link-local, loopback, unspecified, IPv4-mapped.
    public init?(_ prefix: IPv6Prefix) {
        guard [32, 40, 48, 56, 64, 96].contains(prefix.length), !prefix.address.isMulticast,
            !prefix.address.isLinkLocal, prefix.address != .unspecified,
            prefix.address != IPv6Address(high: 0, low: 0xffff_0000_0000)
        else { return nil }
        self.init(unchecked: prefix)
    }

    private init(unchecked prefix: IPv6Prefix) {
        self.prefix = prefix
        layout = EmbeddingLayout(high: prefix.address.high, low: prefix.address.low, length: prefix.length)
    }

    /// `ADDRESS/LENGTH`; nil for anything else.
    public init?(_ description: String) {
        guard let prefix = IPv6Prefix(description) else { return nil }
        self.init(prefix)
    }

    /// 64:ff9b::/96 (RFC 6052 section 2.1).
    public static let wellKnown = PREF64(unchecked: IPv6Prefix(IPv6Address(high: 0x64_ff9b_0000_0000, low: 0), 96))

    /// 32, 40, 48, 56, 64 or 96.
    public var length: Int { prefix.length }

    /// `ADDRESS/LENGTH`
    public var description: String { prefix.description }

    /// The IPv6 address that stands for an IPv4 address; suffix zero.
    public func embed(_ address: IPv4Address) -> IPv6Address {
        let (high, low) = layout.embed(address.rawValue)
        return IPv6Address(high: high, low: low)
    }

    /// The IPv4 address in an IPv6 address; nil outside the prefix and, for lengths below 96, where octet 8 is not zero.
    public func extract(_ address: IPv6Address) -> IPv4Address? {
        layout.extract(address.high, address.low).map(IPv4Address.init(rawValue:))
    }
}

extension IPv6Prefix {
    fileprivate init(_ address: IPv6Address, _ length: Int) {
        guard let prefix = IPv6Prefix(address, length: length) else { preconditionFailure("not a prefix length") }
        self = prefix
    }
}

/// The arithmetic of a PREF64 on plain numbers, for the packet path.
struct EmbeddingLayout: Hashable, Sendable {
    let high: UInt64
    let low: UInt64
    /// The bits of `high` that belong to the prefix.
    let mask: UInt64
    /// How many bits of the IPv4 address lie past octet 8: length - 32. Of no meaning for 96.
    let spill: UInt64
    /// The IPv4 address is the last four octets, nothing is skipped.
    let isLast: Bool

    init(high: UInt64, low: UInt64, length: Int) {
        self.high = high
        self.low = low
        isLast = length == 96
        mask = length >= 64 ? .max : ~(.max >> UInt64(length))
        spill = isLast ? 0 : UInt64(length - 32)
    }

    /// The words of the IPv4 address stay words of the IPv6 address, so that their sum does not depend on the address.
    var keepsWords: Bool { isLast || spill == 0 }

    @inline(__always)
    func embed(_ ipv4: UInt32) -> (high: UInt64, low: UInt64) {
        let bits = UInt64(ipv4)
        if isLast { return (high, low | bits) }
        return (high | bits &>> spill, (bits & ((1 &<< spill) &- 1)) &<< (56 &- spill))
    }

    @inline(__always)
    func extract(_ high: UInt64, _ low: UInt64) -> UInt32? {
        if isLast {
            guard high == self.high, (low ^ self.low) >> 32 == 0 else { return nil }
            return UInt32(truncatingIfNeeded: low)
        }
        guard high & mask == self.high, low >> 56 == 0 else { return nil }
        let bits = (high & ~mask) &<< spill | (low &>> (56 &- spill)) & ((1 &<< spill) &- 1)
        return UInt32(truncatingIfNeeded: bits)
    }
}
