import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

/// `ipv4only.arpa` AAAA IN behind an answer's header with these flags and counts of answers and authorities.
func dnsHeader(_ flags: String = "8180", answers: Int = 0, authorities: Int = 0) -> String {
    "1234 \(flags) 0001 00\(hexadecimal(UInt8(answers))) 00\(hexadecimal(UInt8(authorities))) 0000"
        + "08 69707634 6f6e6c79 04 61727061 00 001c 0001"
}

/// One AAAA record of the question's name.
func aaaa(_ address: String, ttl: UInt8 = 60) -> String {
    let bytes = IPv6Address(address)?.bytes.map(hexadecimal).joined() ?? ""
    return "c00c 001c 0001 000000\(hexadecimal(ttl)) 0010" + bytes
}

/// An SOA record of `arpa` with TTL 3600 and minimum 900.
let soa = "04 61727061 00 0006 0001 00000e10 0016 00 00 00000001 00000e10 00000258 00015180 00000384"

func hexadecimal(_ octet: UInt8) -> String { (octet < 16 ? "0" : "") + String(octet, radix: 16) }

func answer(_ message: String) throws(DNSProblem) -> DNSAnswer { try DNSAnswer(message: octets(message)) }

@Suite("Answers for ipv4only.arpa")
struct DNSAnswerTests {
    @Test(
        "a prefix of every length is found, from both addresses and from either",
        arguments: [
            ("2001:db8::/32", "2001:db8:c000:aa::", "2001:db8:c000:ab::"),
            ("2001:db8:100::/40", "2001:db8:1c0:0:aa::", "2001:db8:1c0:0:ab::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:0:aa00::", "2001:db8:122:c000:0:ab00::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:aa::", "2001:db8:122:3c0:0:ab::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:0:aa00:0", "2001:db8:122:344:c0:0:ab00:0"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:aa", "2001:db8:122:344::c000:ab"),
            ("64:ff9b::/96", "64:ff9b::c000:aa", "64:ff9b::c000:ab"),
            // 192.0.0.170 where a /32 would have it: the search of RFC 7050 section 3 finds it once in the second address.
            ("2001:db8:c000:aa::/96", "2001:db8:c000:aa::c000:aa", "2001:db8:c000:aa::c000:ab"),
            ("2001:db8:c000:ab::/96", "2001:db8:c000:ab::c000:aa", "2001:db8:c000:ab::c000:ab"),
            // A suffix that ought to be zero.
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:0:aa00:1", "2001:db8:122:344:c0:0:ab00:1"),
        ])
    func lengths(prefix: String, first: String, second: String) throws {
        let (first, second) = (try #require(IPv6Address(first)), try #require(IPv6Address(second)))
        for addresses in [[first, second], [second, first], [first], [second], [first, first]] {
            #expect(PREF64.discovered(in: addresses).map(\.description) == [prefix])
        }
    }

    @Test("20,000 random prefixes come back as they were")
    func random() throws {
        var random = SeededRandom(seed: 7050)
        for _ in 0..<20_000 {
            let length = [32, 40, 48, 56, 64, 96].randomElement(using: &random) ?? 96
            // Half of them full of what is looked for.
            let pool: [UInt8] = [0xc0, 0, 0, 0xaa, 0xab, 0]
            var bytes = (0..<16).map { _ in
                Bool.random(using: &random)
                    ? pool.randomElement(using: &random) ?? 0 : .random(in: 0...255, using: &random)
            }
            bytes[0] = 0x20
            bytes[8] = 0
            let prefix = try #require(
                IPv6Address(bytes: bytes).flatMap { IPv6Prefix($0, length: length) }.flatMap(PREF64.init))
            let addresses = [170, 171].map { prefix.embed(IPv4Address(192, 0, 0, $0)) }
            #expect(PREF64.discovered(in: addresses) == [prefix])
        }
    }

    @Test(
        "what no DNS64 made is no prefix",
        arguments: [
            [], ["2001:db8::1"], ["::c000:aa"], ["::ffff:192.0.0.170"], ["fe80::c000:aa"], ["ff0e::c000:aa"], ["::"],
            ["2001:db8::c000:ac"], ["2001:db8:0:0:1c0:0:aa00:0"],
            // Two prefixes, neither of which both addresses give.
            ["2001:db8:1::c000:aa", "2001:db8:2::c000:ab"],
        ])
    func nothing(addresses: [String]) throws {
        #expect(PREF64.discovered(in: addresses.compactMap(IPv6Address.init)) == [])
    }

    @Test("all prefixes of an answer count, each once, in its order")
    func several() throws {
        let answer = try answer(
            dnsHeader(answers: 5) + aaaa("2001:db8:2::c000:aa", ttl: 90) + aaaa("2001:db8:1::c000:ab", ttl: 70)
                + aaaa("2001:db8::bad") + aaaa("2001:db8:1::c000:aa", ttl: 80) + aaaa("2001:db8:2::c000:ab", ttl: 90))
        #expect(
            DNSOutcome(answer)
                == .prefixes(["2001:db8:2::/96", "2001:db8:1::/96"].compactMap(PREF64.init), lifetime: 60))
    }

    @Test(
        "an answer means what it says",
        arguments: [
            (
                dnsHeader(answers: 2) + aaaa("64:ff9b::c000:aa", ttl: 90) + aaaa("64:ff9b::c000:ab", ttl: 80),
                .prefixes([.wellKnown], lifetime: 80)
            ),
            // Behind a CNAME of a smaller TTL; letters of either case.
            (
                (dnsHeader(answers: 2) + "c00c 0005 0001 00000014 0002 c00c" + aaaa("64:ff9b::c000:aa"))
                    .replacing("69707634", with: "49507634"),
                .prefixes([.wellKnown], lifetime: 20)
            ),
            (dnsHeader(authorities: 1) + soa, .none(.noAddress, lifetime: 900)),
            (dnsHeader("8183", authorities: 1) + soa, .none(.noSuchName, lifetime: 900)),
            (dnsHeader(), .none(.noAddress, lifetime: nil)),
            (dnsHeader(answers: 1) + aaaa("2001:db8::1", ttl: 30), .none(.unrelated, lifetime: 30)),
            (dnsHeader("8182"), .failed(.error(2))), (dnsHeader("8185"), .failed(.error(5))),
            // A TTL with its top bit set is none.
            (
                dnsHeader(answers: 1) + aaaa("64:ff9b::c000:aa").replacing("0000003c", with: "ffffffff"),
                .prefixes([.wellKnown], lifetime: 0)
            ),
        ] as [(String, DNSOutcome)])
    func meaning(message: String, outcome: DNSOutcome) throws {
        #expect(DNSOutcome(try answer(message)) == outcome)
    }

    @Test(
        "a message that is none is refused with its reason",
        arguments: [
            ("", .truncated), ("1234 8180 0001 0000 0000", .truncated),
            (dnsHeader("0100"), .notAnAnswer), (dnsHeader("a180"), .notAnAnswer),
            (dnsHeader().replacing("69707634", with: "69707635"), .otherQuestion),
            (dnsHeader().replacing("001c 0001", with: "0001 0001"), .otherQuestion),
            (dnsHeader().replacing("0001 0000 0000", with: "0000 0000 0000"), .otherQuestion),
            (dnsHeader(answers: 1), .truncated),
            (dnsHeader(answers: 1) + aaaa("64:ff9b::c000:aa").dropLast(2), .truncated),
            (dnsHeader(answers: 1) + "c0", .truncated), (dnsHeader(answers: 1) + "3f", .truncated),
            (dnsHeader(answers: 1) + "40 00", .name), (dnsHeader(answers: 1) + "80 00", .name),
            (dnsHeader(answers: 1) + "c00c 001c 0001 00000e10 0004 c0000201", .record),
            (dnsHeader(authorities: 1) + "00 0006 0001 00000e10 0004 00000000", .record),
        ] as [(String, DNSProblem)])
    func malformed(message: String, problem: DNSProblem) {
        #expect(throws: problem) { try answer(message) }
    }

    @Test("20,000 mutated answers end in a value or a reason, and no prefix is made of nothing")
    func mutations() {
        var random = SeededRandom(seed: 8880)
        let seed = octets(
            dnsHeader(answers: 3, authorities: 1) + aaaa("64:ff9b::c000:aa") + "c00c 0005 0001 00000014 0002 c00c"
                + aaaa("64:ff9b::c000:ab") + soa)
        var refused: [DNSProblem: Int] = [:]
        for _ in 0..<20_000 {
            var message = seed
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                message[Int.random(in: message.indices, using: &random)] = .random(in: .min ... .max, using: &random)
            }
            message.removeLast(
                Int.random(in: 0...message.count, using: &random) * Int.random(in: 0...1, using: &random))
            do throws(DNSProblem) {
                let answer = try DNSAnswer(message: message)
                #expect(answer.addresses.count <= message.count / 28)
                if case .prefixes(let prefixes, let lifetime) = DNSOutcome(answer) {
                    #expect(!prefixes.isEmpty && prefixes.count <= answer.addresses.count && lifetime >= 0)
                }
            } catch {
                refused[error, default: 0] += 1
            }
        }
        // That one c-ares alone tells.
        #expect(Set(refused.keys) == Set(DNSProblem.allCases).subtracting([.unreadable]))
    }

    @Test(
        "resolvers are read from the files of others",
        arguments: [
            ("# private\nADMIN_STATE=configured\nDNS=2001:db8::53 fe80::1%eth0 192.0.2.53\nNTP=2001:db8::7\n", "DNS"),
            ("SERVERS=2001:db8::53#dns.example fe80::1 [2001:db8::54]:5353\n", "SERVERS"),
        ])
    func systemFiles(text: String, key: String) {
        #expect(SystemResolvers.parse(assignments: text, key: key).map(\.description) == ["2001:db8::53", "fe80::1"])
        #expect(SystemResolvers.parse(assignments: text, key: "NO").isEmpty)
    }

    @Test("of resolv.conf only resolvers of IPv6 count that are not a stub of the host")
    func resolvConf() {
        let text = """
            # made by somebody
            nameserver 127.0.0.53
            nameserver ::1
            nameserver\t2001:db8::53
            nameserver fe80::1%eth0
            search example.com
            nameserver
            """
        #expect(SystemResolvers.parse(resolvConf: text).map(\.description) == ["2001:db8::53", "fe80::1"])
    }
}
