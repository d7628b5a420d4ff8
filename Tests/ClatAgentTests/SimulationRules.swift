import ClatBase
import ClatTranslator

@testable import ClatAgent

/// What must hold, at every moment and once all has settled.
extension Simulation {
    /// All that hinders by chance ends, and time enough passes for every pause: then IPv4 is on exactly where the rules say.
    mutating func settle() throws {
        world.kernel.failing = []
        verdict = .preferred
        for uplink in 2...4 { try apply(.dadEnds(uplink: uplink, duplicate: false)) }
        for _ in 0..<8 {
            try world.pass(.seconds(50))
            try check()
        }
        func clean() -> Set<Int> { Set((2...4).filter { world.kernel.places[$0] ?? .init() == KernelModel.Place() }) }
        let off = clean()
        try world.pass(.seconds(6))
        if let index = off.intersection(clean()).intersection(world.kernel.guards).min() {
            throw Broken(description: "\(index): the guard outlasts the CLAT for good")
        }
        var demanding: [Int] = []
        var allowed = 0
        for index in 2...4 {
            let verdict = oracle.verdict(index, links, addresses, routes, configuration, now: world.now)
            if verdict.may { allowed += 1 }
            if verdict.must { demanding.append(index) }
            let place = world.kernel.places[index] ?? KernelModel.Place()
            if !verdict.may, place != KernelModel.Place(), world.uplink(index)?.reason.state != .suspended {
                throw Broken(description: "\(index): off for good, with something left")
            }
        }
        let free = (1...7 as ClosedRange<UInt8>).count { last in
            !addresses.contains { $0.value == .v4(IPv4Address(192, 0, 0, last)) }
        }
        for index in demanding where allowed <= free {
            let uplink = world.uplink(index)
            guard uplink?.reason.state == .on, world.kernel.places[index]?.routes.count == 1 else {
                throw Broken(description: "\(index): not on, but \(uplink.map { "\($0.reason)" } ?? "unknown")")
            }
        }
    }

    /// What must hold at every moment. The model of the kernel holds the order of steps by itself.
    mutating func check() throws {
        func require(_ condition: Bool, _ text: String) throws {
            if !condition { throw Broken(description: text) }
        }
        for (index, place) in world.kernel.places {
            let machine = world.uplink(index)
            let verdict = oracle.verdict(index, links, addresses, routes, configuration, now: world.now)
            for route in place.routes {
                try require(verdict.may, "\(index): a route where no rule allows it")
                try require(place.translator != nil, "\(index): a route without a translator")
                try require(place.ipv4s.contains(route.source), "\(index): a route from an address that is not there")
                try require(
                    [.on, .starting].contains(machine?.reason.state),
                    "\(index): a route while \(String(describing: machine?.reason))")
                let taken = addresses.contains { $0.value == .v4(route.source) }
                try require(!taken, "\(index): \(route.source) is somebody else's")
                try require(
                    !world.kernel.foreignMetrics.contains(route.metric), "\(index): \(route.metric) is somebody else's")
                let mapping = place.translator?.mappings.first { $0.ipv4 == route.source }
                try require(
                    mapping.map { one in !addresses.contains { $0.value == .v6(one.ipv6) } } ?? false,
                    "\(index): the host's own address")
            }
            if machine?.reason.state == .on {
                try require(place.routes.count == 1, "\(index): on with \(place.routes.count) routes")
                try require(place.translator != nil, "\(index): on without a translator")
                if let nextHop = place.translator?.nextHop {
                    try require(nextHop == place.routing?.router, "\(index): on, by a router that is no longer used")
                }
                try require(
                    (place.uplinkLink == .relay) == (links[index]?.attachment == .relay),
                    "\(index): on, carried by \(String(describing: place.uplinkLink))")
            }
            if machine?.reason.state ?? .off == .off {
                try require(
                    place == KernelModel.Place(),
                    "\(index): off (\(machine?.reason.code ?? "gone")) with something left")
            }
            try require(place.addresses.count <= 6, "\(index): addresses pile up")
        }
    }

    /// Whatever has happened: on a good network IPv4 comes, and after the stop nothing is left.
    mutating func recovers() throws {
        world.kernel.failing = []
        verdict = .preferred
        let uplinks = 2...4
        for happening in uplinks.map({ Happening.link($0, up: true, carrier: true, mtu: 1500, hardware: 0) })
            + uplinks.map({ Happening.enslaved($0, false) }) + uplinks.map({ Happening.otherCLAT(uplink: $0, false) })
            + (1...7).map({ Happening.taken(last: $0, false) }) + [.configure(.defaults)]
        {
            try apply(happening)
        }
        for old in routes.filter({ !$0.isIPv6 }) { try route(old, false) }
        for _ in 0..<6 {
            for uplink in 2...4 {
                try apply(
                    .advertisement(
                        uplink: uplink, router: 1, pref64: 1, pref64Lifetime: 1800, prefixes: [1, 2],
                        routerLifetime: 1800))
                try apply(.dadEnds(uplink: uplink, duplicate: false))
            }
            try world.pass(.seconds(100))
            try check()
        }
        for uplink in 2...4 where world.uplink(uplink)?.reason.state != .on {
            throw Broken(description: "\(uplink) is not on: \(String(describing: world.uplink(uplink)?.reason))")
        }
        let metrics = world.kernel.places.values.flatMap(\.routes).map(\.metric)
        if Set(metrics).count != 3 { throw Broken(description: "metrics \(metrics)") }
        try world.happen(.stop)
        guard world.isFinished, world.kernel.isClean else {
            throw Broken(description: "something is left after the stop")
        }
    }
}
