public import ClatBase
import ClatTranslator

/// The agent's mind: every event goes in, actions come out. Pure; the clock, the kernel and chance are the caller's.
public struct AgentMachine: Hashable, Sendable {
    /// What the operator wants.
    public private(set) var configuration: Configuration
    /// Key of RFC 7217 identifiers, 16 octets or more.
    private let secret: [UInt8]
    /// Another key, of this run only.
    private let ephemeralSecret: [UInt8]
    /// The mirror of the kernel.
    public private(set) var host = Host()
    /// By interface index.
    public private(set) var uplinks: [Int: UplinkMachine] = [:]
    /// The operator wants the end.
    public private(set) var isStopping = false

    /// A mind that knows nothing yet.
    public init(configuration: Configuration, secret: [UInt8], ephemeralSecret: [UInt8] = []) {
        self.configuration = configuration
        self.secret = secret
        self.ephemeralSecret = ephemeralSecret
    }

    /// Whether a router has told something about an uplink that has not run out.
    func knows(_ router: IPv6Address, on uplink: Int) -> Bool {
        uplinks[uplink]?.knowledge.routers.contains { $0.address == router } == true
    }

    /// The host's IPv4 device for an uplink by the name it has now, or, where no notice of it came yet, was given; nil where
    /// there is none.
    func hostDevice(of index: Int) -> String? {
        guard let uplink = uplinks[index], let device = uplink.standing.hostLink else { return nil }
        return host.links[device]?.name ?? uplink.uplink?.hostLinkName
    }

    /// When ``Event/timer`` is next due.
    public func nextDeadline(after now: BootInstant) -> BootInstant? {
        uplinks.values.compactMap { $0.nextDeadline(after: now) }.min()
    }

    /// Takes in an event; what comes back is to be carried out in order, each outcome being an event of its own.
    public mutating func handle(_ event: Event, now: BootInstant) -> [Action] {
        absorb(event, now: now)
        var actions: [Action] = []
        var holdings = Holdings(host, uplinks)
        let missing = holdings.missing
        for index in uplinks.keys.sorted() { actions += advance(index, &holdings, now: now) }
        // What drains elsewhere gives way at once.
        if holdings.missing != missing {
            for index in uplinks.keys.sorted() { actions += advance(index, &holdings, now: now) }
        }
        if isStopping, uplinks.values.allSatisfy({ $0.standing.isNothing && $0.inFlight == nil }) {
            actions.append(.finish)
        }
        return actions
    }

    private mutating func advance(_ index: Int, _ holdings: inout Holdings, now: BootInstant) -> [Action] {
        guard var uplink = uplinks[index] else { return [] }
        let world = surroundings(of: index, holdings)
        uplink.knowledge.pref64s.configure(world.policy.pref64)
        if !world.policy.usesDNS { uplink.knowledge.pref64s.forgetResolvers() }
        uplink.pass(now: now)
        let (before, couldSpare) = (uplink.reason, uplink.isIPv6OnlyCapable)
        var actions: [Action] = []
        if let step = uplink.advance(world, now: now) {
            actions.append(.carryOut(step, uplink: index))
        }
        let stands = uplink.standing.uplinkLink != nil || uplink.inFlight != nil
        if uplink.guardTimer.takeRelease(stands: stands, reason: uplink.reason, now: now) {
            actions.append(.releaseGuard(uplink: index))
        }
        if uplink.reason != before {
            actions.insert(.report(uplink: index, uplink.reason), at: 0)
        }
        // Beside native IPv4 this can change while the reason stays.
        if uplink.isIPv6OnlyCapable != couldSpare {
            actions.append(.spare(uplink.isIPv6OnlyCapable, uplink: index))
        }
        let isPossible = UplinkMachine.obstacle(to: uplink.uplink, world) == nil
        // Nobody was asked before.
        if isPossible, !uplink.isPossible { uplink.solicitation.start(now: now) }
        uplink.isPossible = isPossible
        if !isPossible {
            uplink.solicitation.stop()
        } else if uplink.solicitation.take(now: now) {
            actions.append(.solicit(uplink: index))
        }
        let (questions, search) = uplink.questions(world, now: now)
        actions += questions.map { .ask($0, uplink: index) } + (search ? [.findResolvers(uplink: index)] : [])
        actions += uplink.watchPath(world, now: now)
        if uplink.path.takeVerdict() { actions.append(.judged(uplink.path, uplink: index)) }
        let choice = isPossible ? uplink.entry.map(Choice.init) : nil
        if isPossible, choice != uplink.choice {
            actions.insert(
                .chose(choice, insteadOf: uplink.choice, uplink.cause(against: uplink.choice), uplink: index), at: 0)
        }
        uplink.choice = choice
        uplinks[index] = uplink.uplink == nil && uplink.standing.isNothing && uplink.inFlight == nil ? nil : uplink
        holdings.take(index, uplinks[index])
        return actions
    }

    /// What uplinks hold that there is but once. Few do, so that each need not look at all others: a host may have hundreds.
    private struct Holdings {
        /// By interface index.
        private(set) var addresses: [Int: Set<IPv4Address>] = [:]
        private(set) var metrics: [Int: Set<Int>] = [:]
        /// Those that are off for want of an IPv4 address.
        private(set) var missing: Set<Int> = []
        /// See ``Host/foreignIPv4Routes``.
        let foreignMetrics: Set<Int>

        init(_ host: Host, _ uplinks: [Int: UplinkMachine]) {
            foreignMetrics = Set(host.foreignIPv4Routes.map(\.metric))
            for (index, uplink) in uplinks { take(index, uplink) }
        }

        /// Takes in what an uplink holds now.
        mutating func take(_ index: Int, _ uplink: UplinkMachine?) {
            let target = uplink?.isWanted == true ? uplink?.target : nil
            let mappings = uplink?.standing.translator?.mappings ?? []
            let held = (uplink?.standing.ipv4s ?? []).union(mappings.map(\.ipv4)).union(target?.ipv4s ?? [])
            addresses[index] = held.isEmpty ? nil : held
            let routes = [uplink?.standing.route, target?.route].compactMap { $0?.metric }
            metrics[index] = routes.isEmpty ? nil : Set(routes)
            if case .addressesTaken = uplink?.reason { missing.insert(index) } else { missing.remove(index) }
        }

        /// What all but that one hold.
        static func all<Value>(_ held: [Int: Set<Value>], but index: Int) -> Set<Value> {
            held.reduce(into: []) { if $1.key != index { $0.formUnion($1.value) } }
        }
    }

    private func surroundings(of index: Int, _ holdings: Holdings) -> UplinkMachine.Surroundings {
        UplinkMachine.Surroundings(
            configuration: configuration,
            policy: uplinks[index]?.uplink.map { configuration.policy(for: $0.name) } ?? configuration.defaults,
            host: host,
            secret: secret, ephemeralSecret: ephemeralSecret,
            takenAddresses: Holdings.all(holdings.addresses, but: index),
            takenMetrics: Holdings.all(holdings.metrics, but: index).union(holdings.foreignMetrics),
            isAddressMissing: holdings.missing.contains { $0 != index },
            isStopping: isStopping)
    }

    private mutating func absorb(_ event: Event, now: BootInstant) {
        switch event {
        case .adopted(let adoptions, let new):
            absorb(.snapshot(new), now: now)
            for (index, adoption) in adoptions { uplinks[index]?.adopt(adoption, now: now) }
        case .snapshot(let new):
            let gone = host.links.keys.filter { new.links[$0] == nil }
            let usable = new.addresses.subtracting(new.tentative).subtracting(
                host.addresses.subtracting(host.tentative))
            host.addresses = new.addresses
            host.tentative = new.tentative
            host.defaultRoutes = new.defaultRoutes
            for index in gone { remove(link: index, now: now) }
            for index in new.links.keys.sorted() {
                if let link = new.links[index] { take(link, now: now) }
            }
            for address in usable { askAgain(because: address, now: now) }
            repair(now: now) { $0.compare(with: new, now: now) }
        case .link(let link): take(link, now: now)
        case .linkGone(let index): remove(link: index, now: now)
        case .associated(let index): uplinks[index]?.associate(now: now)
        case .address(let address, let isTentative):
            if host.take(address, isTentative: isTentative) { askAgain(because: address, now: now) }
        case .addressGone(let address):
            host.drop(address)
            repair(now: now) { uplink in
                if uplink.standing.hostLink == address.index, case .v4(let ipv4) = address.value {
                    uplink.standing.ipv4s.remove(ipv4)
                    // The kernel drops routes that prefer the address along with it, and does not tell.
                    if uplink.standing.route?.source == ipv4 { uplink.standing.route = nil }
                }
            }
        case .route(let route): host.defaultRoutes.insert(route)
        case .routeGone(let route):
            host.defaultRoutes.remove(route)
            repair(now: now) { uplink in
                if uplink.standing.hostLink == route.index, IPv4Route(route) == uplink.standing.route {
                    uplink.standing.route = nil
                }
            }
        case .routes(let routes):
            host.defaultRoutes = routes
            repair(now: now) { $0.compare(with: routes) }
        case .advertisement(let advertisement, let index):
            hear(advertisement, on: index, now: now)
        case .refusedAdvertisement(let problem, let count, let index):
            uplinks[index]?.refused[problem, default: 0] += count
        case .solicited(let index, let jitter):
            uplinks[index]?.solicitation.sent(now: now, jitter: jitter)
        case .answered(let outcome, let question, let index, let jitter):
            uplinks[index]?.absorb(outcome, question, jitter: jitter, now: now)
        case .resolvers(let servers, let source, let index):
            uplinks[index]?.knowledge.tell(servers, from: source, now: now)
        case .traffic(let outbound, let inbound, let index):
            uplinks[index]?.absorb(outbound: outbound, inbound: inbound, now: now)
        case .echoed(let outcome, let prefix, let index):
            uplinks[index]?.absorb(outcome, through: prefix, now: now)
        case .renew(let index): uplinks[index]?.renew(now: now)
        case .resumed:
            for index in uplinks.keys { uplinks[index]?.resume(now: now) }
        case .clatAddress(let address, let phase, let index):
            uplinks[index]?.absorb(address, phase, now: now)
        case .clatAddresses(let listed, let index):
            for address in uplinks[index]?.standing.addresses.keys.sorted() ?? [] {
                uplinks[index]?.absorb(address, listed[address] ?? .vanished, now: now)
            }
        case .unreachable(let neighbour, let index):
            if uplinks[index]?.standing.routing?.router == neighbour { uplinks[index]?.doubtRouter(now: now) }
        case .clatLink(let isModeStolen, let index):
            uplinks[index]?.absorb(modeStolen: isModeStolen, now: now)
        case .clatLinkGone(let index):
            if uplinks[index]?.standing.uplinkLink != nil {
                uplinks[index]?.standing.forget(.removeUplinkLink)
                uplinks[index]?.fail(.failed(.createUplinkLink, "somebody removed it"), now: now)
            }
        case .done(let step, let result, let index):
            uplinks[index]?.absorb(done: step, result, now: now)
        case .failed(let step, let text, let index):
            uplinks[index]?.absorb(failed: step, text, now: now)
        case .translatorEnded(let text, let index):
            uplinks[index]?.fail(.failed(.startTranslator, text), now: now)
        case .configure(let new):
            configuration = new
            // Nobody was asked for an interface that was not to be served.
            for index in uplinks.keys where uplinks[index]?.reason.state == .off {
                uplinks[index]?.solicitation.start(now: now)
                uplinks[index]?.knowledge.dns.askAgain(now: now)
            }
        case .timer: break
        case .stop: isStopping = true
        }
    }

    private mutating func hear(_ advertisement: RouterAdvertisement, on index: Int, now: BootInstant) {
        guard uplinks[index] != nil else { return }
        guard !host.has(.v6(advertisement.router), on: index) else {
            uplinks[index]?.refused[.own, default: 0] += 1
            return
        }
        uplinks[index]?.advertisements += 1
        for problem in advertisement.ignoredOptions {
            uplinks[index]?.refused[problem, default: 0] += 1
        }
        if let surplus = uplinks[index]?.knowledge.hear(advertisement, now: now), surplus > 0 {
            uplinks[index]?.refused[.noRoom, default: 0] += surplus
        }
        if uplinks[index]?.knowledge.doubt == nil {
            if advertisement.routerLifetime > 0 { uplinks[index]?.solicitation.stop() }
        } else if uplinks[index]?.solicitation.due == nil {
            // While some routers have not spoken since the network may have changed, all are asked.
            uplinks[index]?.solicitation.start(now: now)
        }
    }

    /// A link appeared or changed.
    private mutating func take(_ link: Uplink, now: BootInstant) {
        let known = host.links.updateValue(link, forKey: link.index)
        if !link.isUp {
            // The kernel drops the IPv4 routes of a link that goes down, and does not tell.
            host.defaultRoutes = host.defaultRoutes.filter { $0.isIPv6 || $0.index != link.index }
            if known?.isUp == true {
                repair(now: now) { if $0.standing.hostLink == link.index { $0.lostHostLink(isDown: true, now: now) } }
            }
        }
        guard link.medium != .loopback, !link.name.hasPrefix(Uplink.hostLinkPrefix) else { return }
        var uplink = uplinks[link.index] ?? UplinkMachine(now: now)
        uplink.uplink = link
        // A carrier that was lost and is back already may be that of another network.
        let hasFlapped = known.map { $0.carrierLosses != link.carrierLosses } ?? false
        if !link.isRunning || hasFlapped { uplink.forgetNetwork() }
        if link.isRunning, hasFlapped || known?.isRunning != true || known?.hardwareAddress != link.hardwareAddress {
            uplink.solicitation.start(now: now)
            uplink.knowledge.dns.askAgain(now: now)
        } else if known?.isOperational == false, link.isOperational {
            uplink.associate(now: now)
        }
        uplinks[link.index] = uplink
    }

    /// A new address is a new attachment, and what could not be asked before can be asked now: a solicitation goes out from
    /// a link-local address, a question from a global one.
    private mutating func askAgain(because address: HostAddress, now: BootInstant) {
        guard case .v6 = address.value else { return }
        if address.isGlobal {
            uplinks[address.index]?.knowledge.dns.askAgain(now: now)
        } else if uplinks[address.index]?.solicitation.due != nil {
            uplinks[address.index]?.solicitation.start(now: now)
        }
    }

    private mutating func remove(link index: Int, now: BootInstant) {
        host.links[index] = nil
        for address in host.addresses where address.index == index { host.drop(address) }
        host.defaultRoutes = host.defaultRoutes.filter { $0.index != index }
        uplinks[index]?.uplink = nil
        uplinks[index]?.forgetNetwork()
        repair(now: now) { if $0.standing.hostLink == index { $0.lostHostLink(isDown: false, now: now) } }
    }

    private mutating func repair(now: BootInstant, _ body: (inout UplinkMachine) -> Void) {
        for index in uplinks.keys {
            if var uplink = uplinks[index] {
                body(&uplink)
                uplinks[index] = uplink
            }
        }
    }
}
