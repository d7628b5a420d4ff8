import ClatBase
import Glibc
import Testing

@testable import ClatNetlink

@Suite("A monitor", .enabled(if: geteuid() == 0, "needs root"))
struct MonitorTests {
    let pair: VethPair
    init() throws { pair = try VethPair() }

    /// Reads notices until one fulfils the condition; nil if none comes.
    func first(_ monitor: inout NetlinkMonitor, where condition: (Notice) -> Bool) throws -> Notice? {
        let deadline = soon
        repeat {
            while let notice = try monitor.next() {
                if condition(notice) { return notice }
            }
        } while try monitor.wait(until: deadline)
        return nil
    }

    @Test("has nothing to tell where nothing happens, and does not wait")
    func silence() throws {
        let namespace = try NetworkNamespace.create()
        var monitor = try NetlinkMonitor(in: namespace)
        #expect(try monitor.next() == nil)
        let before = BootInstant.now
        #expect(try !monitor.wait(until: before + .milliseconds(50)))
        #expect(BootInstant.now - before >= .milliseconds(50))
    }

    @Test("tells of a link's coming, changing and going")
    func links() throws {
        var monitor = try NetlinkMonitor(.links, in: pair.near)
        var socket = try NetlinkSocket(in: pair.near)
        let index = try socket.createVeth("new", peer: "rest", in: pair.far, mtu: 1500).index
        #expect(
            try first(&monitor) {
                if case .link(let link, removed: false) = $0 { link.name == "new" } else { false }
            } != nil)
        try socket.setMTU(1280, ofLink: index)
        #expect(
            try first(&monitor) {
                if case .link(let link, removed: false) = $0 { link.index == index && link.mtu == 1280 } else { false }
            } != nil)
        try socket.deleteLink(index)
        #expect(
            try first(&monitor) {
                if case .link(let link, removed: true) = $0 { link.index == index } else { false }
            } != nil)
        #expect(monitor.malformed == 0)
    }

    @Test("tells of addresses, routes and neighbours, both ways")
    func others() throws {
        var monitor = try NetlinkMonitor([.addresses, .routes, .neighbours], in: pair.near)
        var socket = try NetlinkSocket(in: pair.near)
        let index = pair.nearLink.index
        let address = InterfaceAddress(try IPAddress("192.0.0.1"), prefixLength: 32, on: index)
        let neighbour = Neighbour(try IPAddress("fe80::1"), at: pair.farLink.hardwareAddress, on: index)
        let route = Route(to: .any(.ipv4), via: neighbour.address, on: index, metric: 7, mtu: 1480)
        for removed in [false, true] {
            if removed {
                try socket.removeRoute(route)
                try socket.removeNeighbour(neighbour)
                try socket.removeAddress(address)
            } else {
                try socket.addAddress(address)
                try socket.replaceNeighbour(neighbour)
                try socket.addRoute(route)
            }
            // The deletion of a neighbour is told only when its last user lets go of it.
            let expected: Set = removed ? ["address", "route"] : ["address", "route", "neighbour"]
            var heard: Set<String> = []
            _ = try first(&monitor) {
                switch $0 {
                case .address(let value, removed) where value.address == address.address: heard.insert("address")
                case .route(route, removed: removed, replaces: false): heard.insert("route")
                case .neighbour(neighbour, removed): heard.insert("neighbour")
                default: break
                }
                return heard.isSuperset(of: expected)
            }
            #expect(heard.isSuperset(of: expected))
        }
    }

    @Test("tells that a route replaces another, of which no notice tells; one that is appended replaces none")
    func replaced() throws {
        var socket = try NetlinkSocket(in: pair.near)
        let index = pair.nearLink.index
        let gateway = try IPAddress("fe80::1")
        func route(_ mtu: Int) -> Route { Route(to: .any(.ipv4), via: gateway, on: index, metric: 7, mtu: mtu) }
        try socket.addRoute(route(1400))
        var monitor = try NetlinkMonitor(.routes, in: pair.near)
        try socket.appendRoute(route(1500))
        #expect(throws: NetlinkError.self) { try socket.appendRoute(route(1500)) }
        #expect(try socket.routes(.ipv4) == [route(1400), route(1500)])
        try socket.replaceRoute(route(1280))
        #expect(try socket.routes(.ipv4) == [route(1280), route(1500)])
        try socket.removeRoute(route(1500))
        var told: [Notice] = []
        _ = try first(&monitor) {
            if case .route(let one, _, _) = $0, one.family == .ipv4 { told.append($0) }
            return told.count == 3
        }
        #expect(
            told == [
                .route(route(1500), removed: false), .route(route(1280), removed: false, replaces: true),
                .route(route(1500), removed: true),
            ])
    }

    @Test("does not take a port that leaves its bridge for a link that goes")
    func bridge() throws {
        _ = try output(of: "ip link add br0 type bridge", in: pair.near)
        var monitor = try NetlinkMonitor(.links, in: pair.near)
        _ = try output(
            of: "ip link set dev a master br0 && ip link set dev a nomaster && ip link del br0", in: pair.near)
        var removed: [String] = []
        var masters: [UInt32?] = []
        _ = try first(&monitor) {
            guard case .link(let link, let gone) = $0 else { return false }
            if gone { removed.append(link.name) }
            if link.name == "a" { masters.append(link.master) }
            return gone && link.name == "br0"
        }
        #expect(removed == ["br0"])
        #expect(masters.contains { $0 != nil })
        #expect(masters.last == UInt32?.none)
    }

    @Test("says that it was overrun, once, and goes on")
    func overrun() throws {
        var monitor = try NetlinkMonitor(.links, namespace: pair.near.descriptor, receiveBuffer: 4096)
        var socket = try NetlinkSocket(in: pair.near)
        for mtu in 1300..<1400 { try socket.setMTU(mtu, ofLink: pair.nearLink.index) }
        var overruns = 0
        while let notice = try monitor.next() {
            if notice == .overrun { overruns += 1 }
        }
        #expect(overruns == 1)
        try socket.setMTU(1400, ofLink: pair.nearLink.index)
        #expect(
            try first(&monitor) {
                if case .link(let link, removed: false) = $0 { link.mtu == 1400 } else { false }
            } != nil)
    }

    @Test("holds a thousand changes of routes between two reads")
    func room() throws {
        var monitor = try NetlinkMonitor(.routes, in: pair.near)
        var socket = try NetlinkSocket(in: pair.near)
        let route = Route(to: .any(.ipv4), on: pair.nearLink.index)
        for _ in 0..<500 {
            try socket.addRoute(route)
            try socket.removeRoute(route)
        }
        var told = 0
        while let notice = try monitor.next() {
            #expect(notice != .overrun)
            told += 1
        }
        #expect(told == 1000)
    }
}
