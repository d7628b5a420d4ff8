import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

/// One thing that happens in a random history. Plain values, so that a history can be cut down and run again.
enum Happening: Hashable, Sendable {
    case advertisement(
        uplink: Int, router: Int, pref64: Int?, pref64Lifetime: Int, prefixes: [Int], routerLifetime: Int)
    case link(Int, up: Bool, carrier: Bool, mtu: Int, hardware: Int)
    case linkGone(Int)
    case taken(last: Int, Bool)
    case nativeIPv4(uplink: Int, Bool)
    case routeMetric(uplink: Int, Int)
    case removeRoute(uplink: Int)
    case removeAddress(uplink: Int)
    case removeDevice(uplink: Int)
    case failing(Set<Step.Name>)
    case dad(Verdict)
    case dadEnds(uplink: Int, duplicate: Bool)
    case translatorEnds(uplink: Int)
    case pass(milliseconds: Int)
    case sleep(seconds: Int)
    case overrun
    case crash
    case restart(milliseconds: Int, lost: Set<Loss>)
    case renew(uplink: Int)
    case associated(uplink: Int)
    case resolver(Answer)

    /// What resolvers answer from then on.
    enum Answer: Hashable, Sendable, CaseIterable { case prefix, otherPrefix, tiny, no, error, nothing }

    /// What is taken away while no agent runs.
    enum Loss: Hashable, Sendable, CaseIterable { case address, ipv4, route, device, network }

    /// What DAD does with new addresses.
    enum Verdict: Hashable, Sendable, CaseIterable { case preferred, optimistic, silent, duplicate }

    static func random(_ random: inout SeededRandom) -> Happening {
        func number(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &random) }
        func chance(_ percent: Int) -> Bool { number(1...100) <= percent }
        let uplink = number(2...4)
        switch number(0...102) {
        case 0..<34:
            return .advertisement(
                uplink: uplink, router: number(1...2), pref64: chance(85) ? number(1...2) : nil,
                pref64Lifetime: chance(15) ? 0 : [600, 1800, 65528][number(0...2)],
                prefixes: (1...3).filter { _ in chance(50) }.map { chance(20) ? -$0 : $0 },
                routerLifetime: chance(10) ? 0 : 1800)
        case 34..<44:
            return .link(
                uplink, up: chance(85), carrier: chance(80), mtu: [1280, 1400, 1500, 9000][number(0...3)],
                hardware: number(0...1))
        case 44..<46: return .linkGone(uplink)
        case 46..<51: return .taken(last: number(1...7), chance(40))
        case 51..<55: return .nativeIPv4(uplink: uplink, chance(40))
        case 55..<57: return .routeMetric(uplink: uplink, number(100...102))
        case 57..<59: return .removeRoute(uplink: uplink)
        case 59..<61: return .removeAddress(uplink: uplink)
        case 61..<63: return .removeDevice(uplink: uplink)
        case 63..<68:
            let names: [Step.Name] = [
                .createNamespace, .createUplinkLink, .createHostLink, .addAddress, .setRouting, .startTranslator,
                .updateTranslator, .addIPv4Address, .setIPv4Route, .removeIPv4Route, .removeIPv4Address,
                .stopTranslator, .removeHostLink, .removeUplinkLink, .removeAddress,
            ]
            return .failing(chance(50) ? [] : Set(names.filter { _ in chance(15) }))
        case 68..<73: return .dad(Verdict.allCases[number(0...3)])
        case 73..<79: return .dadEnds(uplink: uplink, duplicate: chance(25))
        case 79..<81: return .translatorEnds(uplink: uplink)
        case 81..<92: return .pass(milliseconds: [10, 1000, 5000, 60_000, 700_000, 7_300_000][number(0...5)])
        case 92..<94: return .sleep(seconds: [1, 700, 30_000][number(0...2)])
        case 94..<95: return .overrun
        case 95..<96: return .crash
        case 96..<97: return .renew(uplink: uplink)
        case 97..<98: return .associated(uplink: uplink)
        case 98..<100: return .resolver(Answer.allCases[number(0...5)])
        default:
            return .restart(
                milliseconds: [0, 0, 100, 700_000][number(0...3)],
                lost: chance(60) ? [] : Set(Loss.allCases.filter { _ in chance(30) }))
        }
    }
}

/// A history that broke a rule.
struct Broken: Error, CustomStringConvertible {
    var description: String
}

/// Runs histories against the model of the kernel, and holds every rule after every happening.
struct Simulation {
    private var world = World()
    private var links: [Int: Uplink] = [:]
    private var addresses: Set<HostAddress> = []
    private var routes: Set<DefaultRoute> = []
    private var verdict = Happening.Verdict.preferred

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
        do { try simulation.recovers() } catch { throw Broken(description: "in the end: \(error)") }
    }

    /// The last one is a modem's.
    private static func link(_ index: Int) -> Uplink {
        var link = ethernet(index)
        if index == 4 { link.medium = .pointToPoint }
        return link
    }

    private mutating func set(_ link: Uplink) throws {
        links[link.index] = link
        try world.happen(.link(link))
        guard link.isRunning else { return }
        let address = HostAddress(
            index: link.index, value: .v6(IPv6Address(high: 0x2001_0db8_0000_0000, low: UInt64(link.index))))
        addresses.insert(address)
        try world.happen(.address(address))
    }

    private mutating func apply(_ happening: Happening) throws {
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
            try world.happen(.advertisement(try parse(text, from: source), uplink: uplink))
        case .link(let index, let up, let carrier, let mtu, let hardware):
            // The kernel drops the IPv4 routes of a link that goes down, and does not tell.
            if !up { routes = routes.filter { $0.isIPv6 || $0.index != index } }
            var link = Self.link(index)
            link.noARP = index == 3 && hardware == 1
            link.isUp = up
            link.isRunning = up && carrier
            link.mtu = mtu
            link.hardwareAddress = HardwareAddress(bytes: [2, 0, 0, 0, UInt8(hardware), UInt8(index)])
            try set(link)
        case .linkGone(let index):
            links[index] = nil
            routes = routes.filter { $0.index != index }
            addresses = addresses.filter { $0.index != index }
            // The kernel takes what stands on it along.
            world.kernel.places[index]?.uplinkLink = nil
            world.kernel.places[index]?.addresses = [:]
            try world.happen(.linkGone(index))
        case .taken(let last, let isTaken):
            let address = HostAddress(index: 1, value: .v4(IPv4Address(192, 0, 0, UInt8(last))))
            if isTaken { addresses.insert(address) } else { addresses.remove(address) }
            try world.happen(isTaken ? .address(address) : .addressGone(address))
        case .nativeIPv4(let uplink, let isThere):
            guard links[uplink]?.isUp == true else { return }
            let route = DefaultRoute(isIPv6: false, index: uplink, metric: 50 + uplink, origin: 16)
            if isThere { routes.insert(route) } else { routes.remove(route) }
            try world.happen(isThere ? .route(route) : .routeGone(route))
        case .routeMetric(let uplink, let metric):
            let route = DefaultRoute(isIPv6: true, index: uplink, metric: metric, origin: 9)
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
                    .routeGone(
                        DefaultRoute(isIPv6: false, index: device, metric: route.metric, origin: IPv4Route.origin)))
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
            try world.happen(.resumed)
        case .overrun: try world.happen(.snapshot(host))
        case .crash:
            let (now, kernel, resolve) = (world.now, world.kernel, world.resolve)
            world = World()
            world.now = now
            world.resolve = resolve
            world.kernel.nextIndex = kernel.nextIndex
            world.kernel.failing = kernel.failing
            try world.happen(.snapshot(host))
        case .restart(let milliseconds, let lost): try restart(after: .milliseconds(milliseconds), lost)
        case .renew(let uplink): try world.happen(.renew(uplink: uplink))
        case .associated(let uplink): try world.happen(.associated(uplink: uplink))
        case .resolver(let new):
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
        world = World()
        (world.now, world.kernel, world.resolve) = (old.now + pause, old.kernel, old.resolve)
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
            if lost.contains(.network) { links[entry.index]?.carrierLosses += 1 }
            guard !lost.contains(.device), let link = links[entry.index], link.carrierLosses == entry.carrierLosses,
                place.hostLink == entry.standing.hostLink, let adoption = try? Adoption(entry, found: place.standing)
            else { continue }
            if lost.isEmpty, pause == .zero, !adoption.differences.isEmpty {
                throw Broken(description: "\(entry.index): \(adoption.differences)")
            }
            adoptions[entry.index] = adoption
            world.kernel.places[entry.index] = place
        }
        try world.happen(.adopted(adoptions, host))
        guard lost.isEmpty, pause == .zero, world.kernel.failing.isEmpty else { return }
        for (index, uplink) in before.uplinks where uplink.reason.state == .on {
            if world.kernel.places[index] != old.kernel.places[index] {
                throw Broken(
                    description: "\(index): the restart changed something: \(world.steps.map(\.name.rawValue))")
            }
        }
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
                host.defaultRoutes.insert(
                    DefaultRoute(isIPv6: false, index: device, metric: route.metric, origin: IPv4Route.origin))
            }
        }
        return host
    }

    /// What must hold at every moment. The model of the kernel holds the order of steps by itself.
    private func check() throws {
        func require(_ condition: Bool, _ text: String) throws {
            if !condition { throw Broken(description: text) }
        }
        for (index, place) in world.kernel.places {
            let machine = world.uplink(index)
            for route in place.routes {
                try require(place.translator != nil, "\(index): a route without a translator")
                try require(place.ipv4s.contains(route.source), "\(index): a route from an address that is not there")
                try require(links[index]?.isRunning == true, "\(index): a route over a dead link")
                try require(
                    !routes.contains { !$0.isIPv6 && $0.index == index }, "\(index): on beside native IPv4")
                let entries = machine?.knowledge.pref64s.entries ?? []
                try require(
                    entries.contains { $0.expires.map { $0 > world.now } ?? true }, "\(index): on without a PREF64")
                try require(
                    [.on, .starting].contains(machine?.reason.state),
                    "\(index): a route while \(String(describing: machine?.reason))")
                let taken = addresses.contains { $0.value == .v4(route.source) }
                try require(!taken, "\(index): \(route.source) is somebody else's")
            }
            if machine?.reason.state == .on {
                try require(!place.routes.isEmpty, "\(index): on without a route")
                try require(place.translator != nil, "\(index): on without a translator")
                try require(
                    (place.uplinkLink == .relay) == (links[index]?.attachment == .relay),
                    "\(index): on, carried by \(String(describing: place.uplinkLink))")
            }
            if machine?.reason.state == .off, machine?.reason.code != "step-failed" {
                try require(
                    place == KernelModel.Place() || !world.kernel.failing.isEmpty || links[index] == nil,
                    "\(index): off (\(machine?.reason.code ?? "gone")) with something left")
            }
            try require(place.addresses.count <= 6, "\(index): addresses pile up")
        }
    }

    /// Whatever has happened: on a good network IPv4 comes, and after the stop nothing is left.
    private mutating func recovers() throws {
        world.kernel.failing = []
        verdict = .preferred
        for happening in (1...7).map({ Happening.taken(last: $0, false) })
            + (2...4).map({ Happening.nativeIPv4(uplink: $0, false) })
            + (2...4).map({ Happening.link($0, up: true, carrier: true, mtu: 1500, hardware: 0) })
        {
            try apply(happening)
        }
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

    @Test("10,000 random histories (300 in a debug build) keep every rule, recover, and leave nothing")
    func histories() {
        for seed in 1...Self.histories {
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
