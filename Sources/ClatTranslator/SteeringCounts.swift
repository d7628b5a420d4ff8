import CSteering

/// What the programs counted since they were loaded; a super-packet (TSO, GRO) is one packet.
public struct SteeringCounts: Hashable, Sendable {
    /// One direction.
    public struct Direction: Hashable, Sendable {
        /// Translated in the kernel, with octets as `TranslatorCounts` has them. `other` is always zero.
        public var translated: TranslatorCounts.Direction
        /// Handed to the TUN.
        public var toTranslator: UInt64
        /// Handed back by the TUN.
        public var fromTranslator: UInt64
    }

    /// From the host to the uplink.
    public var outbound: Direction
    /// From the uplink to the host.
    public var inbound: Direction
    /// To a CLAT address, but for the namespace's own stack: neighbour discovery, native echo.
    public var toStack: UInt64
    /// From the host and not IPv4.
    public var ignored: UInt64
    /// Lost in the kernel for want of memory.
    public var failed: UInt64

    init(_ counts: clat_counts) {
        outbound = Direction(
            translated: .init(counts.packets.0, octets: counts.octets.0), toTranslator: counts.to_translator.0,
            fromTranslator: counts.from_translator.0)
        inbound = Direction(
            translated: .init(counts.packets.1, octets: counts.octets.1), toTranslator: counts.to_translator.1,
            fromTranslator: counts.from_translator.1)
        toStack = counts.to_stack
        ignored = counts.ignored
        failed = counts.failed
    }
}

extension TranslatorCounts.Direction {
    fileprivate init(_ packets: (tcp: UInt64, udp: UInt64, icmp: UInt64), octets: UInt64) {
        self.init(
            packets: packets.tcp + packets.udp + packets.icmp, octets: octets, tcp: packets.tcp, udp: packets.udp,
            icmp: packets.icmp)
    }
}
