import ClatBase
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Neighbours of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct NeighbourTests {
    @Test("A permanent entry is set, replaced, listed and removed", arguments: ["fe80::1", "192.0.2.1"])
    func permanent(_ text: String) throws {
        let pair = try VethPair()
        var socket = try NetlinkSocket(in: pair.near)
        let address = try IPAddress(text)
        let first = Neighbour(address, at: HardwareAddress(bytes: [2, 0, 0, 0, 0, 1]), on: pair.nearLink.index)
        let second = Neighbour(address, at: HardwareAddress(bytes: [2, 0, 0, 0, 0, 2]), on: pair.nearLink.index)
        func permanent() throws -> [Neighbour] {
            try socket.neighbours(address.family, on: pair.nearLink.index).filter { $0.state == .permanent }
        }
        try socket.replaceNeighbour(first)
        #expect(try permanent() == [first])
        try socket.replaceNeighbour(second)
        #expect(try permanent() == [second])
        let shown = try output(of: "ip neigh show nud permanent", in: pair.near)
        #expect(shown.contains("\(text) dev a lladdr 02:00:00:00:00:02 PERMANENT"))
        try socket.removeNeighbour(second)
        #expect(try permanent().isEmpty)
        let error = #expect(throws: NetlinkError.self) { try socket.removeNeighbour(second) }
        #expect(error?.code == ENOENT)
        #expect(try socket.neighbours(address.family, on: 999).isEmpty)
    }

    @Test(
        "An address that is answered for is no neighbour; other programs see it as it was meant",
        arguments: ["2001:db8::7", "192.0.2.7"])
    func proxy(_ text: String) throws {
        let pair = try VethPair()
        var socket = try NetlinkSocket(in: pair.near)
        let address = try IPAddress(text)
        let proxy = Neighbour(address, at: nil, on: pair.nearLink.index, isProxy: true)
        try socket.replaceNeighbour(proxy)
        let listed = try socket.neighbours(address.family, proxies: true)
        #expect(listed.map(\.address) == [address] && listed.map(\.isProxy) == [true])
        #expect(try !socket.neighbours(address.family).contains { $0.address == address })
        #expect(try output(of: "ip neigh show proxy", in: pair.near).contains("\(text) dev a"))
        try socket.removeNeighbour(try #require(listed.first))
        #expect(try socket.neighbours(address.family, proxies: true).isEmpty)
    }
}
