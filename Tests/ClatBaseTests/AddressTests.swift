import ClatBase
import Testing

@Suite("Addresses")
struct AddressTests {
    @Test("IPv4 text goes both ways", arguments: ["0.0.0.0", "192.0.0.1", "255.255.255.255", "1.2.3.4"])
    func ipv4(text: String) throws {
        let address = try #require(IPv4Address(text))
        #expect(address.description == text)
        #expect(address.bytes.map(String.init).joined(separator: ".") == text)
    }

    @Test(
        "what is no IPv4 address is none", arguments: ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", " 1.2.3.4", "01.2.3.4x"])
    func badIPv4(text: String) {
        #expect(IPv4Address(text) == nil)
    }

    @Test(
        "IPv6 text is that of RFC 5952",
        arguments: [
            ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("::", "::"), ("::1", "::1"),
            ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"), ("fe80:0:0:0:0:0:0:1", "fe80::1"),
        ])
    func ipv6(text: String, canonical: String) throws {
        let address = try #require(IPv6Address(text))
        #expect(address.description == canonical)
        #expect(IPv6Address(bytes: address.bytes) == address)
        #expect(IPv6Address(address.in6) == address)
    }

    @Test("what is no IPv6 address is none", arguments: ["", ":::", "1:2:3:4:5:6:7:8:9", "fe80::1%eth0", "1.2.3.4"])
    func badIPv6(text: String) {
        #expect(IPv6Address(text) == nil)
    }

    @Test("the kinds of IPv6 address are told apart at their borders")
    func kinds() throws {
        func address(_ text: String) throws -> IPv6Address { try #require(IPv6Address(text)) }
        #expect(try address("fe80::").isLinkLocal && address("febf:ffff::1").isLinkLocal)
        #expect(try !address("fec0::").isLinkLocal && !address("fe7f::").isLinkLocal)
        #expect(try address("fc00::").isUniqueLocal && address("fdff::").isUniqueLocal)
        #expect(try !address("fe00::").isUniqueLocal && !address("fbff::").isUniqueLocal)
        #expect(try address("ff02::1").isMulticast && !address("feff::").isMulticast)
        #expect(try address("::1").isLoopback && !address("::2").isLoopback)
    }

    @Test(
        "a prefix is cut to its length and holds what begins with it",
        arguments: [
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"), ("2001:db8:ffff::", 40, "2001:db8:ff00::/40"),
            ("::1", 128, "::1/128"), ("ffff::", 0, "::/0"), ("2001:db8::ff", 127, "2001:db8::fe/127"),
            ("2001:db8:0:1:8000::1", 65, "2001:db8:0:1:8000::/65"),
        ])
    func prefixes(text: String, length: Int, expected: String) throws {
        let address = try #require(IPv6Address(text))
        let prefix = try #require(IPv6Prefix(address, length: length))
        #expect(prefix.description == expected)
        #expect(prefix.contains(address))
        #expect(IPv6Prefix(expected) == prefix)
        if length > 0 {
            let flipped = IPv6Address(high: address.high ^ 1 << 63, low: address.low)
            #expect(!prefix.contains(flipped))
        }
    }

    @Test("prefixes overlap where one holds the other")
    func overlap() throws {
        let all = try ["::/0", "2001:db8::/32", "2001:db8:1::/64", "2001:db8:1::64:0:0/96"].map {
            try #require(IPv6Prefix($0))
        }
        let other = try #require(IPv6Prefix("2001:db8:2::/64"))
        for one in all {
            for two in all { #expect(one.overlaps(two)) }
            #expect(one.overlaps(other) == (one.length < 64) && other.overlaps(one) == (one.length < 64))
        }
    }

    @Test("what is no prefix is none", arguments: ["", "::", "::/129", "::/-1", "2001:db8::1/64", "::/x", "::/0/0"])
    func badPrefix(text: String) {
        #expect(IPv6Prefix(text) == nil)
    }

    @Test("an Ethernet address has six octets")
    func hardware() throws {
        let address = try #require(HardwareAddress(bytes: [2, 0, 0xfc, 0, 0x10, 1]))
        #expect(address.description == "02:00:fc:00:10:01")
        #expect(address.bytes == [2, 0, 0xfc, 0, 0x10, 1])
        #expect(HardwareAddress(bytes: [1, 2, 3]) == nil)
    }
}
