import CLinux
import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

@Suite("The relay")
struct RelayTests {
    static let own: [UInt8] = [2, 0, 0, 0, 0, 7]
    static let modem = HardwareAddress(rawValue: 0x0264_0000_0010)
    static let ethernet: [UInt8] = own + own + [0x86, 0xdd]
    /// An IPv6 header and 24 octets.
    static let packet: [UInt8] = [0x60] + [UInt8](1...63)

    /// A super-packet of TCP whose checksum is open, as seen behind so many octets.
    static func offload(behind octets: UInt16) -> [UInt8] {
        var header = virtio_net_hdr()
        header.flags = UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM)
        header.gso_type = UInt8(VIRTIO_NET_HDR_GSO_TCPV6) | UInt8(VIRTIO_NET_HDR_GSO_ECN)
        (header.hdr_len, header.gso_size) = (60 + octets, 1400)
        (header.csum_start, header.csum_offset) = (40 + octets, 16)
        return withUnsafeBytes(of: header) { Array($0.prefix(Offload.size)) }
    }

    /// Turns a frame that begins at `start` of a buffer, and gives what begins where `turn` says.
    func turned(_ frame: [UInt8], at start: Int, _ turn: (UnsafeMutableRawBufferPointer) -> Int?) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0xee, count: start) + frame
        return buffer.withUnsafeMutableBytes { bytes in turn(bytes).map { Array(bytes[$0...]) } }
    }

    @Test("takes the Ethernet header away, and moves what counts from it")
    func toLink() {
        let frame = Self.offload(behind: 14) + Self.ethernet + Self.packet
        func sent(_ framing: LinkFraming) -> [UInt8]? {
            let headers = RelayHeaders(framing, tap: Self.own)
            return turned(frame, at: 0) { headers.turnToLink($0, octets: frame.count) }
        }
        #expect(sent(.none) == Self.offload(behind: 0) + Self.packet)
        #expect(sent(.ppp) == Self.packet)
        let link = Self.modem.bytes + Self.modem.bytes + [0x86, 0xdd]
        #expect(sent(.ethernet(Self.modem)) == Self.offload(behind: 14) + link + Self.packet)
    }

    @Test(
        "puts one before what comes, for the TAP's own address",
        arguments: [LinkFraming.none, .ppp, .ethernet(RelayTests.modem)])
    func toTAP(framing: LinkFraming) {
        let headers = RelayHeaders(framing, tap: Self.own)
        let behind = UInt16(framing.headerSize)
        let frame = Self.offload(behind: behind) + [UInt8](repeating: 9, count: framing.headerSize) + Self.packet
        let brought = turned(frame, at: headers.start) { headers.turnToTAP($0, octets: frame.count) ? 0 : nil }
        #expect(brought == Self.offload(behind: 14) + Self.ethernet + Self.packet)
    }

    @Test("a packet with its checksum done and no segments asks for nothing, with or without Ethernet")
    func plain() {
        let headers = RelayHeaders(.none, tap: Self.own)
        let nothing = [UInt8](repeating: 0, count: Offload.size)
        let frame = nothing + Self.packet
        let brought = turned(frame, at: headers.start) { headers.turnToTAP($0, octets: frame.count) ? 0 : nil }
        #expect(brought == nothing + Self.ethernet + Self.packet)
    }

    @Test("less than an IPv6 header is nothing", arguments: [LinkFraming.none, .ppp, .ethernet(RelayTests.modem)])
    func short(framing: LinkFraming) {
        let headers = RelayHeaders(framing, tap: Self.own)
        for octets in 0..<RelayHeaders.room + 40 {
            let frame = [UInt8](repeating: 0, count: 100)
            #expect(turned(frame, at: 0) { headers.turnToLink($0, octets: octets) } == nil)
        }
        for octets in 0..<Offload.size + framing.headerSize + 40 {
            let frame = [UInt8](repeating: 0, count: 100)
            #expect(turned(frame, at: headers.start) { headers.turnToTAP($0, octets: octets) ? 0 : nil } == nil)
        }
    }

    // MARK: The filter, which the kernel runs

    static let addresses = [
        IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x0000_0000_0000_c1a7),
        IPv6Address(high: 0x2001_0db8_0001_0000, low: 0xffff_ffff_ffff_ffff),
        IPv6Address(high: 0x2001_0db8_0002_0000, low: 0x0000_0000_0000_c1a7),
        IPv6Address(high: 0xfd00_0000_0000_0001, low: 0x8000_0000_0000_0001),
    ]

    /// Which of the packets come through, on a pair of sockets that has the filter.
    func passed(_ filter: AddressFilter, _ packets: [[UInt8]]) throws -> [[UInt8]] {
        var pair: [CInt] = [0, 0]
        try retrying("socketpair") { socketpair(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0, &pair) }
        let sender = OwnedDescriptor(adopting: pair[0])
        let receiver = OwnedDescriptor(adopting: pair[1])
        let descriptor = receiver.rawValue
        try filter.withProgram { program throws(SystemError) in
            _ = try retrying("SO_ATTACH_FILTER") {
                setsockopt(
                    descriptor, SOL_SOCKET, SO_ATTACH_FILTER, program, socklen_t(MemoryLayout<sock_fprog>.size))
            }
        }
        var found: [[UInt8]] = []
        for packet in packets {
            _ = send(sender.rawValue, packet, packet.count, CInt(MSG_DONTWAIT))
            var buffer = [UInt8](repeating: 0, count: 2000)
            let count = recv(receiver.rawValue, &buffer, buffer.count, CInt(MSG_DONTWAIT))
            if count >= 0 { found.append(Array(buffer.prefix(count))) }
        }
        return found
    }

    /// From one address to another, behind a link-layer header of so many octets.
    func packet(
        _ source: IPv6Address, _ destination: IPv6Address, linkHeader: Int, type: [UInt8] = [0x86, 0xdd]
    ) -> [UInt8] {
        let ethernet = linkHeader == 0 ? [] : [UInt8](repeating: 2, count: 12) + type
        return ethernet + [0x60, 0, 0, 0, 5, 0, 6, 64] + source.bytes + destination.bytes
            + [UInt8](repeating: 7, count: 1280)
    }

    @Test("takes whole packets with any of its addresses in that place, and no other", arguments: [0, 14])
    func filter(linkHeader: Int) throws {
        let other = IPv6Address(high: 0x2001_0db8_0064_0000, low: 1)
        // Each of the four words another, one at a time.
        let near = [UInt64(1) << 32, 1].flatMap { bit in
            Self.addresses.flatMap {
                [IPv6Address(high: $0.high ^ bit, low: $0.low), IPv6Address(high: $0.high, low: $0.low ^ bit)]
            }
        }.filter { !Self.addresses.contains($0) }
        for place in [AddressFilter.Place.source, .destination] {
            func sent(_ address: IPv6Address) -> [UInt8] {
                place == .source
                    ? packet(address, other, linkHeader: linkHeader) : packet(other, address, linkHeader: linkHeader)
            }
            for count in 0...Self.addresses.count {
                let own = Array(Self.addresses.prefix(count))
                let filter = AddressFilter(own, at: place, linkHeader: linkHeader)
                #expect(try passed(filter, Self.addresses.map(sent)) == own.map(sent))
            }
            let filter = AddressFilter(Self.addresses, at: place, linkHeader: linkHeader)
            #expect(try passed(filter, near.map(sent)).isEmpty)
            // In the other place they count for nothing, and half an address is none.
            let turned = Self.addresses.map {
                place == .source
                    ? packet(other, $0, linkHeader: linkHeader) : packet($0, other, linkHeader: linkHeader)
            }
            #expect(try passed(filter, turned + [Array(sent(Self.addresses[0]).prefix(linkHeader + 20))]).isEmpty)
        }
    }

    @Test("with Ethernet takes IPv6 only")
    func ethertype() throws {
        let filter = AddressFilter(Self.addresses, at: .source, linkHeader: 14)
        let frame = packet(Self.addresses[0], Self.addresses[1], linkHeader: 14, type: [0x08, 0x00])
        #expect(try passed(filter, [frame]).isEmpty)
    }
}
