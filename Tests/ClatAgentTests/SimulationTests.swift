import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

/// A history that broke a rule.
struct Broken: Error, CustomStringConvertible {
    var description: String
}

/// Runs histories against the model of the kernel, and holds every rule after every happening.
struct Simulation {
    var world = World()
    var links: [Int: Uplink] = [:]
    var addresses: Set<HostAddress> = []
    var routes: Set<DefaultRoute> = []
    var verdict = Happening.Verdict.preferred
    var oracle = HostOracle()
    var configuration = Configuration()

    static func run(_ history: [Happening]) throws {
        var simulation = Simulation()
        for index in 2...4 { try simulation.set(link(index)) }
        for (number, happening) in history.enumerated() {
            do {
                try simulation.apply(happening)
                try simulation.check()
            } catch {
                throw Broken(description: "after happening \(number), \(happening): \(error)")
            }
        }
        do { try simulation.settle() } catch { throw Broken(description: "once all has settled: \(error)") }
        do { try simulation.recovers() } catch { throw Broken(description: "in the end: \(error)") }
    }

    /// The last one is a modem's.
    private static func link(_ index: Int) -> Uplink {
        var link = ethernet(index)
        if index == 4 { link.medium = .pointToPoint }
        return link
    }

    private mutating func set(_ link: Uplink) throws {
        if !link.isRunning || links[link.index]?.carrierLosses ?? link.carrierLosses != link.carrierLosses {
            oracle.told[link.index]?.reset()
        }
        // The kernel drops the IPv4 routes of a link that goes down, and does not tell.
        if !link.isUp { routes = routes.filter { $0.isIPv6 || $0.index != link.index } }
        links[link.index] = link
        syncForeign()
        try world.happen(.link(link))
        guard link.isRunning else { return }
        let address = HostAddress(
            index: link.index, value: .v6(IPv6Address(high: 0x2001_0db8_0000_0000, low: UInt64(link.index))))
        addresses.insert(address)
        try world.happen(.address(address))
    }

    /// The kernel refuses a route where somebody else has one of that metric.
    private mutating func syncForeign() {
        world.kernel.foreignMetrics = Set(routes.filter { !$0.isIPv6 }.map(\.metric))
    }

    /// Some link-layer property of an uplink changes.
    private mutating func change(_ index: Int, _ body: (inout Uplink) -> Void) throws {
        guard var link = links[index] else { return }
        body(&link)
        try set(link)
    }

    /// A route that is not the agent's comes or goes, in one notice.
    mutating func route(_ route: DefaultRoute, _ isThere: Bool) throws {
        if isThere { routes.insert(route) } else { routes.remove(route) }
        syncForeign()
        try world.happen(isThere ? .route(route) : .routeGone(route))
    }

    private func native(_ uplink: Int, _ router: Int) -> DefaultRoute {
        DefaultRoute(
            isIPv6: false, index: uplink, metric: 50 + uplink, origin: 16,
            gateway: .v4(IPv4Address(192, 0, 2, UInt8(router))))
    }

    mutating func apply(_ happening: Happening) throws {
        let verdict = verdict
        world.dad = { _ in
            switch verdict {
            case .preferred: .preferred
            case .optimistic: .optimistic
            case .silent: nil
            case .duplicate: .duplicate
            }
        }
        switch happening {
        case .advertisement(let uplink, let router, let pref64, let lifetime, let prefixes, let routerLifetime):
            guard links[uplink]?.isRunning == true else { return }
            var text = "86 00 00 00 40 00 \(hex(routerLifetime, 4)) 00000000 00000000"
            for prefix in prefixes {
                let preferred = prefix < 0 ? "00000000" : "00000708"
                text += "03 04 40c0 00000e10 \(preferred) 00000000 20010db8\(hex(abs(prefix), 4))00000000000000000000"
            }
            if let pref64 { text += "26 02 \(hex(lifetime & ~7, 4)) 20010db8 \(hex(0x640 + pref64, 4))0000 00000000" }
            text += "19 03 0000 00000708 20010db8000100000000000000000053"
            let source = IPv6Address(high: 0xfe80_0000_0000_0000, low: UInt64(router))
            oracle.told[uplink, default: LinkOracle()].hear(
                router: router, lifetime: routerLifetime, pref64: pref64.map { ($0, lifetime & ~7) },
                prefixes: prefixes.map(abs), isCertain: world.now >= oracle.unansweredUntil, now: world.now)
            try world.happen(.advertisement(try parse(text, from: source), uplink: uplink))
        case .link(let index, let up, let carrier, let mtu, let hardware):
            var link = links[index] ?? Self.link(index)
            link.noARP = index == 3 && hardware == 1
            link.isUp = up
            link.isRunning = up && carrier
            link.mtu = mtu
            link.hardwareAddress = HardwareAddress(bytes: [2, 0, 0, 0, UInt8(hardware), UInt8(index)])
            try set(link)
        case .flap(let index): try change(index) { $0.carrierLosses += 1 }
        case .enslaved(let index, let isPort): try change(index) { $0.master = isPort ? 99 : nil }
        case .renamed(let index):
            try change(index) { $0.name = $0.name.hasPrefix("eth") ? "lan\(index)" : "eth\(index)" }
        case .dormant(let index):
            try change(index) { $0.isOperational = false }
            oracle.told[index]?.doubt(now: world.now)
            try change(index) { $0.isOperational = true }
        case .linkGone(let index):
            links[index] = nil
            oracle.told[index]?.reset()
            world.kernel.guards.remove(index)
            routes = routes.filter { $0.index != index }
            syncForeign()
            addresses = addresses.filter { $0.index != index }
            // The kernel takes what stands on it along.
            world.kernel.places[index]?.uplinkLink = nil
            world.kernel.places[index]?.addresses = [:]
            try world.happen(.linkGone(index))
        case .taken(let last, let isTaken):
            let address = HostAddress(index: 1, value: .v4(IPv4Address(192, 0, 0, UInt8(last))))
            if isTaken { addresses.insert(address) } else { addresses.remove(address) }
            try world.happen(isTaken ? .address(address) : .addressGone(address))
        case .nativeIPv4(let uplink, let router, let isThere):
            guard links[uplink]?.isUp == true else { return }
            try route(native(uplink, router), isThere)
        case .movedRoute(let from, let to):
            // One notice, of the new one, which has the old one's metric.
            let present = routes.filter { !$0.isIPv6 && $0.index == from }
            guard links[to]?.isUp == true, let old = present.min(by: { "\($0)" < "\($1)" }) else { return }
            routes.remove(old)
            var new = old
            new.index = to
            routes.insert(new)
            syncForeign()
            try world.happen(.routes(host.defaultRoutes))
        case .otherCLAT(let uplink, let isThere):
            guard links[uplink]?.isUp == true else { return }
            let address = HostAddress(index: uplink, value: .v4(IPv4Address(192, 0, 0, 7)))
            if isThere { addresses.insert(address) }
            try world.happen(isThere ? .address(address) : .timer)
            try route(
                DefaultRoute(isIPv6: false, index: uplink, metric: 2000 + uplink, origin: 16, gateway: nil), isThere)
            guard !isThere else { return }
            addresses.remove(address)
            // With the last IPv4 address the kernel drops the IPv4 routes of the interface, and does not tell.
            routes = routes.filter { $0.isIPv6 || $0.index != uplink }
            syncForeign()
            try world.happen(.addressGone(address))
        case .hostTakes(let uplink):
            guard let taken = world.kernel.places[uplink]?.translator?.mappings.first?.ipv6 else { return }
            addresses.insert(HostAddress(index: uplink, value: .v6(taken)))
            try world.happen(.address(HostAddress(index: uplink, value: .v6(taken))))
        case .routeMetric(let uplink, let metric):
            let route = DefaultRoute(isIPv6: true, index: uplink, metric: metric, origin: 9, gateway: .v6(router))
            for old in routes.filter({ $0.isIPv6 && $0.index == uplink }) {
                routes.remove(old)
                try world.happen(.routeGone(old))
            }
            routes.insert(route)
            try world.happen(.route(route))
        case .removeRoute(let uplink):
            guard let place = world.kernel.places[uplink], let device = place.hostLink else { return }
            world.kernel.places[uplink]?.routes = []
            for route in place.routes {
                try world.happen(
                    .routeGone(DefaultRoute(route, on: device)))
            }
        case .removeAddress(let uplink):
            guard let place = world.kernel.places[uplink], let device = place.hostLink,
                let address = place.ipv4s.min()
            else { return }
            // The kernel drops routes that prefer an address along with it, and does not tell.
            world.kernel.places[uplink]?.ipv4s.remove(address)
            world.kernel.places[uplink]?.routes.removeAll { $0.source == address }
            try world.happen(.addressGone(HostAddress(index: device, value: .v4(address))))
        case .removeDevice(let uplink):
            guard let device = world.kernel.places[uplink]?.hostLink else { return }
            world.kernel.places[uplink]?.hostLink = nil
            world.kernel.places[uplink]?.ipv4s = []
            world.kernel.places[uplink]?.routes = []
            try world.happen(.linkGone(device))
        case .clatLinkGone(let uplink):
            guard world.kernel.places[uplink]?.uplinkLink != nil else { return }
            world.kernel.places[uplink]?.uplinkLink = nil
            world.kernel.places[uplink]?.addresses = [:]
            world.kernel.places[uplink]?.routing = nil
            try world.happen(.clatLinkGone(uplink: uplink))
        case .modeStolen(let uplink):
            guard world.kernel.places[uplink]?.uplinkLink == .ipvlan else { return }
            world.kernel.places[uplink]?.isModeStolen = true
            try world.happen(.clatLink(isModeStolen: true, uplink: uplink))
        case .unreachable(let uplink, let router):
            oracle.told[uplink]?.doubt(now: world.now)
            let address = IPv6Address(high: 0xfe80_0000_0000_0000, low: UInt64(router))
            try world.happen(.unreachable(address, uplink: uplink))
        case .traffic(let outbound, let inbound):
            world.traffic.outbound += UInt64(outbound)
            world.traffic.inbound += UInt64(inbound)
            // The counters are looked at every five minutes at least.
            oracle.unansweredUntil = world.now + .seconds(700)
            for uplink in 2...4 { oracle.told[uplink]?.doubt(now: world.now) }
        case .echo(let reply):
            world.echo = { _ in
                switch reply {
                case .reply: .reply(milliseconds: 7)
                case .silence: .silence
                case .refused: .refused("made to be")
                }
            }
        case .configure(let wish):
            configuration = wish.configuration
            try world.happen(.configure(configuration))
        case .settle: try settle()
        case .failing(let names): world.kernel.failing = names
        case .dad(let new): self.verdict = new
        case .dadEnds(let uplink, let duplicate):
            for address in world.kernel.places[uplink]?.addresses.keys.sorted() ?? [] {
                guard world.kernel.places[uplink]?.addresses[address] != nil else { continue }
                let phase: AddressPhase = duplicate ? .duplicate : .preferred
                world.kernel.places[uplink]?.addresses[address] = phase
                try world.happen(.clatAddress(address, phase, uplink: uplink))
            }
        case .translatorEnds(let uplink):
            guard world.kernel.places[uplink]?.translator != nil else { return }
            try world.happen(.translatorEnded("made to end", uplink: uplink))
        case .pass(let milliseconds): try world.pass(.milliseconds(milliseconds))
        case .sleep(let seconds):
            world.now = world.now + .seconds(seconds)
            try world.happen(.timer)
            for uplink in 2...4 { oracle.told[uplink]?.doubt(endsInSilence: true, now: world.now) }
            try world.happen(.resumed)
        case .overrun(let lost): try overrun(lost)
        case .crash:
            let old = world
            world = World(configuration)
            (world.now, world.resolve, world.traffic, world.echo) = (old.now, old.resolve, old.traffic, old.echo)
            (world.kernel.nextIndex, world.kernel.failing) = (old.kernel.nextIndex, old.kernel.failing)
            syncForeign()
            oracle.told = [:]
            try world.happen(.snapshot(host))
        case .restart(let milliseconds, let lost): try restart(after: .milliseconds(milliseconds), lost)
        case .renew(let uplink): try world.happen(.renew(uplink: uplink))
        case .associated(let uplink):
            oracle.told[uplink]?.doubt(now: world.now)
            try world.happen(.associated(uplink: uplink))
        case .resolver(let new):
            if [.prefix, .otherPrefix, .tiny].contains(new) { oracle.resolversTold = true }
            func told(_ number: Int, _ lifetime: Int) -> DNSOutcome? {
                PREF64("2001:db8:64\(number)::/96").map { .prefixes([$0], lifetime: lifetime) }
            }
            world.resolve = { _ in
                switch new {
                case .prefix: told(1, 600)
                case .otherPrefix: told(2, 3600)
                case .tiny: told(2, 0)
                case .no: DNSOutcome.none(.noAddress, lifetime: 300)
                case .error: .failed(.noAnswer)
                case .nothing: nil
                }
            }
        }
    }

    /// Another process takes over what this one leaves. Without losses, and at once, nothing changes.
    private mutating func restart(after pause: Duration, _ lost: Set<Happening.Loss>) throws {
        let handover = try Handover(
            decoding: Handover(world.machine) { world.kernel.places[$0] == nil ? nil : (.tcx, nil) }.encoded)
        let (before, old) = (world.machine, world)
        world = World(configuration)
        (world.now, world.kernel, world.resolve) = (old.now + pause, old.kernel, old.resolve)
        (world.traffic, world.echo) = (old.traffic, old.echo)
        // What is not left goes with its descriptors.
        world.kernel.places = [:]
        var adoptions: [Int: Adoption] = [:]
        for entry in handover.entries {
            guard var place = old.kernel.places[entry.index] else { continue }
            place.translator = entry.translator
            if lost.contains(.address) {
                place.addresses = place.addresses.filter { $0.key != place.addresses.keys.min() }
            }
            if lost.contains(.route) { place.routes = [] }
            if lost.contains(.ipv4), let address = place.ipv4s.min() {
                place.ipv4s.remove(address)
                place.routes.removeAll { $0.source == address }
            }
            if lost.contains(.network) {
                links[entry.index]?.carrierLosses += 1
                oracle.told[entry.index]?.reset()
            }
            guard !lost.contains(.device), let link = links[entry.index], link.carrierLosses == entry.carrierLosses,
                place.hostLink == entry.standing.hostLink, let adoption = try? Adoption(entry, found: place.standing)
            else { continue }
            if lost.isEmpty, pause == .zero, !adoption.differences.isEmpty {
                throw Broken(description: "\(entry.index): \(adoption.differences)")
            }
            adoptions[entry.index] = adoption
            world.kernel.places[entry.index] = place
        }
        // What was known is known only where there is something to go on with.
        for index in 2...4 where adoptions[index] == nil { oracle.told[index]?.reset() }
        try world.happen(.adopted(adoptions, host))
        guard lost.isEmpty, pause == .zero, world.kernel.failing.isEmpty else { return }
        for (index, uplink) in before.uplinks where uplink.reason.state == .on {
            if world.kernel.places[index] != old.kernel.places[index] {
                throw Broken(
                    description: "\(index): the restart changed something: \(world.steps.map(\.name.rawValue))")
            }
        }
    }

    /// Notices are lost, and with them what was taken away; all is listed anew.
    private mutating func overrun(_ lost: Set<Happening.Loss>) throws {
        for (index, place) in world.kernel.places {
            if lost.contains(.route) { world.kernel.places[index]?.routes = [] }
            if lost.contains(.ipv4), let address = place.ipv4s.min() {
                world.kernel.places[index]?.ipv4s.remove(address)
                world.kernel.places[index]?.routes.removeAll { $0.source == address }
            }
            if lost.contains(.device) {
                world.kernel.untold.insert(index)
                world.kernel.places[index]?.hostLink = nil
                world.kernel.places[index]?.ipv4s = []
                world.kernel.places[index]?.routes = []
            }
            if lost.contains(.address), let address = place.addresses.keys.min() {
                world.kernel.places[index]?.addresses[address] = nil
            }
        }
        if lost.contains(.network) {
            routes = routes.filter(\.isIPv6)
            addresses = addresses.filter { if case .v4 = $0.value { false } else { true } }
            syncForeign()
        }
        for index in world.kernel.places.keys.sorted() {
            guard let place = world.kernel.places[index], place.uplinkLink != nil else { continue }
            try world.happen(.clatAddresses(place.addresses, uplink: index))
        }
        world.kernel.untold = []
        try world.happen(.snapshot(host))
    }

    private func hex(_ number: Int, _ digits: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    private var host: Host {
        var host = Host()
        host.links = links
        host.addresses = addresses
        host.defaultRoutes = routes
        for (_, place) in world.kernel.places {
            guard let device = place.hostLink else { continue }
            host.links[device] = Uplink(
                index: device, name: "clat-\(device)", medium: .ethernet, kind: "veth", isUp: true, isRunning: true,
                mtu: 1500, hardwareAddress: nil, master: nil)
            for address in place.ipv4s { host.addresses.insert(HostAddress(index: device, value: .v4(address))) }
            for route in place.routes {
                host.defaultRoutes.insert(DefaultRoute(route, on: device))
            }
        }
        return host
    }

    /// The shortest history found that still breaks: every happening is left out that can be.
    static func cutDown(_ history: [Happening]) -> [Happening] {
        var shortest = history
        var index = shortest.count
        while index > 0 {
            index -= 1
            var shorter = shortest
            shorter.remove(at: index)
            do { try run(shorter) } catch { shortest = shorter }
        }
        return shortest
    }
}

@Suite("Simulation")
struct SimulationTests {
    #if DEBUG
        static let histories: UInt64 = 300
    #else
        static let histories: UInt64 = 10_000
    #endif

    /// They share the processors.
    static let lanes: UInt64 = 4

    @Test(
        "10,000 random histories (300 in a debug build) keep every rule, recover, and leave nothing",
        arguments: 1...lanes)
    func histories(first: UInt64) {
        for seed in stride(from: first, through: Self.histories, by: Int(Self.lanes)) {
            var random = SeededRandom(seed: seed)
            let history = (0..<Int.random(in: 10...60, using: &random)).map { _ in Happening.random(&random) }
            do { try Simulation.run(history) } catch {
                let shortest = Simulation.cutDown(history)
                var why = "\(error)"
                do { try Simulation.run(shortest) } catch { why = "\(error)" }
                let lines = shortest.map { "    \($0)" }.joined(separator: "\n")
                Issue.record("seed \(seed): \(why)\n\(lines)")
                return
            }
        }
    }
}
