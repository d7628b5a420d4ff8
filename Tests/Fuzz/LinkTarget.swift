import ClatBase

@testable import ClatAgent
@testable import ClatTranslator

/// Traps where what is known of a link is not as it must be, whatever was told.
private func check(_ link: LinkKnowledge, now: BootInstant) {
    precondition(link.routers.count <= LinkKnowledge.routerCapacity)
    precondition(link.prefixes.count <= LinkKnowledge.prefixCapacity)
    precondition(link.rdnss.count <= LinkKnowledge.resolverCapacity && link.routes.count <= LinkKnowledge.routeCapacity)
    precondition(link.pref64s.entries.count <= PREF64Table.capacity)
    precondition(link.dns.resolvers.count <= DNSDiscovery.capacity)
    precondition(
        link.pref64s.choose(current: nil).map { link.pref64s.entries.contains($0) } ?? link.pref64s.entries.isEmpty)
    for entry in link.pref64s.entries {
        let address = entry.prefix.prefix.address
        precondition(!address.isMulticast && !address.isLinkLocal)
        precondition([32, 40, 48, 56, 64, 96].contains(entry.prefix.prefix.length))
        precondition(entry.expires.map { $0 > now } ?? false, "one that has run out, or never does")
        if let router = link.router(for: entry, now: now) {
            precondition(router.expires > now && router.address.isLinkLocal)
            if let prefix = link.prefix(for: entry, through: router.address, current: nil, now: now) {
                precondition(prefix.prefix.length == 64 && !prefix.prefix.address.isLinkLocal)
            }
        }
    }
    precondition(link.nextChange(after: now).map { $0 > now } ?? true)
}

extension Target {
    /// A history of one link: an octet that says what happens, two octets of length, and that many octets of a Router
    /// Advertisement or of a resolver's answer; or that many seconds.
    static let link = Target { input in
        var rest = input[...]
        var link = LinkKnowledge()
        var now = BootInstant(nanoseconds: 1_000_000_000)
        var questions: [DNSQuestion] = []
        while let kind = rest.popFirst(), let high = rest.popFirst(), let low = rest.popFirst() {
            let length = Int(high) << 8 | Int(low)
            let octets = kind & 7 < 6 ? Array(rest.prefix(length)) : []
            rest = rest.dropFirst(octets.count)
            switch kind & 7 {
            case 0...3:
                let router = IPv6Address(high: 0xfe80_0000_0000_0000, low: UInt64(kind >> 4 & 3))
                guard let advertisement = try? RouterAdvertisement(message: octets, from: router, hopLimit: 255) else {
                    continue
                }
                link.hear(advertisement, now: now)
            case 4, 5:
                // Identity and question are right, without which it would be nobody's answer.
                let message = octets.prefix(12) + DNSAnswer.question + octets.dropFirst(12)
                guard octets.count >= 12, let answer = try? DNSAnswer(message: Array(message)),
                    let question = questions.popLast()
                else { continue }
                _ = link.take(DNSOutcome(answer), of: question, jitter: 0, now: now)
            case 6: now = now + .seconds(length)
            default: link.beginDoubt(now: now)
            }
            link.expire(now: now)
            _ = link.takeRefresh(now: now)
            questions += link.dns.questions(isWanted: true, now: now)
            check(link, now: now)
        }
    }
}
