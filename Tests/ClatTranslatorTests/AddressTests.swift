import ClatBase
import Testing

@testable import ClatTranslator

@Suite("PREF64 and mappings")
struct AddressTests {
    static let embeddings: [(prefix: String, address: String)] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
        ("64:ff9b::/96", "64:ff9b::c000:221"),
    ]

    @Test("192.0.2.33 is embedded and extracted as in RFC 6052 section 2.4", arguments: embeddings)
    func embedding(prefix: String, address: String) {
        let pref64 = PREF64.text(prefix)
        #expect(pref64.embed(IPv4Address(192, 0, 2, 33)) == .text(address))
        #expect(pref64.extract(.text(address)) == IPv4Address(192, 0, 2, 33))
        #expect(pref64.description == prefix)
    }

    @Test("198.51.100.2 is embedded as in RFC 7915 appendix A")
    func appendixA() {
        #expect(PREF64.text("2001:db8:100::/40").embed(IPv4Address(198, 51, 100, 2)) == .text("2001:db8:1c6:3364:2::"))
    }

    @Test("The suffix of an address is ignored", arguments: embeddings.dropLast(2))
    func suffix(prefix: String, address: String) {
        let bits = 72 + PREF64.text(prefix).length - 32
        var address = IPv6Address.text(address)
        address.low |= (1 << UInt64(128 - bits)) - 1
        #expect(PREF64.text(prefix).extract(address) == IPv4Address(192, 0, 2, 33))
    }

    @Test("Octet 8 must be zero below /96", arguments: embeddings.dropLast(2))
    func octet8(prefix: String, address: String) {
        var address = IPv6Address.text(address)
        address.low |= 1 << 56
        #expect(PREF64.text(prefix).extract(address) == nil)
    }

    @Test("Every bit of the prefix counts", arguments: embeddings)
    func outside(prefix: String, address: String) {
        let pref64 = PREF64.text(prefix)
        for bit in 0..<pref64.length {
            var address = IPv6Address.text(address)
            if bit < 64 { address.high ^= 1 << UInt64(63 - bit) } else { address.low ^= 1 << UInt64(127 - bit) }
            #expect(pref64.extract(address) == nil, "bit \(bit)")
        }
    }

    @Test(
        "What is no PREF64 is refused",
        arguments: [
            "2001:db8::/33", "2001:db8::/128", "2001:db8::/0", "64:ff9b::/95", "::/96", "::ffff:0:0/96", "fe80::/64",
            "ff02::/96", "ff00::/32", "::/32", "2001:db8::", "64:ff9b::1/96", "", "/96",
        ])
    func refused(text: String) {
        #expect(PREF64(text) == nil)
    }

    static let neutral: [(pref64: String, word: UInt64, isNeutral: Bool)] = [
        ("64:ff9b::/96", 0x25a6, true), ("2001:db8:122:344::/96", 0xf386, true), ("2001:db8::/32", 0xf7ec, true),
        ("2001:db8:100::/40", 0, false), ("2001:db8:122::/48", 0, false), ("2001:db8:122:300::/56", 0, false),
        ("2001:db8:122:344::/64", 0, false),
    ]

    @Test("A checksum-neutral interface identifier is found for /96 and /32 only", arguments: neutral)
    func neutrality(pref64: String, word: UInt64, isNeutral: Bool) throws {
        let prefix = try #require(IPv6Prefix("2001:db8:1:2::/64"))
        let address = Mapping.checksumNeutralAddress(
            for: IPv4Address(192, 0, 0, 1), pref64: .text(pref64), prefix: prefix, identifier: 0xa1b2_c3d4_0000_0718)
        #expect(address == IPv6Address(high: 0x2001_0db8_0001_0002, low: 0xa1b2_c3d4_0000_0718 | word << 16))
        let mapping = Mapping(ipv4: IPv4Address(192, 0, 0, 1), ipv6: address, pref64: .text(pref64))
        #expect(mapping.isChecksumNeutral == isNeutral)
    }

    @Test("An address that is not neutral is not called so")
    func notNeutral() {
        var mapping = Mapping.standard
        #expect(mapping.isChecksumNeutral)
        mapping.ipv6.low += 1
        #expect(!mapping.isChecksumNeutral)
    }
}
