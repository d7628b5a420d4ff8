import ClatBase

@testable import ClatTranslator

/// What became of one case, and why we refused what we did.
struct DifferentialOutcome {
    let one: DifferentialCase
    let ours: [[UInt8]]
    let theirs: [[UInt8]]
    let reasons: Set<String>

    /// The packet that tells most about the case.
    var input: Datagram { one.packets.map(Datagram.init).first { !$0.isLater } ?? Datagram(one.packets[0]) }
    var isTrain: Bool { one.packets.count > 1 }
    var translated: [Datagram] { ours.map(Datagram.init).filter { $0.isIPv4 != input.isIPv4 } }
    /// Types and codes of the errors that went back.
    func answers(_ packets: [[UInt8]]) -> [[UInt8]] {
        packets.map(Datagram.init).filter { $0.isIPv4 == input.isIPv4 }.map { Array($0.payload.prefix(2)) }
    }
    var ourAnswers: [[UInt8]] { answers(ours) }
    var theirAnswers: [[UInt8]] { answers(theirs) }
    var theyTranslate: Bool { !theirs.isEmpty && theirs.allSatisfy { Datagram($0).isIPv4 != input.isIPv4 } }
}

/// A packet as the comparison sees it; it may be broken.
struct Datagram {
    var octets: [UInt8]
    var isIPv4: Bool { octets[0] >> 4 != 6 }
    private(set) var number: UInt8 = 0
    private(set) var start = 0
    private(set) var hasFragmentHeader = false
    private(set) var hasSegmentsLeft = false
    /// A fragment other than the first.
    private(set) var isLater = false
    private(set) var isFragment = false

    init(_ octets: [UInt8]) {
        self.octets = octets
        if isIPv4 {
            start = octets.count
            guard octets.count >= 20 else { return }
            number = octets[9]
            start = min(octets.count, Int(octets[0] & 15) * 4)
            isFragment = word(octets, 6) & 0x3fff != 0
            isLater = word(octets, 6) & 0x1fff != 0
        } else {
            start = octets.count
            guard octets.count >= 40 else { return }
            (number, start) = (octets[6], 40)
            while [0, 43, 44, 60].contains(number), start + 8 <= octets.count {
                if number == 44 {
                    hasFragmentHeader = true
                    isFragment = word(octets, start + 2) & 0xfff9 != 0
                    isLater = word(octets, start + 2) & 0xfff8 != 0
                }
                if number == 43, octets[start + 3] != 0 { hasSegmentsLeft = true }
                let length = number == 44 ? 8 : Int(octets[start + 1]) * 8 + 8
                (number, start) = (octets[start], min(octets.count, start + length))
            }
        }
    }

    var payload: ArraySlice<UInt8> { octets[start...] }
    var hopLimit: UInt8 { octets[isIPv4 ? 8 : 7] }
    var source: ArraySlice<UInt8> { isIPv4 ? octets[12..<16] : octets[8..<24] }
    var isICMP: Bool { number == (isIPv4 ? 1 : 58) }
    /// An ICMP error with a packet in it.
    var isError: Bool {
        guard isICMP, !isFragment, payload.count >= 28, let type = payload.first else { return false }
        return isIPv4 ? [3, 4, 5, 11, 12].contains(type) : type < 128
    }
    var quoted: Datagram? { isError ? Datagram(Array(octets[(start + 8)...])) : nil }
    /// Type, code.
    var icmp: [UInt8] { Array(payload.prefix(2)) }

    /// Where the checksum is, of what has one; nothing in later fragments.
    var checksumField: Int? {
        guard !isLater, let offset = [6: 16, 17: 6, 33: 6, 136: 6][number], payload.count >= offset + 2 else {
            return nil
        }
        return start + offset
    }
    var hasOptionalChecksum: Bool { number == 33 || number == 136 }

    /// IPv4 header checksum as it must be, after a change.
    mutating func repair() {
        guard isIPv4, octets.count >= 20 else { return }
        put(0, 10, &octets)
        put(~slowSum(Array(octets[..<20])), 10, &octets)
    }

    mutating func set(_ value: UInt16, at offset: Int) {
        put(value, offset, &octets)
        repair()
    }
}

extension Datagram {
    static let dummy = IPv4Address(192, 0, 0, 8).bytes

    /// Without what the RFCs leave open: the identification that was not given by a Fragment header, and in errors of the
    /// translator's own all but type, code, second word and the quoted header.
    func canonical(_ input: Datagram) -> [UInt8] {
        var packet = self
        if isIPv4 == input.isIPv4 {
            let quote = start + 8
            return Array(octets[start..<min(start + 2, octets.count)] + octets.dropFirst(start + 4).prefix(4))
                + octets.dropFirst(quote).prefix(isIPv4 ? 28 : 48)
        }
        if isIPv4, !input.hasFragmentHeader { packet.set(0, at: 4) }
        return packet.octets
    }

    /// The same with another packet in the error, whose checksum, if it was right, is so again.
    func quoting(_ inner: Datagram) -> Datagram {
        var result = self
        result.octets.replaceSubrange((start + 8)..., with: inner.octets)
        put(isIPv4 ? UInt16(result.octets.count) : UInt16(result.octets.count - 40), isIPv4 ? 2 : 4, &result.octets)
        let pseudo = isIPv4 ? [] : Array(octets[8..<40]) + long(octets.count - 40) + [0, 0, 0, 58]
        let wasRight = slowSum(pseudo + payload) == 0xffff
        put(0, start + 2, &result.octets)
        let newPseudo = isIPv4 ? [] : Array(octets[8..<40]) + long(result.octets.count - 40) + [0, 0, 0, 58]
        put(wasRight ? ~slowSum(newPseudo + result.payload) : 0xdead, start + 2, &result.octets)
        result.repair()
        return result
    }
}

/// A difference that is expected: its name is in docs/conformance.md, with the reason.
struct DifferenceClass {
    let name: String
    /// Brings an output of TAYGA's and one of ours together, where they differ in this way.
    var settle: (@Sendable (_ packet: inout Datagram, _ isOurs: Bool, _ input: Datagram) -> Void)?
    /// Whether a whole outcome is of this kind.
    var matches: (@Sendable (DifferentialOutcome) -> Bool)?

    /// Differences within a packet. Any number of them may come together.
    static let details: [DifferenceClass] = [
        .init(name: "dont-fragment") { packet, isOurs, input in
            guard !isOurs else { return }
            func correct(_ packet: inout Datagram) {
                guard packet.isIPv4, packet.octets.count >= 20, !packet.isFragment else { return }
                packet.set(word(packet.octets, 2) > 1260 ? 0x4000 : 0, at: 6)
            }
            if packet.isIPv4, var inner = packet.quoted {
                correct(&inner)
                packet = packet.quoting(inner)
            }
            if !input.hasFragmentHeader { correct(&packet) }
        },
        .init(name: "optional-checksums") { packet, _, _ in
            if let field = packet.checksumField, packet.hasOptionalChecksum { packet.set(0, at: field) }
            if var inner = packet.quoted, inner.hasOptionalChecksum, let field = inner.checksumField {
                inner.set(0, at: field)
                packet = packet.quoting(inner)
            }
        },
        .init(name: "error-length") { packet, isOurs, _ in
            guard isOurs, packet.isIPv4, packet.octets.count > 576, var inner = packet.quoted else { return }
            inner.octets.removeLast(packet.octets.count - 576)
            packet = packet.quoting(inner)
        },
        .init(name: "error-source") { packet, isOurs, _ in
            guard !isOurs, packet.isIPv4, packet.isError, packet.source.elementsEqual(Tayga.ipv4.bytes) else { return }
            packet.octets.replaceSubrange(12..<16, with: Datagram.dummy)
            packet.repair()
        },
        .init(name: "illegal-error-source") { packet, _, _ in
            guard packet.isIPv4, packet.isError else { return }
            if isIllegal(Array(packet.source)) {
                packet.octets.replaceSubrange(12..<16, with: Datagram.dummy)
                packet.repair()
            }
        },
    ]

    /// Differences of what becomes of a packet. The first that fits counts.
    static let outcomes: [DifferenceClass] = [
        // What we refuse and TAYGA does not, or not in that way.
        refusal("source-route", [[3, 5]]) { $0.theyTranslate || $0.theirs.isEmpty },
        refusal("routing-header", [[4, 0]]) { $0.theyTranslate || $0.theirs.isEmpty },
        refusal("destination-reserved", [[3, 13]]) { $0.theirs.isEmpty },
        refusal("destination-reserved", []) { $0.theyTranslate },
        refusal("destination-continuity", [[3, 13]]) { $0.theyTranslate || $0.theirs.isEmpty },
        refusal("destination-own", []) { $0.theyTranslate },
        refusal("source-ipv4-illegal", []) { $0.theyTranslate || $0.theirAnswers.allSatisfy { $0 == [1, 5] } },
        refusal("source-own", []) { $0.theirAnswers.allSatisfy { $0 == [1, 5] } },
        refusal("source-outside", [[1, 1]]) { $0.theirAnswers.allSatisfy { $0 == [1, 5] } },
        refusal("native-icmpv6", []) { $0.theirAnswers.allSatisfy { $0 == [1, 5] } },
        refusal("destination-not-ours", []) { $0.theirAnswers == [[1, 0]] },
        refusal("path-mtu-too-small", []) { $0.theyTranslate },
        refusal("fragment-extension", []) { $0.theyTranslate },
        refusal("protocol-untranslatable", [[3, 13]]) { $0.theyTranslate },
        refusal("protocol-untranslatable", []) { $0.theyTranslate },
        refusal("igmp", []) { $0.theyTranslate },
        refusal("embedded-untranslatable", []) { $0.theyTranslate },
        .init(
            name: "quoted-fragment-extension",
            matches: {
                $0.reasons == ["embedded-invalid"] && $0.ours.isEmpty && $0.theyTranslate
                    && $0.input.quoted?.hasFragmentHeader == true && $0.input.quoted?.number == 51
            }),
        .init(
            name: "ttl-zero",
            matches: {
                $0.reasons == ["ttl-expired"] && $0.input.hopLimit == 0 && $0.ourAnswers == [[11, 0]]
                    && $0.theirs.isEmpty
            }),
        .init(
            name: "later-fragment-error",
            matches: {
                $0.isTrain && $0.ours.count == 1 && $0.theirs.count == 2 && $0.ourAnswers.count == 1
                    && $0.theirAnswers == $0.ourAnswers + $0.ourAnswers
            }),
        .init(
            name: "expired-icmp",
            matches: {
                $0.reasons == ["ttl-expired"] && $0.input.isICMP && ($0.isTrain || $0.input.icmp == [0, 0])
                    && $0.ourAnswers == [[11, 0]] && $0.theirs.isEmpty
            }),
        .init(
            name: "order-of-checks",
            matches: {
                if $0.input.isIPv4 {
                    return !$0.reasons.isEmpty && $0.translated.isEmpty && $0.theirAnswers == [[3, 4]]
                }
                return $0.input.hopLimit <= 1 && !$0.reasons.isEmpty && $0.ours.isEmpty
                    && $0.theirAnswers.allSatisfy { $0 == [3, 0] }
            }),
        // What we translate and TAYGA does not.
        .init(
            name: "last-hop-limit",
            matches: {
                !$0.input.isIPv4 && $0.input.hopLimit <= 1 && !$0.ours.isEmpty && $0.translated.count == $0.ours.count
                    && $0.translated.allSatisfy { $0.hopLimit == 1 } && $0.theirAnswers.allSatisfy { $0 == [3, 0] }
                    && $0.theirAnswers.count == $0.theirs.count
            }),
        .init(name: "fragmented-echo", matches: { $0.isTrain && $0.input.isICMP && weAlone($0) }),
        .init(
            name: "udp-checksum-zero",
            matches: {
                !$0.isTrain && $0.input.isIPv4 && $0.input.number == 17
                    && word($0.input.octets, $0.input.start + 6) == 0
                    && weAlone($0)
            }),
        .init(
            name: "udp-checksum-zero-fragments",
            matches: {
                $0.isTrain && $0.input.isIPv4 && $0.input.number == 17 && word($0.input.octets, $0.input.start + 6) == 0
                    && $0.translated.count == $0.ours.count && $0.theirs.allSatisfy { Datagram($0).isLater }
            }),
        .init(
            name: "later-fragment-first",
            matches: {
                $0.isTrain && $0.input.isIPv4 && $0.input.number == 17 && Datagram($0.one.packets[0]).isLater
                    && isSamePacket($0.ours, $0.theirs)
            }),
        .init(
            name: "options-size",
            matches: {
                $0.input.isIPv4 && $0.input.start > 20 && word($0.input.octets, 2) + 20 > Tayga.mtu
                    && !$0.ours.isEmpty && $0.translated.count == $0.ours.count
                    && ($0.theirAnswers == [[3, 4]] || $0.theirs.isEmpty && $0.input.isICMP)
            }),
        .init(
            name: "fragment-size",
            matches: {
                guard $0.isTrain, $0.input.isIPv4, word($0.input.octets, 6) & 0x4000 != 0 else { return false }
                return $0.reasons.contains("ipv4-too-big") && $0.theyTranslate
                    || $0.ours.contains { $0.count > 1280 } && isSamePacket($0.ours, $0.theirs)
            }),
        error("parameter-problem") {
            $0.icmp == [12, 0] || $0.icmp == [12, 2] || $0.icmp == [4, 0] || $0.icmp == [4, 1]
        },
        error("error-from-outside") { packet in
            guard !packet.isIPv4, packet.icmp[0] != 2 || packet.source.starts(with: [0xfe, 0x80]) else {
                return false
            }
            let remote = Tayga.pref64.extract(IPv6Address(bytes: packet.source) ?? .unspecified)
            return remote == nil || isIllegal(remote?.bytes ?? [])
        },
        error("unreachable-address") { !$0.isIPv4 && $0.icmp == [1, 3] },
        .init(
            name: "quoted-fragment",
            matches: {
                $0.input.quoted.map { $0.hasFragmentHeader || $0.isFragment } == true && $0.translated.count == 1
                    && ($0.theirs.isEmpty || $0.theyTranslate)
            }),
        error("quoted-udp-checksum-zero") {
            guard let quoted = $0.quoted, quoted.number == 17, quoted.payload.count >= 8 else { return false }
            return word(quoted.octets, quoted.start + 6) == 0
        },
        error("quoted-tcp-start") { $0.quoted?.number == 6 && $0.quoted.map { $0.payload.count < 18 } == true },
        error("quoted-echo-reply") { $0.quoted?.isICMP == true && [0, 129].contains($0.quoted?.icmp.first) },
        .init(
            name: "extension-structure",
            matches: {
                $0.input.isError && $0.input.octets[$0.input.start + ($0.input.isIPv4 ? 5 : 4)] > 0
                    && $0.translated.count == 1 && $0.theyTranslate
            }),
    ]

    /// An IPv4 source that nobody can have.
    private static func isIllegal(_ address: [UInt8]) -> Bool {
        address[0] == 0 || address[0] == 127 || address[0] >= 224 || address.starts(with: [169, 254])
    }

    /// A refusal of ours, and what we answer.
    private static func refusal(
        _ reason: String, _ answers: [[UInt8]], _ others: @escaping @Sendable (DifferentialOutcome) -> Bool
    ) -> DifferenceClass {
        .init(
            name: reason,
            matches: { outcome in
                outcome.reasons == [reason] && outcome.ours.count == answers.count && outcome.ourAnswers == answers
                    && others(outcome)
            })
    }

    /// An ICMP error that we translate alone.
    private static func error(_ name: String, _ isSuch: @escaping @Sendable (Datagram) -> Bool) -> DifferenceClass {
        .init(name: name, matches: { $0.input.isError && weAlone($0) && isSuch($0.input) })
    }

    private static func weAlone(_ outcome: DifferentialOutcome) -> Bool {
        !outcome.ours.isEmpty && outcome.translated.count == outcome.ours.count && outcome.theirs.isEmpty
    }

    /// Whether both are IPv6 fragments of the same packet, but for optional checksums.
    private static func isSamePacket(_ left: [[UInt8]], _ right: [[UInt8]]) -> Bool {
        func whole(_ packets: [[UInt8]]) -> [UInt8]? {
            guard var result = reassembled(packets) else { return nil }
            if result[6] == 33 || result[6] == 136 { put(0, 46, &result) }
            return result
        }
        return whole(left) != nil && whole(left) == whole(right)
    }
}
