public import ClatBase
import ClatTranslator

/// All that is remembered of one uplink, and what follows from it.
public struct UplinkMachine: Hashable, Sendable {
    /// The link as the kernel last told; nil once it has gone.
    public internal(set) var uplink: Uplink?
    /// What routers and resolvers told.
    public internal(set) var knowledge = LinkKnowledge()
    /// The PREF64 that was last reported as chosen.
    var choice: Choice?
    /// Whether the path through the NAT64 works.
    public internal(set) var path = PathWatch()
    private var checksPath = false
    /// When to solicit.
    public internal(set) var solicitation = SolicitationSchedule()
    /// What stands.
    public internal(set) var standing = Standing()
    /// Why it is as it is.
    public internal(set) var reason = Reason.down
    /// Since when.
    public internal(set) var since: BootInstant
    /// See ``Reason/isIPv6OnlyCapable``; kept where that is nil.
    public private(set) var isIPv6OnlyCapable = true
    /// Advertisements that were used.
    public internal(set) var advertisements = 0
    /// DNS answers that could not be read.
    public internal(set) var refusedAnswers: [DNSProblem: Int] = [:]
    /// Advertisements, and options, that were not.
    public internal(set) var refused: [RouterAdvertisementProblem: Int] = [:]
    /// What was last wanted: choices stay as they are while they can.
    public internal(set) var target: Target?
    /// Whether that is wanted still.
    var isWanted = false
    /// Whether a CLAT could run there when that was last looked at.
    var isPossible = false
    /// The step that is under way.
    var inFlight: Step?
    /// Addresses that DAD refused, in a row.
    var dadCounter = 0
    /// There is no other to try.
    private var addressIsFixed = false
    /// Failures in a row.
    var failures = 0
    /// The last one, since IPv4 last worked.
    var failure: Reason?
    /// Nothing is tried before.
    var retryAt: BootInstant?
    /// The PREF64 that was last told.
    private var lastEntry: PREF64Table.Entry?
    /// Since when nobody tells one any more.
    private var lostSince: BootInstant?
    /// When what keeps the uplink clean of the CLAT's IPv4 addresses is to go.
    var guardTimer = GuardTimer()
    /// When the router in use last did not answer.
    var routerDoubted: BootInstant?
    /// When the mode of the ipvlan was last stolen.
    var modeThefts: [BootInstant] = []

    /// Addresses that are tried before a pause (RFC 7217 section 6, IDGEN_RETRIES).
    static let dadTries = 3
    /// Mappings that drain at once: with the current one, what the translator takes.
    static let drainLimit = TranslatorConfiguration.mappingLimit - 1
    /// Thefts of the ipvlan's mode within ``goodRun`` that are undone.
    static let theftLimit = 3
    /// DAD takes a second or two; more means that the link is dead.
    static let dadLimit: Duration = .seconds(10)
    /// How long to wait once all tries met duplicates.
    static let duplicatePause: Duration = .seconds(300)
    /// Earlier failures are forgotten when there was none for so long after the last new try.
    static let goodRun: Duration = .seconds(60)

    init(now: BootInstant) {
        since = now
    }

    /// What the rest of the world means for this uplink.
    struct Surroundings {
        var configuration: Configuration
        var policy: LinkPolicy
        var host: Host
        var secret: [UInt8]
        var ephemeralSecret: [UInt8]
        /// What the other instances of this agent hold.
        var takenAddresses: Set<IPv4Address>
        var takenMetrics: Set<Int>
        /// Whether another instance is off for want of one, so that what drains gives way.
        var isAddressMissing: Bool
        var isStopping: Bool
    }

    /// Whether a CLAT may run there at all; nil is yes.
    static func obstacle(to uplink: Uplink?, _ world: Surroundings) -> Reason? {
        if world.isStopping { return .stopping }
        guard let uplink else { return .gone }
        if world.configuration.excludes(uplink.name) { return .excluded }
        if !world.configuration.selects(uplink.name) { return .notSelected }
        if world.configuration.disabled.contains(uplink.name) { return .disabled }
        if uplink.medium == .other || uplink.medium == .loopback { return .unsuitable(kind: uplink.kind) }
        if let master = uplink.master { return .enslaved(to: world.host.links[master]?.kind ?? "") }
        if world.configuration.interfaces.isEmpty, world.host.isInner(uplink) { return .inner }
        if !uplink.isUp { return .down }
        if !uplink.isRunning { return .noCarrier }
        return nil
    }

    /// What should stand now, or why nothing should.
    func decide(_ world: Surroundings, now: BootInstant) -> Result<Target, Off> {
        if let obstacle = Self.obstacle(to: uplink, world) { return .failure(Off(obstacle)) }
        guard let uplink else { return .failure(Off(.gone)) }
        if let device = world.host.otherCLAT(on: uplink.index) { return .failure(Off(.otherCLAT(device: device))) }
        if let native = winner(on: uplink.index, world) {
            return .failure(Off(.nativeIPv4(via: native.gateway, metric: native.metric)))
        }
        let fixed = world.policy.fixedIPv6
        // Where nobody else is there to tell, the operator may tell all.
        let isToldAll =
            knowledge.isSilent && uplink.medium == .pointToPoint && world.policy.pref64 != nil && fixed != nil
        if knowledge.isSilent, !isToldAll {
            let isNamed = !world.configuration.interfaces.isEmpty
            return .failure(
                Off(uplink.medium == .pointToPoint && !isNamed ? .silentPointToPoint : .noAdvertisement))
        }
        // Where neighbour discovery was switched on or off all is built anew: nothing knows the other link.
        if let target, (target.attachment == .relay) != (uplink.attachment == .relay), !standing.isNothing {
            return .failure(Off(.starting(.createUplinkLink)))
        }
        let present = target?.translator.mappings ?? []
        guard let entry = entry ?? lostEntry(world, now: now) else {
            guard world.policy.usesDNS else { return .failure(Off(.noPREF64)) }
            return switch knowledge.dns.verdict {
            case .open: .failure(Off(.noPREF64))
            case .absent: .failure(Off(.noPREF64InDNS))
            case .silent: .failure(Off(.resolversSilent))
            }
        }
        let router = knowledge.router(for: entry, now: now)
        guard var routing = isToldAll ? .direct : router.map({ knowledge.routing(through: $0) }) ?? standing.routing
        else { return .failure(Off(.noRouter)) }
        // By a relay nobody is asked for an address, so none is to be known.
        if uplink.attachment == .relay { routing.hardwareAddress = nil }
        let held = present.first.flatMap { IPv6Prefix($0.ipv6, length: 64) }
        let chosen = fixed.map { address in
            isToldAll
                ? IPv6Prefix(address, length: 64)
                : knowledge.prefixes.first { $0.prefix.contains(address) }?.prefix
        }
        guard
            let prefix = chosen
                ?? knowledge.prefix(for: entry, through: routing.router, current: held, now: now)?.prefix
        else { return .failure(Off(.noUsablePrefix(for: fixed))) }
        if let fixed, world.host.has(fixed) { return .failure(Off(.duplicateAddress(tries: 1))) }
        if let retryAt, retryAt > now, let failure { return .failure(Off(failure)) }
        guard let current = chooseMapping(prefix: prefix, pref64: entry.prefix, uplink: uplink, world) else {
            return .failure(Off(.addressesTaken(world.policy.ipv4Address)))
        }
        let mtu = min(knowledge.mtu(linkMTU: uplink.mtu, router: routing.router), world.policy.mtu ?? .max)
        var translator = TranslatorConfiguration(mappings: [current] + draining(besides: current, world), ipv6MTU: mtu)
        translator.inboundPREF64s = Array(knowledge.pref64s.others(than: current.pref64).prefix(Self.drainLimit))
        translator.nextHop = routing.nextHop(to: translator.pairs.map(\.pref64.prefix))
        // High enough for anything that comes in.
        translator.ipv4MTU = max(1500, uplink.mtu)
        world.policy.settle(&translator)
        return .success(
            Target(
                uplink: uplink.index, attachment: uplink.attachment,
                hardwareAddress: InterfaceIdentifier.hardwareAddress(interface: uplink.name, secret: world.secret),
                hostLinkName: uplink.hostLinkName,
                hostLinkMTU: translator.ipv4MTU, routing: routing,
                translator: translator, current: current,
                route: self.entry == nil || router == nil && !isToldAll
                    ? nil : IPv4Route(metric: chooseMetric(uplink, world), mtu: mtu - 20, source: current.ipv4)))
    }

    /// The route of native IPv4, where that is there and wins.
    private func winner(on index: Int, _ world: Surroundings) -> DefaultRoute? {
        world.policy.nativeIPv4 == .standDown ? world.host.nativeIPv4(on: index) : nil
    }

    /// How long IPv4 waits for resolvers to tell a PREF64 where routers have ceased to.
    static let lossLimit: Duration = .seconds(5)

    /// The PREF64 that was withdrawn, while resolvers are asked for another: all but the host's route stays for so long.
    private func lostEntry(_ world: Surroundings, now: BootInstant) -> PREF64Table.Entry? {
        guard isWanted, world.policy.usesDNS, let lostSince, now < lostSince + Self.lossLimit,
            knowledge.dns.isPending(now: now)
        else { return nil }
        return lastEntry
    }

    /// One more than native IPv4 has there or would have, so that it wins, and interfaces rank as they do for native traffic; the
    /// next free one where another CLAT has that, or the one before where there is no next. A metric that is held is kept while it is
    /// near.
    private func chooseMetric(_ uplink: Uplink, _ world: Surroundings) -> Int {
        let highest = Int(UInt32.max)
        let native = max(
            world.host.nativeMetric(of: uplink.index), world.host.nativeIPv4(on: uplink.index)?.metric ?? 0)
        let least = world.policy.metric ?? min(native + 1, highest)
        if world.policy.metric == nil, let held = target?.route?.metric, held - least < 8, held >= least,
            !world.takenMetrics.contains(held)
        {
            return held
        }
        let isFree = { (metric: Int) in !world.takenMetrics.contains(metric) }
        return (least...highest).first(where: isFree) ?? (0..<least).last(where: isFree) ?? least
    }

    /// The mapping of new flows: what there is of that prefix, with the present PREF64; else one with an IPv4 address of
    /// its own, so that the flows of the one before can go on; else, where no address is free, with that one's.
    private func chooseMapping(
        prefix: IPv6Prefix, pref64: PREF64, uplink: Uplink, _ world: Surroundings
    ) -> Mapping? {
        let allowed = world.policy.ipv4Address.map { [$0] } ?? (1...7).map { IPv4Address(192, 0, 0, $0) }
        let free = allowed.filter { isFree($0, world) }
        let serving = Set(standing.translator?.mappings.map(\.ipv4) ?? [])
        let fixed = world.policy.fixedIPv6
        let kept = target?.translator.mappings.first {
            prefix.contains($0.ipv6) && isOurs($0.ipv6, world) && $0.ipv6 == fixed ?? $0.ipv6
        }
        if let kept, free.contains(kept.ipv4) { return Mapping(ipv4: kept.ipv4, ipv6: kept.ipv6, pref64: pref64) }
        guard let ipv4 = free.first(where: { !serving.contains($0) }) ?? free.first else { return nil }
        let ipv6 =
            kept?.ipv6 ?? chooseAddress(prefix: prefix, ipv4: ipv4, pref64: pref64, uplink: uplink, world)
        return Mapping(ipv4: ipv4, ipv6: ipv6, pref64: pref64)
    }

    /// The mappings that were in service and whose addresses are still valid, newest first; with the present PREF64 where
    /// nobody tells theirs any more.
    private func draining(besides current: Mapping, _ world: Surroundings) -> [Mapping] {
        let serving = standing.translator?.mappings ?? []
        return (target?.translator.mappings ?? []).filter { mapping in
            !world.isAddressMissing && mapping.ipv6 != current.ipv6 && mapping.ipv4 != current.ipv4
                && serving.contains { $0.ipv6 == mapping.ipv6 && $0.ipv4 == mapping.ipv4 }
                && isOurs(mapping.ipv6, world) && isFree(mapping.ipv4, world)
                && knowledge.prefixes.contains { $0.prefix.contains(mapping.ipv6) }
        }.prefix(Self.drainLimit).map { mapping in
            let isTold = knowledge.pref64s.entries.contains { $0.prefix == mapping.pref64 }
            return Mapping(ipv4: mapping.ipv4, ipv6: mapping.ipv6, pref64: isTold ? mapping.pref64 : current.pref64)
        }
    }

    /// Whether a CLAT address is neither the host's own nor another station's.
    private func isOurs(_ address: IPv6Address, _ world: Surroundings) -> Bool {
        !world.host.has(address) && standing.addresses[address] != .duplicate
    }

    /// Whether an address of 192.0.0.0/29 is nobody else's (RFC 7335; .0 is reserved by RFC 6333).
    private func isFree(_ address: IPv4Address, _ world: Surroundings) -> Bool {
        !world.takenAddresses.contains(address) && !world.host.isTaken(address, exceptOn: standing.hostLink)
    }

    /// A reason for there being no target.
    struct Off: Error {
        var reason: Reason
        init(_ reason: Reason) { self.reason = reason }
    }

    private func chooseAddress(
        prefix: IPv6Prefix, ipv4: IPv4Address, pref64: PREF64, uplink: Uplink, _ world: Surroundings
    ) -> IPv6Address {
        if let fixed = world.policy.fixedIPv6 { return fixed }
        let secret = world.policy.ipv6Address == .random ? world.ephemeralSecret : world.secret
        var counter = dadCounter
        while true {
            let identifier = InterfaceIdentifier.make(
                prefix: prefix, interface: uplink.name, dadCounter: counter, secret: secret)
            let address = Mapping.checksumNeutralAddress(
                for: ipv4, pref64: pref64, prefix: prefix, identifier: identifier)
            // No DAD takes place between an ipvlan and its master.
            if !world.host.has(address) { return address }
            counter += UplinkMachine.dadTries
        }
    }

    /// Brings decision and deeds together: the next step, if one can be taken.
    mutating func advance(_ world: Surroundings, now: BootInstant) -> Step? {
        addressIsFixed = world.policy.fixedIPv6 != nil
        if let entry { (lastEntry, lostSince) = (entry, nil) } else { lostSince = lostSince ?? now }
        let wanted: Target?
        let newReason: Reason
        switch decide(world, now: now) {
        case .success(let target):
            isWanted = true
            wanted = target
            self.target = target
            newReason =
                target.route != nil ? .running(target.current.pref64) : entry == nil ? .pref64Lost : .suspended
        case .failure(let off):
            isWanted = false
            wanted = nil
            newReason = off.reason
        }
        let next = inFlight == nil ? Reconciler.next(from: standing, to: wanted) : nil
        let waiting = wanted.map { standing.addresses[$0.current.ipv6]?.isUsable != true } ?? false
        if wanted == nil || standing.route == wanted?.route && standing.translator == wanted?.translator {
            set(newReason, now: now)
        } else if wanted?.route != nil, let working = standing.working {
            // Make before break: what stands goes on until what is to come can be used.
            set(.running(working.pref64), now: now)
        } else {
            set(.starting(next?.name ?? inFlight?.name ?? (waiting ? .addAddress : .setIPv4Route)), now: now)
        }
        isIPv6OnlyCapable = isIPv6OnlyCapable(for: reason, world, now: now) ?? isIPv6OnlyCapable
        inFlight = inFlight ?? next
        return next
    }

    private mutating func set(_ new: Reason, now: BootInstant) {
        guard new != reason else { return }
        if new.state != reason.state { since = now }
        reason = new
        if case .running = new { failure = nil }
    }

    /// See ``Reason/isIPv6OnlyCapable``. Beside native IPv4 it is as it would be without; and where this host cannot make the
    /// CLAT's link, as on Wi-Fi without ipvlan, another network does not change that.
    private func isIPv6OnlyCapable(for reason: Reason, _ world: Surroundings, now: BootInstant) -> Bool? {
        switch (reason, failure) {
        case (.nativeIPv4, _):
            var world = world
            world.policy.nativeIPv4 = .coexist
            guard case .failure(let off) = decide(world, now: now) else { return failure == nil ? true : nil }
            return isIPv6OnlyCapable(for: off.reason, world, now: now)
        case (.down, .failed(.createUplinkLink, _)), (.noCarrier, .failed(.createUplinkLink, _)),
            (.noAdvertisement, .failed(.createUplinkLink, _)):
            return false
        default: return reason.isIPv6OnlyCapable
        }
    }

    /// Takes in that a step is over.
    mutating func absorb(done step: Step, _ result: StepResult, now: BootInstant) {
        inFlight = nil
        standing.absorb(step, result, now: now)
    }

    /// Takes in that a step failed: all is taken down, and built anew after a while. On the way down a step that fails
    /// counts as done, since what it left goes with the namespace; and so does an announcement.
    mutating func absorb(failed step: Step, _ text: String, now: BootInstant) {
        inFlight = nil
        // Routers that are not told ask by themselves, once there is something for us.
        if case .announce = step { return standing.absorb(step, .done, now: now) }
        if step.isUndoing { standing.forget(step) }
        if isWanted { fail(.failed(step.name, text), now: now) }
    }

    /// Holds everything back for a while: 1 s, 2 s, 4 s ... 64 s.
    mutating func fail(_ failure: Reason, now: BootInstant, pause: Duration? = nil) {
        if let retryAt, retryAt + Self.goodRun < now { failures = 0 }
        self.failure = failure
        retryAt = now + (pause ?? .seconds(1 << min(failures, 6)))
        failures += 1
    }

    /// Takes in the kernel's word on a CLAT address.
    mutating func absorb(_ address: IPv6Address, _ phase: AddressPhase, now: BootInstant) {
        guard standing.addresses[address] != nil else { return }
        switch phase {
        case .duplicate:
            standing.addresses[address] = .duplicate
            guard address == target?.current.ipv6 else { return }
            dadCounter += 1
            if dadCounter >= Self.dadTries || addressIsFixed {
                fail(.duplicateAddress(tries: dadCounter), now: now, pause: Self.duplicatePause)
                dadCounter = 0
            }
        case .vanished: standing.addresses[address] = nil
        case .preferred:
            standing.addresses[address] = .preferred
            if address == target?.current.ipv6 { dadCounter = 0 }
        case .optimistic, .tentative: standing.addresses[address] = phase
        }
    }

    /// Goes on with what a process before this one has left. Routers and resolvers are asked anew, and what they told holds
    /// until it runs out.
    mutating func adopt(_ adoption: Adoption, now: BootInstant) {
        standing = adoption.standing
        guard let uplink, uplink.isRunning, let translator = standing.translator,
            let current = translator.mappings.first
        else { return }
        knowledge = adoption.knowledge
        knowledge.useResolvers(now: now)
        // Of what was wanted only the choices count, which stay while they can; the rest follows from what is known.
        target = Target(
            uplink: uplink.index, attachment: uplink.attachment, hardwareAddress: HardwareAddress(rawValue: 0),
            hostLinkName: uplink.hostLinkName, hostLinkMTU: standing.hostLinkMTU ?? uplink.mtu,
            routing: standing.routing ?? Routing(router: .unspecified, hardwareAddress: nil, onLink: []),
            translator: translator, current: current, route: standing.route)
        choice = entry.map(Choice.init)
        isWanted = true
        reason = adoption.reason
        since = adoption.since
    }

    /// Nothing that was known of the network holds any more.
    mutating func forgetNetwork() {
        isWanted = false
        knowledge = LinkKnowledge()
        target = nil
        dadCounter = 0
        failures = 0
        retryAt = nil
    }

    /// The PREF64 that is used while nothing else hinders.
    var entry: PREF64Table.Entry? {
        knowledge.pref64s.choose(current: target?.translator.mappings.first?.pref64)
    }

    /// Takes in what came of a question to a resolver.
    mutating func absorb(_ outcome: DNSOutcome, _ question: DNSQuestion, jitter: Double, now: BootInstant) {
        guard knowledge.take(outcome, of: question, jitter: jitter, now: now) else { return }
        if case .failed(.malformed(let problem)) = outcome { refusedAnswers[problem, default: 0] += 1 }
    }

    /// Why a choice holds no longer.
    func cause(against old: Choice?) -> Choice.Cause {
        let pref64s = knowledge.pref64s
        guard let old, let entry = pref64s.entries.first(where: { Choice($0) == old }) else { return .gone }
        return pref64s.isSuspect(old.prefix) ? .dead : pref64s.isRouted(entry) ? .better : .unrouted
    }

    /// The questions for resolvers that are due, and whether to look for resolvers: where a CLAT is possible and routers
    /// have been heard, but have told no PREF64 that lasts.
    mutating func questions(_ world: Surroundings, now: BootInstant) -> ([DNSQuestion], search: Bool) {
        let isWanted =
            world.policy.usesDNS && Self.obstacle(to: uplink, world) == nil && !knowledge.isSilent
            && knowledge.needsDNS(now: now)
            && uplink.map { winner(on: $0.index, world) == nil && world.host.canSend(from: $0.index) } ?? false
        return (knowledge.dns.questions(isWanted: isWanted, now: now), knowledge.dns.takeSearch(now: now))
    }

    /// How long a prefix through which nothing came back is passed over for others of its kind.
    static let suspicion: Duration = .seconds(600)

    /// Takes in what came of an echo request. Where all tries fail another prefix is tried, if there is one.
    mutating func absorb(_ outcome: PathWatch.Echo, through prefix: PREF64, now: BootInstant) {
        guard path.absorb(outcome, through: prefix, now: now) else { return }
        knowledge.pref64s.suspect(prefix, until: now + Self.suspicion)
    }

    /// Takes in counters of TCP and UDP. Where answers cease to come the network may be another one, and the check address is
    /// tried; a prefix through which nothing has ever come back is passed over, unless the check address is to tell.
    mutating func absorb(outbound: UInt64, inbound: UInt64, now: BootInstant) {
        guard path.absorb(outbound: outbound, inbound: inbound, now: now) else { return }
        doubtNetwork(now: now)
        path.checkAgain(now: now)
        guard !checksPath, !path.hasAnswered, case .running(let prefix) = reason else { return }
        knowledge.pref64s.suspect(prefix, until: now + Self.suspicion)
    }

    /// What is to be looked at of the path.
    mutating func watchPath(_ world: Surroundings, now: BootInstant) -> [Action] {
        guard let index = uplink?.index else { return [] }
        checksPath = world.policy.checkAddress != nil
        if case .running(let prefix) = reason {
            path.follow(prefix, echoes: checksPath, now: now)
        } else {
            path.follow(nil, echoes: false, now: now)
        }
        var actions: [Action] = path.takeSample(now: now) ? [.sample(uplink: index)] : []
        if let address = world.policy.checkAddress, case .running(let prefix) = reason, path.takeEcho(now: now) {
            actions.append(.echo(address, through: prefix, uplink: index))
        }
        return actions
    }

    /// What the passing of time changes.
    mutating func pass(now: BootInstant) {
        knowledge.expire(now: now)
        if knowledge.takeRefresh(now: now) { solicitation.start(now: now) }
        if let deadline = dadDeadline, deadline <= now {
            standing.addressAdded = nil
            fail(.failed(.addAddress, "it did not end within \(Self.dadLimit.components.seconds) s"), now: now)
        }
    }

    private var dadDeadline: BootInstant? {
        guard let target, let added = standing.addressAdded, standing.addresses[target.current.ipv6] == .tentative
        else {
            return nil
        }
        return added + Self.dadLimit
    }

    /// When ``pass(now:)`` or a solicitation or a retry is next due.
    func nextDeadline(after now: BootInstant) -> BootInstant? {
        let retry = retryAt.flatMap { $0 > now ? $0 : nil }
        let look = path.nextDeadline(echoes: checksPath)
        let lossEnd = reason == .pref64Lost ? lostSince.map { $0 + Self.lossLimit } : nil
        return [solicitation.due, look, knowledge.nextChange(after: now), retry, dadDeadline, lossEnd, guardTimer.due]
            .compactMap { $0 }.min()
    }
}
