import Synchronization

/// What the translator did. One thread writes (a load and a store each, no locked instruction); any may read.
public final class TranslatorCounters: Sendable {
    /// What is counted; drops follow after the last of these.
    enum Cell: Int, CaseIterable {
        case outboundPackets, outboundOctets, outboundTCP, outboundUDP, outboundICMP, outboundOther
        case inboundPackets, inboundOctets, inboundTCP, inboundUDP, inboundICMP, inboundOther
        case fragmentsMade, reassembled, errorsToHost, errorsToNetwork, errorsSuppressed
    }

    private let cells: [96 of Atomic<UInt64>]

    /// All zero.
    public init() {
        precondition(Cell.allCases.count + DropReason.allCases.count <= 96)
        cells = InlineArray { _ in Atomic(0) }
    }

    @inline(__always)
    func add(_ amount: UInt64, to cell: Int) {
        cells[cell].store(cells[cell].load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    @inline(__always)
    func add(_ amount: UInt64 = 1, to cell: Cell) { add(amount, to: cell.rawValue) }

    /// Counts a packet sent on.
    @inline(__always)
    func count(outbound: Bool, _ protocolNumber: UInt8, octets: Int) {
        let first = outbound ? Cell.outboundPackets.rawValue : Cell.inboundPackets.rawValue
        add(1, to: first)
        add(UInt64(truncatingIfNeeded: octets), to: first &+ 1)
        switch protocolNumber {
        case IPProtocol.tcp: add(1, to: first &+ 2)
        case IPProtocol.udp: add(1, to: first &+ 3)
        case IPProtocol.icmp, IPProtocol.icmpv6: add(1, to: first &+ 4)
        default: add(1, to: first &+ 5)
        }
    }

    func drop(_ reason: DropReason) { add(1, to: Self.firstDrop + reason.rawValue) }

    /// The cell of the first drop reason: the one after the last of `Cell`.
    private static var firstDrop: Int { Cell.errorsSuppressed.rawValue + 1 }

    /// The values now, each by itself right; together they may be a packet apart.
    public func snapshot() -> TranslatorCounts {
        func value(_ cell: Cell) -> UInt64 { cells[cell.rawValue].load(ordering: .relaxed) }
        var counts = TranslatorCounts()
        counts.outbound = .init(
            packets: value(.outboundPackets), octets: value(.outboundOctets), tcp: value(.outboundTCP),
            udp: value(.outboundUDP), icmp: value(.outboundICMP), other: value(.outboundOther))
        counts.inbound = .init(
            packets: value(.inboundPackets), octets: value(.inboundOctets), tcp: value(.inboundTCP),
            udp: value(.inboundUDP), icmp: value(.inboundICMP), other: value(.inboundOther))
        counts.fragmentsMade = value(.fragmentsMade)
        counts.reassembled = value(.reassembled)
        counts.errorsToHost = value(.errorsToHost)
        counts.errorsToNetwork = value(.errorsToNetwork)
        counts.errorsSuppressed = value(.errorsSuppressed)
        for reason in DropReason.allCases {
            counts.drops[reason.code] = cells[Self.firstDrop + reason.rawValue].load(ordering: .relaxed)
        }
        return counts
    }
}

/// The values of `TranslatorCounters` at one moment.
public struct TranslatorCounts: Hashable, Sendable, Codable {
    /// One direction. A super-packet (TSO, GRO) counts once.
    public struct Direction: Hashable, Sendable, Codable {
        /// IP packets sent on.
        public var packets: UInt64 = 0
        /// Their octets, IP headers as sent included.
        public var octets: UInt64 = 0
        /// Of these packets, TCP.
        public var tcp: UInt64 = 0
        /// Of these packets, UDP.
        public var udp: UInt64 = 0
        /// Of these packets, ICMP and ICMPv6.
        public var icmp: UInt64 = 0
        /// Of these packets, all other protocols.
        public var other: UInt64 = 0
    }
    /// From the host to the uplink.
    public var outbound = Direction()
    /// From the uplink to the host.
    public var inbound = Direction()
    /// Fragments that the translator cut.
    public var fragmentsMade: UInt64 = 0
    /// Packets that the translator put together.
    public var reassembled: UInt64 = 0
    /// ICMP errors made for the host.
    public var errorsToHost: UInt64 = 0
    /// ICMPv6 errors made for the network.
    public var errorsToNetwork: UInt64 = 0
    /// Errors not made because of the rate limit.
    public var errorsSuppressed: UInt64 = 0
    /// Packets refused, by `DropReason.code`; every reason is present.
    public var drops: [String: UInt64] = [:]

    /// Refused for this reason.
    public subscript(reason: DropReason) -> UInt64 { drops[reason.code] ?? 0 }
}
