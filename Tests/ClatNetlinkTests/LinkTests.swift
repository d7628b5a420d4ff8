import ClatBase
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Links of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct LinkTests {
    @Test("A veth has its peer in the other namespace, its MTU at both ends, and makes no link-local address")
    func veth() throws {
        let host = try NetworkNamespace.create()
        let inner = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host)
        var inside = try NetlinkSocket(in: inner)
        let created = try socket.createVeth("v4-eth0", peer: "up0", in: inner, mtu: 9000)
        #expect(created.name == "v4-eth0")
        #expect(created.kind == "veth")
        #expect(created.mtu == 9000)
        #expect(created.isEthernet)
        #expect(created.hardwareAddress != nil)
        #expect(!created.flags.contains(.up))
        #expect(created.linkNamespace != nil)
        let link = try #require(try socket.link(index: created.index))
        #expect(link.ipv6?.addressGenerationMode == AddressGenerationMode.none)
        let peer = try #require(try inside.link(named: "up0"))
        #expect(peer.mtu == 9000)
        #expect(peer.ipv6?.addressGenerationMode == .eui64)
        #expect(created.parent == peer.index)
        #expect(peer.parent == created.index)

        try inside.setLink(peer.index, up: true)
        try socket.setLink(link.index, up: true)
        #expect(try eventually { try socket.link(index: link.index)?.operationalState == .up })
        #expect(try socket.link(index: link.index)?.carrier == true)
        #expect(try socket.link(index: link.index)?.flags.isSuperset(of: [.up, .lowerUp, .running]) == true)
        #expect(try eventually { try !inside.addresses(.ipv6, on: peer.index).isEmpty })
        #expect(try socket.addresses(.ipv6, on: link.index).isEmpty)
    }
}
