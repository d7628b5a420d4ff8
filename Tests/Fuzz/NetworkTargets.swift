import ClatBase

@testable import ClatAgent
@testable import ClatNetlink
@testable import ClatTranslator

// What comes from the link and from the kernel.

/// Pieces of the input, each behind two octets of length.
private func pieces(_ input: some Collection<UInt8>) -> [[UInt8]] {
    var result: [[UInt8]] = []
    var rest = Array(input)[...]
    while rest.count >= 2 {
        let length = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
        rest = rest.dropFirst(2)
        result.append(Array(rest.prefix(length)))
        rest = rest.dropFirst(length)
    }
    return result
}

extension Target {
    /// Router Advertisements of as many routers, a second after each other, into the knowledge of one link. The first octet
    /// of each piece is the last of the router's address.
    static let advertisement = Target { input in
        var knowledge = LinkKnowledge()
        var now = BootInstant(nanoseconds: 1_000_000_000)
        for piece in pieces(input) {
            now = now + .seconds(1)
            let router = IPv6Address(high: 0xfe80_0000_0000_0000, low: UInt64(piece.first ?? 0) + 1)
            guard
                let heard = try? RouterAdvertisement(message: Array(piece.dropFirst()), from: router, hopLimit: 255)
            else { continue }
            precondition(heard.pref64s.allSatisfy { PREF64($0.prefix.description) == $0.prefix })
            knowledge.hear(heard, now: now)
            precondition(knowledge.routers.count <= LinkKnowledge.routerCapacity)
            precondition(knowledge.prefixes.count <= LinkKnowledge.prefixCapacity)
            precondition(knowledge.rdnss.count <= LinkKnowledge.resolverCapacity)
            precondition(knowledge.pref64s.entries.count <= PREF64Table.capacity)
            knowledge.expire(now: now)
            if let entry = knowledge.pref64s.entries.first {
                _ = knowledge.router(for: entry, now: now)
                _ = knowledge.prefix(for: entry, through: router, current: nil, now: now)
            }
        }
    }

    /// A DNS message.
    static let dns = Target { input in
        guard let answer = try? DNSAnswer(message: input) else { return }
        precondition(answer.addresses.count <= input.count / 16)
        if case .prefixes(let prefixes, let lifetime) = DNSOutcome(answer) {
            precondition(!prefixes.isEmpty && prefixes.count <= answer.addresses.count && lifetime >= 0)
        }
    }

    /// A datagram of the kernel: as notices, and as the answer to each kind of listing.
    static let netlink = Target { input in
        let bytes = input.span.bytes
        var machine = AgentMachine(configuration: Configuration(), secret: [1], ephemeralSecret: [2])
        for notice in Notice.list(bytes) {
            for event in HostMirror.events(notice) { _ = machine.handle(event, now: BootInstant(nanoseconds: 1)) }
        }
        // The sequence number and port that stand in the first message, so that the rest is looked at.
        guard input.count >= 16 else { return }
        func number(_ offset: Int) -> UInt32 { bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self) }
        func take<Value>(_ read: Answer<Value>.Reader) {
            var answer = Answer<Value>(sequence: number(8), port: number(12))
            _ = answer.take(bytes, read)
            precondition(answer.values.count + answer.malformed <= input.count)
        }
        take { (_, bytes, body) throws(MalformedMessage) in try Link(bytes, body) }
        take { (_, bytes, body) throws(MalformedMessage) in try InterfaceAddress(bytes, body) }
        take { (_, bytes, body) throws(MalformedMessage) in try Route(bytes, body) }
        take { (_, bytes, body) throws(MalformedMessage) in try Neighbour(bytes, body) }
        take { (_, bytes, body) throws(MalformedMessage) in try Rule(bytes, body) }
    }

    /// What a raw ICMP socket brings while an echo is awaited; the first octet chooses the IP version.
    static let echo = Target { input in
        _ = Echo.outcome(of: input.dropFirst(), isIPv6: input.first ?? 0 & 1 == 1, about: [0, 1, 0, 2])
    }
}
