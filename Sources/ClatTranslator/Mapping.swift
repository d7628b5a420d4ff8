public import ClatBase

/// One CLAT address pair and the PREF64 that its flows use. What the host sends from `ipv4` leaves from `ipv6`.
public struct Mapping: Hashable, Sendable, Codable {
    /// The host's address on the CLAT, of 192.0.0.0/29 (RFC 7335).
    public var ipv4: IPv4Address
    /// The CLAT's address on the uplink.
    public var ipv6: IPv6Address
    /// Where IPv4 destinations are on this uplink.
    public var pref64: PREF64

    /// A mapping of that pair.
    public init(ipv4: IPv4Address, ipv6: IPv6Address, pref64: PREF64) {
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.pref64 = pref64
    }

    /// Whether a TCP or UDP checksum is the same on both sides, whatever the remote address is.
    ///
    /// That is where `ipv6` and the PREF64 together sum to what `ipv4` sums to, and only with lengths 96 and 32: elsewhere
    /// octet 8 shifts the octets of the remote address from high to low places of their words.
    public var isChecksumNeutral: Bool {
        pref64.layout.keepsWords && checksumDelta == 0
    }

    /// What a checksummed sum gains from IPv4 to IPv6, remote addresses left out.
    var checksumDelta: UInt16 {
        Checksum.difference(
            Checksum.words(ipv6.high, ipv6.low) + Checksum.words(pref64.layout.high, pref64.layout.low),
            Checksum.words(UInt64(ipv4.rawValue)))
    }

    /// An address in `prefix` (a /64) whose interface identifier is `identifier`, adapted so that the mapping is
    /// checksum-neutral: octets 12 and 13 are chosen, 48 bits of the identifier remain. Where no choice would do (PREF64
    /// lengths other than 96 and 32) the identifier stays as it is.
    public static func checksumNeutralAddress(
        for ipv4: IPv4Address, pref64: PREF64, prefix: IPv6Prefix, identifier: UInt64
    ) -> IPv6Address {
        let plain = IPv6Address(high: prefix.address.high, low: identifier)
        guard pref64.layout.keepsWords else { return plain }
        let cleared = IPv6Address(high: plain.high, low: plain.low & ~0xffff_0000)
        let word = Checksum.difference(
            Checksum.words(UInt64(ipv4.rawValue)),
            Checksum.words(pref64.layout.high, pref64.layout.low) + Checksum.words(cleared.high, cleared.low))
        return IPv6Address(high: cleared.high, low: cleared.low | UInt64(word) << 16)
    }
}
