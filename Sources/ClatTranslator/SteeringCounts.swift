import CSteering

/// What the programs counted since they were loaded; a super-packet (TSO, GRO) is one packet.
public struct SteeringCounts: Hashable, Sendable {
    /// One direction.
    public struct Direction: Hashable, Sendable {
        /// Translated in the kernel, with octets as `TranslatorCounts` has them. `other` is always zero.
        public var translated: TranslatorCounts.Direction
        /// Left to the translator by the kernel path, and why.
        public var passed: [PassReason: UInt64]
        /// Handed to the TUN.
        public var toTranslator: UInt64
        /// Handed back by the TUN.
        public var fromTranslator: UInt64
    }

    /// Why the kernel path leaves a packet to the translator, as `clat_reason` of clat.h has it, in its order.
    public enum PassReason: String, CaseIterable, Sendable {
        /// IPv4 options, or a length or checksum that is wrong.
        case header
        /// A part of a datagram.
        case fragment
        /// It would not survive, and the sender is to be told.
        case hopLimit = "hop-limit"
        /// Not between a CLAT address and a PREF64, or one that must not be translated.
        case address
        /// Neither TCP nor UDP with a checksum nor echo, or behind extension headers.
        case transport = "protocol"
        /// Larger than the MTU on the other side.
        case size
        /// The kernel had no room for the other header.
        case memory
    }

    /// From the host to the uplink.
    public var outbound: Direction
    /// From the uplink to the host.
    public var inbound: Direction
    /// To a CLAT address, but for the namespace's own stack: neighbour discovery, native echo.
    public var toStack: UInt64
    /// From the host and not untagged IPv4.
    public var ignored: UInt64
    /// Lost in the kernel, for want of memory or because they are too large.
    public var failed: UInt64

    init(_ counts: clat_counts) {
        outbound = Direction(
            translated: .init(counts.packets.0, octets: counts.octets.0), passed: Self.reasons(counts.passed.0),
            toTranslator: counts.to_translator.0,
            fromTranslator: counts.from_translator.0)
        inbound = Direction(
            translated: .init(counts.packets.1, octets: counts.octets.1), passed: Self.reasons(counts.passed.1),
            toTranslator: counts.to_translator.1,
            fromTranslator: counts.from_translator.1)
        toStack = counts.to_stack
        ignored = counts.ignored
        failed = counts.failed
    }

    /// Of the array of a direction, which C hands over as a tuple.
    private static func reasons<Counts>(_ counts: Counts) -> [PassReason: UInt64] {
        withUnsafeBytes(of: counts) {
            Dictionary(uniqueKeysWithValues: zip(PassReason.allCases, $0.assumingMemoryBound(to: UInt64.self)))
        }
    }
}

extension TranslatorCounts.Direction {
    fileprivate init(_ packets: (tcp: UInt64, udp: UInt64, icmp: UInt64), octets: UInt64) {
        self.init(
            packets: packets.tcp + packets.udp + packets.icmp, octets: octets, tcp: packets.tcp, udp: packets.udp,
            icmp: packets.icmp)
    }
}
