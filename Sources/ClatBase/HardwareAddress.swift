/// A 48-bit Ethernet address, octet 0 in bits 47 to 40.
public struct HardwareAddress: RawRepresentable, Hashable, Sendable, Codable, CustomStringConvertible {
    /// The address as a number below 2^48.
    public let rawValue: UInt64

    /// The address of that number, cut to 48 bits.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue & 0xffff_ffff_ffff
    }

    /// Six octets in transmission order; nil for any other count (links that are not Ethernet have other lengths).
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 6 else { return nil }
        rawValue = bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A locally administered unicast address (IEEE 802), otherwise by chance.
    public static func random() -> HardwareAddress {
        HardwareAddress(rawValue: .random(in: .min ... .max) & ~(0b11 << 40) | 0b10 << 40)
    }

    /// The six octets in transmission order.
    public var bytes: [UInt8] {
        (0..<6).map { UInt8(truncatingIfNeeded: rawValue >> (40 - 8 * $0)) }
    }

    /// Lower-case, colon-separated.
    public var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}
