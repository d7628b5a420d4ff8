import Testing

@testable import ClatTranslator

@Suite("ICMP types, codes, pointers and MTUs")
struct ICMPTableTests {
    /// RFC 7915 section 4.2; all that is not here is refused.
    static let toIPv6: [[UInt8]: ICMPErrorHeader] = [
        [3, 0]: .init(1, 0), [3, 1]: .init(1, 0), [3, 2]: .init(4, 1, .pointer(6)), [3, 3]: .init(1, 4),
        [3, 4]: .init(2, 0, .mtu), [3, 5]: .init(1, 0), [3, 6]: .init(1, 0), [3, 7]: .init(1, 0), [3, 8]: .init(1, 0),
        [3, 9]: .init(1, 1), [3, 10]: .init(1, 1), [3, 11]: .init(1, 0), [3, 12]: .init(1, 0), [3, 13]: .init(1, 1),
        [3, 15]: .init(1, 1), [11, 0]: .init(3, 0), [11, 1]: .init(3, 1), [12, 0]: .init(4, 0, .pointer(0)),
        [12, 2]: .init(4, 0, .pointer(0)),
    ]

    /// RFC 7915 section 5.2.
    static let toIPv4: [[UInt8]: ICMPErrorHeader] = [
        [1, 0]: .init(3, 1), [1, 1]: .init(3, 10), [1, 2]: .init(3, 1), [1, 3]: .init(3, 1), [1, 4]: .init(3, 3),
        [3, 0]: .init(11, 0), [3, 1]: .init(11, 1), [4, 0]: .init(12, 0, .pointer(0)), [4, 1]: .init(3, 2),
    ]

    @Test("Every ICMP type and code becomes what RFC 7915 section 4.2 says, or nothing")
    func allToIPv6() {
        for type in UInt8.min...UInt8.max {
            for code in UInt8.min...UInt8.max {
                let expected = type == 11 ? .init(3, Int32(code)) : Self.toIPv6[[type, code]]
                #expect((try? ICMPErrorHeader(fromIPv4: type, code, pointer: 0)) == expected)
            }
        }
    }

    @Test("Every ICMPv6 type and code becomes what RFC 7915 section 5.2 says, or nothing")
    func allToIPv4() {
        for type in UInt8.min...UInt8.max {
            for code in UInt8.min...UInt8.max {
                let expected: ICMPErrorHeader? =
                    switch type {
                    case 2: .init(3, 4, .mtu)
                    case 3: .init(11, Int32(code))
                    default: Self.toIPv4[[type, code]]
                    }
                #expect((try? ICMPErrorHeader(fromIPv6: type, code, pointer: 0)) == expected)
            }
        }
    }

    @Test("Every IPv4 pointer becomes what RFC 7915 figure 3 says, or nothing")
    func pointersToIPv6() {
        let table: [UInt8: UInt8] = [
            0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, 12: 8, 13: 8, 14: 8, 15: 8, 16: 24, 17: 24, 18: 24, 19: 24,
        ]
        for pointer in UInt8.min...UInt8.max {
            let expected = table[pointer].map { ICMPErrorHeader(4, 0, .pointer($0)) }
            #expect((try? ICMPErrorHeader(fromIPv4: 12, 0, pointer: pointer)) == expected, "pointer \(pointer)")
        }
    }

    @Test("Every IPv6 pointer becomes what RFC 7915 figure 6 says, or nothing")
    func pointersToIPv4() {
        var table: [UInt32: UInt8] = [0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8]
        for pointer in UInt32(8)...23 { table[pointer] = 12 }
        for pointer in UInt32(24)...39 { table[pointer] = 16 }
        for pointer in Array(UInt32(0)...300) + [0x1_0000, 0x0100_0000, .max] {
            let expected = table[pointer].map { ICMPErrorHeader(12, 0, .pointer($0)) }
            #expect((try? ICMPErrorHeader(fromIPv6: 4, 0, pointer: pointer)) == expected, "pointer \(pointer)")
        }
    }

    static let toIPv6MTU: [(mtu: UInt16, length: Int, expected: UInt32)] = [
        (1480, 1480, 1500), (576, 1400, 1280), (1260, 1400, 1280), (1261, 1400, 1281), (9000, 9000, 1500),
        (65535, 65535, 1500), (0, 1500, 1500), (0, 1400, 1280), (0, 1493, 1500), (0, 1492, 1280), (0, 65535, 1500),
        (0, 0, 1280),
    ]

    @Test("The MTU of a Fragmentation Needed grows by 20, and is guessed where it is 0", arguments: toIPv6MTU)
    func mtuToIPv6(mtu: UInt16, length: Int, expected: UInt32) {
        #expect(PathMTU.toIPv6(mtu, embeddedLength: length, .standard) == expected)
    }

    @Test("A guessed MTU is the largest plateau below the packet's length")
    func plateaus() {
        let jumbo = TranslatorConfiguration(mappings: [], ipv6MTU: 65535)
        let expected: [(Int, UInt32)] = [
            (65535, 32020), (32000, 17934), (17914, 8186), (8166, 4372), (4352, 2022), (2002, 1512), (1492, 1280),
        ]
        for (length, mtu) in expected {
            #expect(PathMTU.toIPv6(0, embeddedLength: length, jumbo) == mtu, "length \(length)")
        }
    }

    static let toIPv4MTU: [(mtu: UInt32, plain: UInt32?, fragment: UInt32?)] = [
        (1500, 1480, 1472), (1492, 1472, 1464), (1400, 1380, 1372), (1280, 1260, 1252), (1279, nil, nil), (0, nil, nil),
        (9000, 1480, 1472), (.max, 1480, 1472),
    ]

    @Test("The MTU of a Packet Too Big shrinks by 20, or 28 for a fragment", arguments: toIPv4MTU)
    func mtuToIPv4(mtu: UInt32, plain: UInt32?, fragment: UInt32?) {
        #expect((try? PathMTU.toIPv4(mtu, embeddedIsFragment: false, .standard)) == plain)
        #expect((try? PathMTU.toIPv4(mtu, embeddedIsFragment: true, .standard)) == fragment)
    }

    @Test("The host's own MTU bounds what a Packet Too Big says")
    func hostMTU() throws {
        var configuration = TranslatorConfiguration.standard
        configuration.ipv4MTU = 1400
        #expect(try PathMTU.toIPv4(1500, embeddedIsFragment: false, configuration) == 1400)
        #expect(PathMTU.toIPv6(1480, embeddedLength: 1480, configuration) == 1420)
    }
}
