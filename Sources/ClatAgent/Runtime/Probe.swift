import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc

/// Discovery on one interface, once: solicits the routers, asks the resolvers, and lets an ``AgentMachine`` decide, whose
/// steps nobody carries out. Changes nothing, and needs no running agent.
public final class Probe {
    private let interface: String
    private let index: Int
    private var routers: RouterSocket
    private let client: DNSClient
    private var machine: AgentMachine
    private let started = BootInstant.now
    private var report: ProbeReport
    private var answers: [IPv6Address: (outcome: DNSOutcome, milliseconds: Int)] = [:]
    private var open: Set<IPv6Address> = []

    /// How long the first advertisement is waited for: two solicitations, and the time a router may take to answer.
    private static let patience: Duration = .seconds(5)
    /// How long the advertisements of other routers are waited for, after the first: they may take half a second
    /// (RFC 4861 section 6.2.6).
    private static let gathering: Duration = .milliseconds(800)
    /// More than ``DNSClient`` takes to give up.
    private static let resolving: Duration = .seconds(10)

    /// Prepares to probe an interface under that configuration.
    public init(_ interface: String, _ configuration: Configuration) throws(RunFailure) {
        self.interface = interface
        do {
            // First, as it is what needs a capability.
            routers = try RouterSocket()
            var netlink = try NetlinkSocket()
            let host = try HostMirror.snapshot(&netlink)
            guard let link = host.links.values.first(where: { $0.name == interface }) else {
                throw RunFailure.noSuchInterface(
                    interface, present: host.links.values.map(\.name).filter { $0 != "lo" }.sorted())
            }
            index = link.index
            client = try DNSClient()
            var wanted = configuration
            wanted.interfaces = [interface]
            machine = AgentMachine(configuration: wanted, secret: Secret.fresh(), ephemeralSecret: Secret.fresh())
            report = ProbeReport(interface: interface, advertisements: [], refused: [:], resolvers: [])
            take(.snapshot(host))
        } catch let failure as RunFailure {
            throw failure
        } catch let error as NetlinkError {
            throw .system(SystemError(call: error.operation, code: error.code))
        } catch let error as SystemError {
            if error.code == EPERM { throw .missingCapabilities(["CAP_NET_RAW"]) }
            throw .system(error)
        } catch {
            throw .system(SystemError(call: "\(error)", code: EIO))
        }
    }

    /// Takes some seconds at most.
    public func run() -> ProbeReport {
        let isRunning = machine.uplinks[index]?.uplink?.isRunning == true
        var end = isRunning ? started + Self.patience : started
        while BootInstant.now < end {
            wait(until: min(end, machine.nextDeadline(after: .now) ?? end))
            if !report.advertisements.isEmpty, end > BootInstant.now + Self.gathering {
                end = BootInstant.now + Self.gathering
            }
        }
        if isRunning { askTheRest() }
        end = BootInstant.now + Self.resolving
        while !open.isEmpty, BootInstant.now < end { wait(until: end) }
        conclude()
        return report
    }

    // MARK: Events in, questions out

    private func wait(until instant: BootInstant) {
        let milliseconds = max(0, (instant - .now) / .milliseconds(1))
        var polled = [
            pollfd(fd: routers.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        poll(&polled, nfds_t(polled.count), CInt(milliseconds) + 1)
        // Bounded, so that a flood ends nothing but itself.
        for _ in 0..<Int(RouterAdvertisement.perSecond) {
            guard let message = try? routers.receive(isKnown: { _, _ in false }) else { break }
            guard message.uplink == index else { continue }
            switch message.content {
            case .success(let advertisement):
                report.advertisements.append(
                    ProbeReport.Advertisement(advertisement, milliseconds: Self.milliseconds(since: started)))
                take(.advertisement(advertisement, uplink: index))
            case .failure(let problem): report.refused[problem.rawValue, default: 0] += 1
            }
        }
        for answer in client.receive() {
            let server = answer.question.server
            open.remove(server)
            answers[server] = (answer.outcome, Self.milliseconds(since: answer.question.asked))
            take(.answered(answer.outcome, answer.question, uplink: index, jitter: 0))
        }
        take(.timer)
    }

    private func take(_ event: Event) {
        var queue = [event]
        while !queue.isEmpty {
            for action in machine.handle(queue.removeFirst(), now: .now) {
                switch action {
                case .solicit(let uplink):
                    try? routers.solicit(uplink: uplink)
                    queue.append(.solicited(uplink: uplink, jitter: 0))
                case .ask(let question, let uplink): ask(question, uplink)
                case .findResolvers(let uplink):
                    let (servers, source) = SystemResolvers.find(uplink)
                    queue.append(.resolvers(servers, source, uplink: uplink))
                default: break
                }
            }
        }
    }

    private func ask(_ question: DNSQuestion, _ uplink: Int) {
        guard answers[question.server] == nil, open.insert(question.server).inserted else { return }
        client.ask(question, uplink: uplink)
    }

    private var usesDNS: Bool { machine.configuration.policy(for: interface).usesDNS }

    /// The agent asks only where no router tells a PREF64; here everybody is heard, unless the operator wants no DNS.
    private func askTheRest() {
        let (servers, source) = SystemResolvers.find(index)
        take(.resolvers(servers, source, uplink: index))
        guard usesDNS else { return }
        for resolver in machine.uplinks[index]?.knowledge.dns.resolvers ?? [] {
            ask(DNSQuestion(server: resolver.address, asked: .now), index)
        }
    }

    private static func milliseconds(since instant: BootInstant) -> Int {
        Int((BootInstant.now - instant) / .milliseconds(1))
    }

    // MARK: What it comes to

    private func conclude() {
        guard let uplink = machine.uplinks[index] else { return }
        report.resolvers = uplink.knowledge.dns.resolvers.map { resolver in
            let answer = answers[resolver.address]
            var told: [String] = []
            if case .prefixes(let prefixes, _) = answer?.outcome { told = prefixes.map(\.description) }
            let isUsable = if case .failed = answer?.outcome { false } else { answer != nil }
            let isSilent = answer.map { $0.outcome == .failed(.noAnswer) } ?? true
            return ProbeReport.Resolver(
                address: resolver.address.description, source: resolver.source,
                milliseconds: isSilent ? nil : answer?.milliseconds, isUsable: isUsable,
                prefixes: told,
                says: answer?.outcome.sentence ?? (usesDNS ? "does not answer" : "is not asked, as dns = false"))
        }
        let target = uplink.isWanted ? uplink.target : nil
        // What a resolver told that the agent would not have asked, as native IPv4 is there or no address yet.
        var pref64s = uplink.knowledge.pref64s
        for resolver in uplink.knowledge.dns.resolvers where uplink.entry == nil {
            guard case .prefixes(let prefixes, let lifetime) = answers[resolver.address]?.outcome else { continue }
            let end = BootInstant.now + DNSDiscovery.lifetime(lifetime)
            pref64s.hear(prefixes, fromResolver: resolver.address, until: end, now: .now)
        }
        report.choice = (uplink.entry ?? pref64s.choose(current: nil)).map { entry in
            ProbeReport.Choice(
                pref64: entry.prefix.description, source: entry.source.word,
                why: "\(entry.source.text), \(pref64s.why(entry))",
                addressPrefix: target.flatMap { IPv6Prefix($0.current.ipv6, length: 64)?.description },
                router: target?.routing.router.description, ipv6MTU: target?.translator.ipv6MTU,
                metric: target?.route?.metric)
        }
        if target == nil {
            report.obstacle = ReasonStatus(code: uplink.reason.code, sentence: uplink.reason.sentence)
        }
    }
}

extension ProbeReport.Advertisement {
    init(_ advertisement: RouterAdvertisement, milliseconds: Int) {
        func seconds(_ lifetime: UInt32) -> Int? { lifetime == .max ? nil : Int(lifetime) }
        self.init(
            router: advertisement.router.description, milliseconds: milliseconds,
            routerLifetimeSeconds: advertisement.routerLifetime, preference: "\(advertisement.preference)",
            mtu: advertisement.mtu,
            prefixes: advertisement.prefixes.map {
                Prefix(
                    prefix: $0.prefix.description, autonomous: $0.autonomous, onLink: $0.onLink,
                    validSeconds: seconds($0.validLifetime), preferredSeconds: seconds($0.preferredLifetime))
            },
            pref64s: advertisement.pref64s.map {
                Announced(prefix: $0.prefix.description, lifetimeSeconds: $0.lifetime)
            },
            routes: advertisement.routes.map {
                Route(
                    prefix: $0.prefix.description, preference: "\($0.preference)", lifetimeSeconds: seconds($0.lifetime)
                )
            },
            resolvers: advertisement.rdnss.flatMap { $0.servers.map(\.description) },
            leftOut: advertisement.ignoredOptions.map(\.rawValue))
    }
}
