import CLinux
import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc
import Logging

/// The agent at work: feeds what happens to the ``AgentMachine`` and carries out what it answers. One thread; packets
/// have their own.
public final class Agent {
    /// How to run.
    public struct Options: Sendable {
        /// What the operator wants.
        public var configuration = Configuration()
        /// Interfaces that must be there at the start.
        public var required: [String] = []
        /// Reads the configuration anew, on SIGHUP.
        public var reload: (@Sendable () throws(ConfigurationFile.Problems) -> Configuration)?
        /// Where the control socket lives.
        public var runtimeDirectory = RuntimeDirectory.standard
        /// Where the key of the CLAT addresses is kept.
        public var stateDirectory = "/var/lib/clat-agent"

        /// The defaults.
        public init() {}
    }

    let options: Options
    let started = BootInstant.now
    var log: Logger
    /// Until they are taken over or closed.
    private var inherited: InheritedDescriptors?
    private let lock: NamespaceLock
    private let reactor: Reactor
    let kernel: HostKernel
    private(set) var routers: RouterSocket
    private let resolvers: DNSClient
    private let echoes: EchoRunner
    private var sleep: ResumeWatch
    private var monitor: NetlinkMonitor
    private let signals: OwnedDescriptor
    private(set) var machine: AgentMachine
    var instances: [Int: Instance] = [:]
    private var queue: [Event] = []
    /// Of before the events that are being taken in: what goes with a link is told by its name.
    private var formerLinks: [Int: Uplink] = [:]
    /// Whether the service manager is to be told how it is, once all that follows from an event is done.
    private var isStatusStale = false
    private(set) var control: ControlService?
    let manager = ServiceManager()
    private var watchdogDue: BootInstant?
    var store: DescriptorStore?
    private var storeDue: BootInstant?
    /// What goes on in the next process, at the end.
    private var leftBehind = 0
    let programPath = ProgramPath.find()
    /// Whether the mirror of the kernel is out of date, and when it, or that of an instance, is brought up to date again.
    private var isBehind = false
    private var catchUpDue: BootInstant?

    /// Messages of a kind that are taken in before others have their turn, so that a flood keeps the agent from nothing else.
    private static let turn = 64

    /// Checks that it can run, and only then makes the directories that it needs.
    public init(_ options: Options) throws(RunFailure) {
        self.options = options
        inherited = InheritedDescriptors()
        log = Logger(label: "clat-agent") { _ in StandardErrorLog(level: Logger.Level(options.configuration.logLevel)) }
        try Preconditions.settleCapabilities()
        try Preconditions.checkKernel()
        lock = try NamespaceLock()
        do {
            signals = try Self.signalDescriptor()
            reactor = try Reactor()
            kernel = try HostKernel()
            let present = try kernel.netlink.links().map(\.name)
            for name in options.required where !present.contains(name) {
                throw RunFailure.noSuchInterface(name, present: present.filter { $0 != "lo" })
            }
            // Before the snapshot, so that nothing falls in between.
            monitor = try NetlinkMonitor([.links, .addresses, .routes])
            routers = try RouterSocket()
            resolvers = try DNSClient()
            echoes = EchoRunner(reactor: reactor)
            sleep = try ResumeWatch()
            do throws(SystemError) { try RuntimeDirectory.prepare(options.runtimeDirectory) } catch {
                throw RunFailure.runtimeDirectory(error)
            }
            let (secret, problem) = Secret.load(directory: options.stateDirectory)
            var configuration = options.configuration
            configuration.disabled =
                DisabledInterfaces(directory: options.runtimeDirectory).read()
                ?? DisabledInterfaces(directory: options.stateDirectory).read() ?? []
            machine = AgentMachine(
                configuration: configuration, secret: secret, ephemeralSecret: Secret.fresh())
            if let problem {
                log.warning(
                    "the CLAT addresses will be others after a restart, as their key cannot be kept: \(problem)")
            }
        } catch let failure as RunFailure {
            throw failure
        } catch let error as NetlinkError {
            throw .system(SystemError(call: error.operation, code: error.code))
        } catch let error as SystemError {
            throw .system(error)
        } catch {
            throw .system(SystemError(call: "\(error)", code: EIO))
        }
    }

    /// Serves until SIGTERM or SIGINT, then undoes all, unless the service manager keeps it for the next process.
    public func run() throws(RunFailure) {
        control = try serveControl()
        do throws(SystemError) {
            try reactor.watch(signals.rawValue, .read) { [unowned self] in readSignals() }
            try reactor.watch(monitor.descriptor, .read) { [unowned self] in readNotices() }
            try reactor.watch(routers.descriptor, .read) { [unowned self] in readAdvertisements() }
            try reactor.watch(resolvers.descriptor, .read) { [unowned self] in readAnswers() }
            try reactor.watch(sleep.descriptor, .read) { [unowned self] in
                if sleep.hasResumed() { take(.resumed) }
            }
            reactor.onDeadline = { [unowned self] in
                catchUp()
                take(.timer)
            }
            log.notice("version \(Version.text), serving \(served)")
            begin()
            manager.ready()
            try reactor.run()
            control = nil
            log.notice(
                leftBehind == 0
                    ? "stopped; all is as it was before"
                    : "stopped; IPv4 goes on by itself until another agent takes over, or the service manager lets go of it"
            )
        } catch {
            throw .system(error)
        }
    }

    /// The control socket, in a runtime directory that nobody else uses.
    private func serveControl() throws(RunFailure) -> ControlService {
        do throws(SystemError) {
            return try ControlService(
                reactor: reactor, path: RuntimeDirectory.socketPath(options.runtimeDirectory), target: self)
        } catch {
            throw error.code == EADDRINUSE ? .directoryTaken(options.runtimeDirectory) : .runtimeDirectory(error)
        }
    }

    private var served: String {
        let names = options.configuration.interfaces
        return names.isEmpty ? "every suitable interface" : names.joined(separator: ", ")
    }

    // MARK: Events in

    /// SIGTERM, SIGINT and SIGHUP by a descriptor, so that they come in turn with all else.
    private static func signalDescriptor() throws(SystemError) -> OwnedDescriptor {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
        return OwnedDescriptor(
            adopting: try retrying("signalfd") {
                signalfd(-1, &set, CInt(SFD_CLOEXEC | SFD_NONBLOCK))
            })
    }

    private func readSignals() {
        var information = signalfd_siginfo()
        while read(signals.rawValue, &information, MemoryLayout<signalfd_siginfo>.size) > 0 {
            if information.ssi_signo == UInt32(SIGHUP) {
                reload()
                continue
            }
            log.notice("stopping")
            if manager.keepsDescriptors {
                leftBehind = keep(isLast: true)
                manager.stopping()
                reactor.stop()
            } else {
                manager.stopping()
                take(.stop)
            }
        }
    }

    private func readNotices() {
        do throws(NetlinkError) {
            // Bounded, as below; but what is read already nobody would wake us for.
            var count = 0
            while count < Self.turn || monitor.hasMore, let notice = try monitor.next() {
                count += 1
                if case .malformed = notice { kernel.malformed += 1 }
                if case .overrun = notice {
                    kernel.overruns += 1
                    log.notice(
                        "the kernel had more to tell than could wait; links, addresses and routes are listed anew")
                    return resynchronise()
                }
                if case .associated(let index) = notice {
                    log.debug("\(name(Int(index))): the station has associated with an access point")
                }
                if case .route(let route, removed: _, replaces: true) = notice, route.destination.length == 0 {
                    take(.routes(try HostMirror.defaultRoutes(&kernel.netlink)))
                    continue
                }
                for event in HostMirror.events(notice) { take(event) }
            }
        } catch {
            log.warning("\(error)")
            resynchronise()
        }
    }

    /// Reads links, addresses and routes, and takes over what a process before this one has left of CLATs.
    private func begin() {
        guard let inherited = inherited.take() else { return }
        if manager.keepsDescriptors { store = DescriptorStore(manager, holding: inherited.names) }
        do {
            let host = try HostMirror.snapshot(&kernel.netlink)
            let adoptions = adopt(inherited, on: host)
            for index in adoptions.keys {
                try watchNotices(of: index)
                try watchTranslator(of: index)
            }
            take(.adopted(adoptions, host))
            if !adoptions.isEmpty { manager.status(StatusText.short(status)) }
        } catch {
            log.error("\(error); trying again")
            isBehind = true
            catchUpLater()
        }
    }

    /// Reads links, addresses and routes anew; where that fails, again in a second.
    private func resynchronise() {
        isBehind = false
        do throws(NetlinkError) {
            take(.snapshot(try HostMirror.snapshot(&kernel.netlink)))
        } catch {
            log.error("\(error); trying again")
            isBehind = true
            catchUpLater()
        }
    }

    private func catchUpLater() {
        catchUpDue = .now + .seconds(1)
        take(.timer)
    }

    /// Lists what could not be listed when notices had been lost.
    private func catchUp() {
        guard let due = catchUpDue, due <= .now else { return }
        catchUpDue = nil
        if isBehind { resynchronise() }
        for (index, instance) in instances where instance.isBehind { readNotices(of: index) }
    }

    private func readAdvertisements() {
        // Taken in together, as there may be many.
        var refused: [Int: [RouterAdvertisementProblem: Int]] = [:]
        do throws(SystemError) {
            for _ in 0..<Self.turn {
                guard let message = try routers.receive(isKnown: machine.knows) else { break }
                switch message.content {
                case .success(let advertisement): take(.advertisement(advertisement, uplink: message.uplink))
                case .failure(let problem): refused[message.uplink, default: [:]][problem, default: 0] += 1
                }
            }
        } catch {
            log.warning("\(error)")
        }
        for (index, counts) in refused {
            for (problem, count) in counts { take(.refusedAdvertisement(problem, count: count, uplink: index)) }
        }
    }

    private func readAnswers() {
        for answer in resolvers.receive() {
            log.log(.debug, name(answer.uplink), "resolver \(answer.question.server): \(answer.outcome.sentence)")
            take(
                .answered(answer.outcome, answer.question, uplink: answer.uplink, jitter: .random(in: -0.1...0.1)))
        }
    }

    private func readNotices(of index: Int) {
        let overruns = kernel.overruns
        defer {
            if kernel.overruns > overruns {
                log.log(
                    .notice, name(index), "the kernel had more to tell of the CLAT than could wait; it is listed anew")
            }
        }
        do {
            for event in try instances[index]?.notices(uplink: index) ?? [] {
                if case .clatAddress(let address, let phase, _) = event {
                    log.log(.debug, name(index), event: .address, "\(address) is \(phase.rawValue)")
                    control?.publish(.address, name(index), "\(address) is \(phase.rawValue)")
                }
                take(event)
            }
        } catch {
            log.log(.warning, name(index), "\(error); trying again")
            catchUpLater()
        }
    }

    // MARK: Actions out

    /// Takes in an event and carries out all that follows.
    func take(_ event: Event) {
        queue.append(event)
        guard queue.count == 1 else { return }
        formerLinks = machine.host.links
        var now = BootInstant.now
        while let event = queue.first {
            now = .now
            for action in machine.handle(event, now: now) { perform(action) }
            queue.removeFirst()
        }
        formerLinks = [:]
        if isStatusStale { manager.status(StatusText.short(status)) }
        isStatusStale = false
        keep()
        // What has become due since then is due at once.
        let moments = [machine.nextDeadline(after: now), nextHeartbeat(), catchUpDue, storeDue]
        reactor.wake(at: moments.compactMap { $0 }.min())
    }

    /// Brings what the service manager keeps in line with what stands; how many CLATs that is.
    @discardableResult
    func keep(isLast: Bool = false) -> Int {
        guard store != nil else { return 0 }
        let handover = handover
        let wasBehind = store?.isBehind
        storeDue = store?.keep(handover, { instances[$0]?.descriptors }, isLast: isLast, now: .now)
        if store?.isBehind == true, wasBehind == false {
            log.warning(
                "the service manager did not take all that is to outlive a restart, so IPv4 might not; trying again")
        }
        return handover.entries.count
    }

    /// Tells the service manager that all goes on, when it is time; when it is next.
    private func nextHeartbeat() -> BootInstant? {
        guard let interval = manager.watchdogInterval else { return nil }
        let now = BootInstant.now
        if let watchdogDue, watchdogDue > now { return watchdogDue }
        manager.alive()
        watchdogDue = now + interval
        return watchdogDue
    }

    private func perform(_ action: Action) {
        switch action {
        case .report(let index, let reason):
            control?.publish(.state, name(index), reason.sentence, reason: reason)
            isStatusStale = true
            let level: Logger.Level =
                switch reason.state {
                case .on: .notice
                case .starting: .debug
                case .off, .suspended: .info
                }
            log.log(level, name(index), event: .state, code: reason.code, reason.sentence)
        case .solicit(let index):
            do throws(SystemError) {
                try routers.solicit(uplink: index)
                log.log(.debug, name(index), "the routers are asked")
            } catch {
                log.log(.debug, name(index), "\(error)")
            }
            queue.append(.solicited(uplink: index, jitter: .random(in: -0.1...0.1)))
        case .ask(let question, let index): resolvers.ask(question, uplink: index)
        case .sample(let index):
            let counters = instances[index]?.counters ?? [:]
            func sum(_ way: String) -> UInt64 {
                counters["tcp-\(way)", default: 0] + counters["udp-\(way)", default: 0]
            }
            queue.append(.traffic(outbound: sum("out"), inbound: sum("in"), uplink: index))
        case .echo(let address, let prefix, let index):
            guard let device = machine.hostDevice(of: index) else { break }
            echoes.ask(address, by: device, for: index) { [unowned self] outcome in
                take(.echoed(outcome, through: prefix, uplink: index))
            }
        case .findResolvers(let index):
            let (servers, source) = SystemResolvers.find(index)
            queue.append(.resolvers(servers, source, uplink: index))
        case .chose(let choice, let before, let cause, let index):
            let text = Choice.change(from: before, to: choice, cause)
            log.log(.notice, name(index), event: .pref64, text)
            control?.publish(.pref64, name(index), text)
        case .judged(let path, let index):
            guard let text = path.sentence else { break }
            log.log(path.isDead ? .notice : .info, name(index), event: .path, text)
            control?.publish(.path, name(index), text)
        case .spare(let can, let index):
            control?.publish(
                .ipv6Only, name(index), "IPv4 can\(can ? "" : "not") be had here without a lease (DHCPv4 option 108)")
        case .releaseGuard(let index): kernel.releaseGuard(of: UInt32(clamping: index))
        case .carryOut(let step, let index): carryOut(step, on: index)
        case .finish: reactor.stop()
        }
    }

    private func carryOut(_ step: Step, on index: Int) {
        let instance = instances[index] ?? Instance(host: kernel)
        instances[index] = instance
        do {
            switch step {
            case .removeUplinkLink: store?.drop(uplink: index)
            case .closeNamespace:
                store?.drop(uplink: index)
                instance.monitorDescriptor.map(reactor.forget)
            case .stopTranslator:
                store?.drop(uplink: index)
                instance.translatorEndDescriptor.map(reactor.forget)
            default: break
            }
            let result = try instance.carryOut(step, machine.configuration)
            switch step {
            case .createNamespace: try watchNotices(of: index)
            case .startTranslator: try watchTranslator(of: index)
            default: break
            }
            log.log(.debug, name(index), event: .step, "done: \(step.name.rawValue)")
            control?.publish(.step, name(index), step.name.rawValue)
            if case .uplinkLink = result, let note = instance.uplinkNote { log.log(.notice, name(index), note) }
            queue.append(.done(step, result, uplink: index))
        } catch {
            log.log(step.isUndoing ? .debug : .warning, name(index), event: .failure, "\(step.name.rawValue): \(error)")
            control?.publish(.failure, name(index), "\(step.name.rawValue): \(error)")
            queue.append(.failed(step, "\(error)", uplink: index))
        }
        if step == .closeNamespace { instances[index] = nil }
    }

    private func watchNotices(of index: Int) throws(SystemError) {
        guard let descriptor = instances[index]?.monitorDescriptor else { return }
        try reactor.watch(descriptor, .read) { [unowned self] in readNotices(of: index) }
    }

    private func watchTranslator(of index: Int) throws(SystemError) {
        guard let descriptor = instances[index]?.translatorEndDescriptor else { return }
        try reactor.watch(descriptor, .read) { [unowned self] in
            reactor.forget(descriptor)
            take(.translatorEnded(instances[index]?.translatorEnd ?? "no reason told", uplink: index))
        }
    }

    private func name(_ index: Int) -> String {
        (machine.host.links[index] ?? formerLinks[index])?.name ?? "link \(index)"
    }
}
