import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

/// An RA in hexadecimal, spaces and line ends being for the eye.
func octets(_ hexadecimal: String) -> [UInt8] {
    let digits = hexadecimal.filter { !$0.isWhitespace }
    return stride(from: 0, to: digits.count, by: 2).compactMap { offset in
        let start = digits.index(digits.startIndex, offsetBy: offset)
        return UInt8(digits[start..<digits.index(start, offsetBy: 2)], radix: 16)
    }
}

/// Hop limit 64, no flags, router lifetime 1800, no timers.
let header = "86 00 00 00  40 00 07 08  00000000 00000000"
let router = IPv6Address(high: 0xfe80_0000_0000_0000, low: 1)

func parse(
    _ hexadecimal: String, from source: IPv6Address = router, hopLimit: Int = 255
) throws(RouterAdvertisementProblem) -> RouterAdvertisement {
    try RouterAdvertisement(message: octets(hexadecimal), from: source, hopLimit: hopLimit)
}

@Suite("Router Advertisements")
struct RouterAdvertisementTests {
    /// The vectors of RFC 8781 section 4 for all six prefix length codes, lifetime 1800.
    static let vectors: [(option: String, prefix: String, lifetime: Int)] = [
        ("26 02 07 08 20 01 0d b8 01 22 03 44 00 00 00 00", "2001:db8:122:344::/96", 1800),
        ("26 02 07 09 20 01 0d b8 01 22 03 44 00 00 00 00", "2001:db8:122:344::/64", 1800),
        ("26 02 07 0a 20 01 0d b8 01 22 03 00 00 00 00 00", "2001:db8:122:300::/56", 1800),
        ("26 02 07 0b 20 01 0d b8 01 22 00 00 00 00 00 00", "2001:db8:122::/48", 1800),
        ("26 02 07 0c 20 01 0d b8 01 00 00 00 00 00 00 00", "2001:db8:100::/40", 1800),
        ("26 02 07 0d 20 01 0d b8 00 00 00 00 00 00 00 00", "2001:db8::/32", 1800),
        ("26 02 07 08 00 64 ff 9b 00 00 00 00 00 00 00 00", "64:ff9b::/96", 1800),
        ("26 02 ff f8 00 64 ff 9b 00 00 00 00 00 00 00 00", "64:ff9b::/96", 65528),
        ("26 02 00 08 00 64 ff 9b 00 00 00 00 00 00 00 00", "64:ff9b::/96", 8),
        ("26 02 00 00 00 64 ff 9b 00 00 00 00 00 00 00 00", "64:ff9b::/96", 0),
        ("26 02 00 11 20 01 0d b8 00 64 00 00 00 00 00 00", "2001:db8:64::/64", 16),
        // Bits past the length are not the prefix's.
        ("26 02 07 0d 20 01 0d b8 ff ff ff ff ff ff ff ff", "2001:db8::/32", 1800),
    ]

    @Test("a PREF64 option gives prefix and lifetime", arguments: vectors)
    func pref64(vector: (option: String, prefix: String, lifetime: Int)) throws {
        let advertisement = try parse(header + vector.option)
        #expect(advertisement.pref64s.map(\.prefix.description) == [vector.prefix])
        #expect(advertisement.pref64s.map(\.lifetime) == [vector.lifetime])
        #expect(advertisement.ignoredOptions == [])
    }

    @Test(
        "an option that is wrong is left out, named, and the rest stands",
        arguments: [
            ("26 01 07 08 00 64 ff 9b", .pref64Length),
            ("26 03 07 08 00 64 ff 9b 00000000 00000000 00000000 00000000", .pref64Length),
            ("26 02 07 0e 00 64 ff 9b 00000000 00000000", .pref64PrefixLengthCode),
            ("26 02 07 0f 00 64 ff 9b 00000000 00000000", .pref64PrefixLengthCode),
            ("26 02 07 08 00000000 00000000 00000000", .pref64Prefix),
            ("26 02 07 08 00000000 00000000 0000ffff", .pref64Prefix),
            ("26 02 07 09 fe800000 00000000 00000000", .pref64Prefix),
            ("26 02 07 09 ff020000 00000000 00000000", .pref64Prefix),
            ("05 01 0000 000004ff", .mtu),
            ("05 02 0000 00000500 00000000 00000000", .mtu),
            ("18 01 40 00 00000e10", .routeInformation),
            ("18 02 60 00 00000e10 0064ff9b00000000", .routeInformation),
            ("18 03 81 00 00000e10 0064ff9b000000000000000000000000", .routeInformation),
            ("18 03 60 10 00000e10 0064ff9b000000000000000000000000", .routeInformation),
            ("18 04 60 00 00000e10 0064ff9b0000000000000000000000000000000000000000", .routeInformation),
            ("19 01 0000 00000e10", .rdnss),
            ("19 02 0000 00000e10 00000000 00000000", .rdnss),
            ("03 03 40c0 00000e10 00000708 00000000 20010db800010000", .prefixInformation),
            ("03 04 81c0 00000e10 00000708 00000000 20010db8000100000000000000000000", .prefixInformation),
            ("03 04 40c0 00000708 00000e10 00000000 20010db8000100000000000000000000", .prefixInformation),
            ("03 04 40c0 00000e10 00000708 00000000 fe800000000000000000000000000000", .prefixInformation),
        ] as [(String, RouterAdvertisementProblem)])
    func badOption(option: String, problem: RouterAdvertisementProblem) throws {
        let good = "26 02 07 08 00 64 ff 9b 00 00 00 00 00 00 00 00"
        let advertisement = try parse(header + option + good)
        #expect(advertisement.ignoredOptions == [problem])
        #expect(advertisement.pref64s.count == 1)
    }

    @Test(
        "a message that RFC 4861 section 6.1.2 wants dropped is dropped, with its reason",
        arguments: [
            ("", .truncated), ("86 00 0000 40 00 0708 00000000 000000", .truncated),
            (header + "26", .truncated), (header + "26 02 07 08 00 64", .truncated),
            (header + "26 00 07 08 00 64 ff 9b", .emptyOption),
            ("85 00 0000 40 00 0708 00000000 00000000", .notAnAdvertisement),
            ("86 01 0000 40 00 0708 00000000 00000000", .notAnAdvertisement),
            (header + String(repeating: "0e01000000000000", count: 257), .tooLarge),
            (
                header + String(repeating: "0effffffffffffff" + String(repeating: "00", count: 2032), count: 5),
                .tooLarge
            ),
        ] as [(String, RouterAdvertisementProblem)])
    func badMessage(message: String, problem: RouterAdvertisementProblem) {
        #expect(throws: problem) { try parse(message) }
    }

    @Test("a message from far away is dropped")
    func spoofed() throws {
        #expect(throws: RouterAdvertisementProblem.hopLimit) { try parse(header, hopLimit: 254) }
        #expect(throws: RouterAdvertisementProblem.hopLimit) { try parse(header, hopLimit: -1) }
        let global = try #require(IPv6Address("2001:db8::1"))
        #expect(throws: RouterAdvertisementProblem.sourceNotLinkLocal) { try parse(header, from: global) }
    }

    @Test("preference, lifetime, MTU, prefixes and resolvers are read")
    func everything() throws {
        let advertisement = try parse(
            "86 00 00 00  40 08 00 1e  00000000 00000000"  // preference high, lifetime 30
                + "01 01 020000000001"  // source link-layer address
                + "05 01 0000 00000578"  // MTU 1400
                + "03 04 40c0 00000e10 00000708 00000000 20010db8000100000000000000000000"  // L and A
                + "03 04 4080 ffffffff ffffffff 00000000 20010db8000200000000000000000000"  // L only, for ever
                + "19 05 0000 00000258 20010db8000000000000000000000053 20010db8000000000000000000000054")
        #expect(advertisement.router == router)
        #expect(advertisement.preference == .high)
        #expect(advertisement.routerLifetime == 30)
        #expect(advertisement.hardwareAddress?.description == "02:00:00:00:00:01")
        #expect(advertisement.mtu == 1400)
        #expect(advertisement.prefixes.map(\.prefix.description) == ["2001:db8:1::/64", "2001:db8:2::/64"])
        #expect(advertisement.prefixes.map(\.autonomous) == [true, false])
        #expect(advertisement.prefixes.map(\.onLink) == [true, true])
        #expect(advertisement.prefixes.map(\.validLifetime) == [3600, .max])
        #expect(advertisement.prefixes.map(\.preferredLifetime) == [1800, .max])
        #expect(advertisement.rdnss.map(\.lifetime) == [600])
        #expect(advertisement.rdnss.first?.servers.map(\.description) == ["2001:db8::53", "2001:db8::54"])
        #expect(advertisement.ignoredOptions == [])
    }

    @Test(
        "a route has as many octets of its prefix as it needs, or more",
        arguments: [
            ("18 01 00 08 00000e10", "::/0", .high, 3600),
            ("18 02 20 00 ffffffff 20010db8ffffffff", "2001:db8::/32", .medium, .max),
            ("18 02 40 18 00000000 20010db800640000", "2001:db8:64::/64", .low, 0),
            ("18 03 60 e7 00000e10 0064ff9b0000000000000000ffffffff", "64:ff9b::/96", .medium, 3600),
            ("18 03 00 00 00000e10 0064ff9b000000000000000000000000", "::/0", .medium, 3600),
        ] as [(String, String, RouterAdvertisement.Preference, UInt32)])
    func route(option: String, prefix: String, preference: RouterAdvertisement.Preference, lifetime: UInt32) throws {
        let advertisement = try parse(header + option)
        #expect(advertisement.ignoredOptions == [])
        let route = try #require(advertisement.routes.first)
        #expect(route.prefix.description == prefix)
        #expect(route.preference == preference)
        #expect(route.lifetime == lifetime)
    }

    @Test("a solicitation from :: is a whole packet with the right checksum")
    func unspecifiedSolicitation() throws {
        let packet = RouterSocket.unspecifiedSolicitation
        #expect(packet.count == 48 && packet[7] == 255)
        #expect(IPv6Address(bytes: packet[8..<24]) == .unspecified)
        #expect(IPv6Address(bytes: packet[24..<40]) == .allRouters)
        // The sum of pseudo-header and message, the checksum among it, is all ones (RFC 4443 section 2.3).
        var sum = 8 + 58
        for offset in stride(from: 8, to: 48, by: 2) { sum += Int(packet.big16(offset)) }
        #expect(sum % 0xffff == 0)
    }

    @Test("20,000 mutated advertisements end in a value or a reason")
    func mutations() {
        var random = SeededRandom(seed: 464)
        let seed = octets(header + Self.vectors.map(\.option).joined())
        for _ in 0..<20_000 {
            var message = seed
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                message[Int.random(in: message.indices, using: &random)] = .random(in: .min ... .max, using: &random)
            }
            message.removeLast(
                Int.random(in: 0...message.count, using: &random) * Int.random(in: 0...1, using: &random))
            let advertisement = try? RouterAdvertisement(message: message, from: router, hopLimit: 255)
            for option in advertisement?.pref64s ?? [] {
                #expect((0...65528).contains(option.lifetime) && option.lifetime % 8 == 0)
            }
        }
    }
}

/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededRandom: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
