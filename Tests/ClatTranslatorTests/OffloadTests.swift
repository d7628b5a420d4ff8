import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Checksum and segmentation offload")
struct OffloadTests {
    static func virtio(_ type: UInt8, size: UInt16, start: UInt16, offset: UInt16, headers: UInt16) -> Virtio {
        var virtio = Virtio(partialAt: start, offset: offset)
        (virtio.gsoType, virtio.gsoSize, virtio.headerLength) = (type, size, headers)
        return virtio
    }

    @Test("An unfinished checksum stays unfinished, over the new pseudo-header", arguments: AddressTests.embeddings)
    func partial(prefix: String, address: String) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix)
        mapping.ipv6.low ^= 0x1234
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let peer = IPv4Address(192, 0, 2, 33)
        let out4 = V4(destination: peer, number: 6).with { $0.tcp(pattern(50), partial: true) }
        let out6 = outbound { ($0.source, $0.destination, $0.next) = (mapping.ipv6, .text(address), 6) }
            .with { $0.tcp(pattern(50), partial: true) }
        #expect(
            bench.frames(out4.octets, Virtio(partialAt: 20, offset: 16))
                == [Virtio(partialAt: 40, offset: 16).bytes + out6.octets])
        let in6 = V6(source: .text(address), destination: mapping.ipv6).with { $0.udp(pattern(50), partial: true) }
        let in4 = inbound { $0.source = peer }.with { $0.udp(pattern(50), partial: true) }
        #expect(
            bench.frames(in6.octets, Virtio(partialAt: 40, offset: 6))
                == [Virtio(partialAt: 20, offset: 6).bytes + in4.octets])
    }

    static let segmentations: [(name: String, number: UInt8, field: UInt16, from: UInt8, to: UInt8)] = [
        ("TCP", 6, 16, 1, 4), ("TCP with ECN", 6, 16, 0x81, 0x84), ("UDP", 17, 6, 5, 5),
    ]

    @Test("A super-packet stays one: type and starts change, the segment size does not", arguments: segmentations)
    func superPacket(name: String, number: UInt8, field: UInt16, from: UInt8, to: UInt8) {
        var bench = Bench()
        let make: (any IPPacket) -> [UInt8] = { packet in
            let header: [UInt8] =
                number == 6
                ? word(40000) + word(443) + long(1) + long(2) + [0x80, 0x18, 1, 0, 0, 0, 0, 0]
                    + [UInt8](repeating: 1, count: 12)
                : word(40000) + word(443) + word(60008) + [0, 0]
            return packet.checksummed(header + pattern(60000), number, at: Int(field), partial: true)
        }
        let headers: UInt16 = number == 6 ? 32 : 8
        var packet4 = V4(dontFragment: true, number: number)
        packet4.payload = make(packet4)
        var packet6 = outbound { $0.next = number }
        packet6.payload = make(packet6)
        let virtio4 = Self.virtio(from, size: 1400, start: 20, offset: field, headers: 20 + headers)
        let virtio6 = Self.virtio(to, size: 1400, start: 40, offset: field, headers: 40 + headers)
        #expect(bench.frames(packet4.octets, virtio4) == [virtio6.bytes + packet6.octets])

        packet6 = V6(next: number)
        packet6.payload = make(packet6)
        packet4 = inbound { ($0.number, $0.dontFragment) = (number, true) }
        packet4.payload = make(packet4)
        #expect(bench.frames(packet6.octets, virtio6) == [virtio4.bytes + packet4.octets])
    }

    @Test("A super-packet is too big if its segments are, DF or not", arguments: [true, false])
    func tooBig(dontFragment: Bool) {
        var bench = Bench()
        let input = V4(dontFragment: dontFragment, number: 6).with { $0.tcp(pattern(5000), partial: true) }
        func frames(_ size: UInt16) -> [[UInt8]] {
            bench.frames(input.octets, Self.virtio(1, size: size, start: 20, offset: 16, headers: 40))
        }
        #expect(frames(1440).first.map { $0[10] } == 0x60)
        let error = frames(1441)
        #expect(error.count == 1)
        #expect(error.first.map { Array($0[30..<38]) } == [3, 4] + Array(error[0][32..<34]) + [0, 0, 5, 0xc8])
        #expect(fault(error[0]) == nil)
        #expect(bench.drops == ["ipv4-too-big": 1])
    }

    @Test("Towards the host too")
    func tooBigForHost() {
        var configuration = TranslatorConfiguration.standard
        configuration.ipv4MTU = 1400
        var bench = Bench(configuration)
        let input = V6(next: 6).with { $0.tcp(pattern(5000), partial: true) }
        func frames(_ size: UInt16) -> [[UInt8]] {
            bench.frames(input.octets, Self.virtio(4, size: size, start: 40, offset: 16, headers: 60))
        }
        #expect(frames(1360).first.map { $0[10] } == 0x45)
        let error = frames(1361)
        #expect(error.first.map { Array($0[50..<52] + $0[54..<58]) } == [2, 0, 0, 0, 5, 0x8c])
        #expect(fault(error[0]) == nil)
    }

    @Test("Small segments leave DF clear")
    func smallSegments() {
        var bench = Bench()
        let input = V6(next: 6).with { $0.tcp(pattern(5000), partial: true) }
        for (size, field) in [(UInt16(1220), UInt8(0)), (1221, 0x40)] {
            let output = bench.frames(input.octets, Self.virtio(4, size: size, start: 40, offset: 16, headers: 60))
            #expect(output.first?[16] == field)
        }
    }

    @Test("IPv4 options and extension headers move csum_start by what they were")
    func options() {
        var bench = Bench()
        let input = V4(options: [1, 1, 1, 0]).with { $0.udp(pattern(50), partial: true) }
        #expect(
            bench.frames(input.octets, Virtio(partialAt: 24, offset: 6))
                == [
                    Virtio(partialAt: 40, offset: 6).bytes
                        + outbound().with { $0.udp(pattern(50), partial: true) }.octets
                ])
        var back = V6().with { $0.udp(pattern(50), partial: true) }
        (back.next, back.extensions) = (60, octets("1100010400000000"))
        #expect(
            bench.frames(back.octets, Virtio(partialAt: 48, offset: 6))
                == [
                    Virtio(partialAt: 20, offset: 6).bytes
                        + inbound().with { $0.udp(pattern(50), partial: true) }.octets
                ])
    }

    @Test("A checksum that is to be finished further in is finished here, and the outer one holds")
    func tunnel() {
        var bench = Bench()
        let inner = V4().with { $0.udp(pattern(50), partial: true) }.octets
        let finished = V4().with { $0.udp(pattern(50)) }.octets
        let input = V4().with { $0.udp(finished) }
        var started = input
        started.payload = Array(started.payload.prefix(8)) + inner
        #expect(
            bench.frames(started.octets, Virtio(partialAt: 48, offset: 6))
                == [Virtio().bytes + outbound().with { $0.udp(finished) }.octets])
    }

    @Test("An unfinished ICMP checksum is finished here")
    func partialICMP() {
        var bench = Bench()
        var input = V4().icmp(8, 0, [0, 1, 0, 2], pattern(20))
        put(0, 2, &input.payload)
        #expect(
            bench.frames(input.octets, Virtio(partialAt: 20, offset: 2))
                == [Virtio().bytes + outbound().icmp(128, 0, [0, 1, 0, 2], pattern(20)).octets])
    }

    @Test("A UDP super-packet without checksum gets the start of one")
    func partialZero() {
        var bench = Bench()
        var input = V4().with { $0.udp(pattern(4000), partial: true) }
        put(0, 6, &input.payload)
        let expected = outbound().with { $0.udp(pattern(4000), partial: true) }
        #expect(
            bench.frames(input.octets, Self.virtio(5, size: 1000, start: 20, offset: 6, headers: 28))
                == [Self.virtio(5, size: 1000, start: 40, offset: 6, headers: 48).bytes + expected.octets])
    }

    @Test("A checksum known to be good stays known")
    func dataValid() {
        var bench = Bench()
        var virtio = Virtio()
        virtio.flags = 2
        #expect(bench.frames(V4().with { $0.udp([]) }.octets, virtio).first?.first == 2)
        #expect(bench.frames(V4().icmp(8, 0).octets, virtio).first?.first == 0)
    }

    static let invalid: [(name: String, type: UInt8, size: UInt16, start: UInt16, offset: UInt16)] = [
        ("checksum in the IP header", 0, 0, 12, 6), ("checksum past the end", 0, 0, 20, 200),
        ("start past the end", 0, 0, 900, 6),
        ("no segment size", 5, 0, 20, 6), ("TCPv6 in IPv4", 4, 100, 20, 6), ("TCP of UDP", 1, 100, 20, 6),
        ("old UDP fragmentation", 3, 100, 20, 6), ("unknown type", 9, 100, 20, 6), ("UDP with ECN", 0x85, 100, 20, 6),
        ("super-packet checksummed elsewhere", 5, 100, 28, 6), ("super-packet with another field", 5, 100, 20, 8),
        ("all ones", 0xff, 0xffff, 0xffff, 0xffff),
    ]

    @Test("A request that does not fit the packet is refused", arguments: invalid)
    func refused(name: String, type: UInt8, size: UInt16, start: UInt16, offset: UInt16) {
        var bench = Bench()
        let input = V4().with { $0.udp(pattern(100)) }
        #expect(
            bench.packets(input.octets, Self.virtio(type, size: size, start: start, offset: offset, headers: 28)) == [])
        #expect(bench.drops == ["offload-invalid": 1])
    }

    @Test("A fragment cannot be a super-packet")
    func fragment() {
        var bench = Bench()
        let input = V4(more: true).with { $0.udp(pattern(100)) }
        #expect(bench.packets(input.octets, Self.virtio(5, size: 50, start: 20, offset: 6, headers: 28)) == [])
        #expect(bench.drops == ["offload-invalid": 1])
    }
}
