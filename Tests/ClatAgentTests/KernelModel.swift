import ClatBase
import ClatTranslator

@testable import ClatAgent

/// A model of the kernel: carries steps out on plain values, refuses what a kernel would, and can be made to fail.
struct KernelModel {
    /// What the steps have left in one uplink's namespace and in the host.
    struct Place: Equatable {
        var namespace = false
        var uplinkLink: UplinkLinkKind?
        var isModeStolen = false
        var hostLink: Int?
        var mtu: Int?
        var addresses: [IPv6Address: AddressPhase] = [:]
        var routing: Routing?
        var translator: TranslatorConfiguration?
        var ipv4s: Set<IPv4Address> = []
        var routes: [IPv4Route] = []
    }

    /// A step in the wrong order, or one that would leave the host in a bad state.
    struct Violation: Error { var text: String }

    var places: [Int: Place] = [:]
    var nextIndex = 1000
    /// Whether the next step of that name fails.
    var failing: Set<Step.Name> = []
    /// Metrics of IPv4 default routes that others have set.
    var foreignMetrics: Set<Int> = []
    /// Uplinks whose device has gone without a notice.
    var untold: Set<Int> = []
    /// Uplinks that are kept clean.
    var guards: Set<Int> = []

    /// Nothing of ours is left.
    var isClean: Bool { places.values.allSatisfy { $0 == Place() } }

    mutating func carryOut(_ step: Step, on uplink: Int) throws -> Event {
        if failing.contains(step.name) { return .failed(step, "made to fail", uplink: uplink) }
        var place = places[uplink] ?? Place()
        var result = StepResult.done
        func require(_ condition: Bool, _ text: String) throws {
            if !condition { throw Violation(text: "\(step.name.rawValue) on \(uplink): \(text)") }
        }
        switch step {
        case .createNamespace:
            try require(!place.namespace, "there is one")
            place.namespace = true
        case .createUplinkLink(parent: _, let attachment, hardwareAddress: _):
            try require(place.namespace && place.uplinkLink == nil, "out of order")
            try require(place.translator == nil, "a translator that knows another link")
            let kind = attachment == .relay ? UplinkLinkKind.relay : .ipvlan
            place.uplinkLink = kind
            guards.insert(uplink)
            result = .uplinkLink(kind)
        case .restoreMode:
            try require(place.uplinkLink == .ipvlan, "no ipvlan")
            place.isModeStolen = false
        case .setHostLinkMTU(let mtu):
            try require(place.hostLink != nil, "no device")
            place.mtu = mtu
        case .createHostLink(name: _, let mtu):
            try require(place.namespace && place.hostLink == nil, "out of order")
            nextIndex += 1
            place.hostLink = nextIndex
            place.mtu = mtu
            result = .hostLink(index: nextIndex)
        case .addAddress(let address):
            try require(place.uplinkLink != nil, "no link")
            try require(
                place.hostLink != nil || untold.contains(uplink), "the host would send back what is relayed")
            try require(place.translator != nil, "the stack would answer what comes for the address")
            try require(!places.values.contains { $0.addresses[address] != nil }, "two instances with one address")
            place.addresses[address] = .tentative
        case .removeAddress(let address): place.addresses[address] = nil
        case .announce(let address):
            try require(place.addresses[address] == .preferred, "not ours for sure")
            try require(place.uplinkLink != .relay, "nobody is there to be told")
        case .setRouting(let routing):
            try require(place.uplinkLink != nil, "no link")
            try require(
                place.uplinkLink != .relay || routing.hardwareAddress == nil, "a neighbour that would be asked for")
            place.routing = routing
        case .startTranslator(let configuration):
            try require(place.hostLink != nil && place.uplinkLink != nil && place.translator == nil, "out of order")
            try require(place.routing != nil, "no way out")
            try require(place.addresses.isEmpty, "the stack may have answered what came for the address")
            place.translator = configuration
        case .updateTranslator(let configuration):
            try require(place.translator != nil, "not running")
            let known = configuration.mappings.map(\.ipv4)
            try require(place.ipv4s.allSatisfy(known.contains), "the host would send from an address it does not know")
            place.translator = configuration
        case .addIPv4Address(let address):
            try require(place.hostLink != nil, "no device")
            try require(!places.values.contains { $0.ipv4s.contains(address) }, "two instances with one IPv4 address")
            let mapping = place.translator?.mappings.first { $0.ipv4 == address }
            try require(mapping != nil, "not the translator's")
            try require(mapping.flatMap { place.addresses[$0.ipv6] }?.isUsable == true, "address not usable")
            place.ipv4s.insert(address)
        case .setIPv4Route(let route, let replacing):
            try require(place.translator != nil, "IPv4 route before the translator")
            try require(place.ipv4s.contains(route.source), "route from an address that is not there")
            try require(
                !places.values.flatMap(\.routes).contains { $0.metric == route.metric && $0 != replacing },
                "metric taken")
            try require(!foreignMetrics.contains(route.metric), "the metric is somebody else's")
            place.routes.removeAll { $0 == replacing }
            place.routes.append(route)
        case .removeIPv4Route(let route): place.routes.removeAll { $0 == route }
        case .removeIPv4Address(let address):
            try require(
                failing.contains(.removeIPv4Route) || !place.routes.contains { $0.source == address },
                "route still there")
            place.ipv4s.remove(address)
            place.routes.removeAll { $0.source == address }
        case .stopTranslator:
            try require(
                !failing.isDisjoint(with: [.removeIPv4Route, .removeIPv4Address]) || place.routes.isEmpty,
                "IPv4 route without translator")
            try require(
                failing.contains(.removeUplinkLink) || place.addresses.isEmpty,
                "the stack would answer what comes for the address")
            place.translator = nil
        case .removeHostLink: (place.hostLink, place.mtu, place.ipv4s, place.routes) = (nil, nil, [], [])
        case .removeUplinkLink:
            (place.uplinkLink, place.addresses, place.routing) = (nil, [:], nil)
            place.isModeStolen = false
        case .closeNamespace: place = Place()
        }
        places[uplink] = place
        return .done(step, result, uplink: uplink)
    }
}

extension DefaultRoute {
    /// One of ours, as the kernel lists it.
    init(_ route: IPv4Route, on device: Int) {
        self.init(
            isIPv6: false, index: device, metric: route.metric, origin: IPv4Route.origin,
            gateway: .v6(Instance.gateway),
            source: route.source, mtu: route.mtu)
    }
}

extension KernelModel.Place {
    /// What a new process finds of it; the translator is what it begins with.
    var standing: Standing {
        var standing = Standing()
        standing.hasNamespace = namespace
        standing.uplinkLink = uplinkLink
        standing.isModeStolen = isModeStolen
        standing.hostLink = hostLink
        standing.hostLinkMTU = mtu
        standing.addresses = addresses
        standing.routing = routing.map { Routing(router: $0.router, hardwareAddress: nil, onLink: $0.onLink) }
        standing.ipv4s = ipv4s
        standing.route = routes.first
        return standing
    }
}

/// The agent's mind, the model of the kernel and a clock of our own, put together.
struct World {
    var machine: AgentMachine
    var kernel = KernelModel()
    var now = BootInstant(nanoseconds: 1_000_000_000)
    /// Every step that was carried out.
    var steps: [Step] = []
    /// Every solicitation: when.
    var solicitations: [BootInstant] = []
    /// Every question to a resolver.
    var questions: [DNSQuestion] = []
    /// What a resolver answers at once; nil is never.
    var resolve: (DNSQuestion) -> DNSOutcome? = { _ in nil }
    /// What the files of the system hold.
    var systemResolvers: (servers: [IPv6Address], source: ResolverSource) = ([], .resolvConf)
    /// How often they were looked through.
    var searches = 0
    /// Every change of the PREF64, in words.
    var choices: [String] = []
    /// What was said of the path.
    var judgements: [String?] = []
    /// Whether IPv4 can be had without a lease, each time that changed.
    var spares: [Bool] = []
    /// What the translator's counters of TCP and UDP say.
    var traffic: (outbound: UInt64, inbound: UInt64) = (0, 0)
    /// How often they were looked at.
    var samples = 0
    /// Every echo request: to whom.
    var echoes: [IPv4Address] = []
    /// What comes of an echo request through a PREF64.
    var echo: (PREF64) -> PathWatch.Echo = { _ in .silence }
    var isFinished = false
    /// What DAD says of a new address, after a moment; nil leaves it tentative.
    var dad: (IPv6Address) -> AddressPhase? = { _ in .preferred }

    init(_ configuration: Configuration = Configuration()) {
        machine = AgentMachine(configuration: configuration, secret: Array(1...32))
    }

    /// Takes in an event and all that follows from it at once.
    mutating func happen(_ event: Event) throws {
        var queue = [event]
        var rounds = 0
        while !queue.isEmpty {
            rounds += 1
            if rounds > 1000 { throw KernelModel.Violation(text: "no end after 1000 events") }
            for action in machine.handle(queue.removeFirst(), now: now) {
                switch action {
                case .carryOut(let step, let uplink):
                    steps.append(step)
                    let outcome = try kernel.carryOut(step, on: uplink)
                    queue.append(outcome)
                    if case .done(.addAddress(let address), _, _) = outcome, let phase = dad(address) {
                        kernel.places[uplink]?.addresses[address] = phase
                        queue.append(.clatAddress(address, phase, uplink: uplink))
                    }
                case .solicit(let uplink):
                    solicitations.append(now)
                    queue.append(.solicited(uplink: uplink, jitter: 0))
                case .ask(let question, let uplink):
                    questions.append(question)
                    if let outcome = resolve(question) {
                        queue.append(.answered(outcome, question, uplink: uplink, jitter: 0))
                    }
                case .findResolvers(let uplink):
                    searches += 1
                    queue.append(.resolvers(systemResolvers.servers, systemResolvers.source, uplink: uplink))
                case .chose(let choice, let before, let cause, _):
                    choices.append(Choice.change(from: before, to: choice, cause))
                case .judged(let path, _): judgements.append(path.sentence)
                case .spare(let can, _): spares.append(can)
                case .sample(let uplink):
                    samples += 1
                    queue.append(.traffic(outbound: traffic.outbound, inbound: traffic.inbound, uplink: uplink))
                case .echo(let address, let prefix, let uplink):
                    echoes.append(address)
                    queue.append(.echoed(echo(prefix), through: prefix, uplink: uplink))
                case .report: break
                case .releaseGuard(let uplink):
                    if kernel.places[uplink]?.ipv4s.isEmpty == false {
                        throw KernelModel.Violation(text: "nothing guards \(uplink)")
                    }
                    kernel.guards.remove(uplink)
                case .finish: isFinished = true
                }
            }
        }
    }

    /// Lets time pass, with every timer on its way.
    mutating func pass(_ duration: Duration) throws {
        let end = now + duration
        while let deadline = machine.nextDeadline(after: now), deadline <= end {
            now = max(now, deadline)
            try happen(.timer)
            now = now + .milliseconds(1)
        }
        now = max(now, end)
        try happen(.timer)
    }

    func uplink(_ index: Int) -> UplinkMachine? { machine.uplinks[index] }
}
