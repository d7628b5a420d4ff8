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
        /// Where the control socket lives.
        public var runtimeDirectory = RuntimeDirectory.standard
        /// Where the key of the CLAT addresses is kept.
        public var stateDirectory = "/var/lib/clat-agent"
        /// How much to log.
        public var logLevel = LogLevel.info

        /// The defaults.
        public init() {}
    }

    private let options: Options
    private let started = BootInstant.now
    private let log: Logger
    private let lock: NamespaceLock
    private let reactor: Reactor
    private let kernel: HostKernel
    private var routers: RouterSocket
    private let resolvers: DNSClient
    private var sleep: ResumeWatch
    private var monitor: NetlinkMonitor
    private let signals: OwnedDescriptor
    private var machine: AgentMachine
    private var instances: [Int: Instance] = [:]
    private var queue: [Event] = []
    private var control: ControlServer?

    /// Checks that it can run, and touches nothing yet.
    public init(_ options: Options) throws(RunFailure) {
        self.options = options
        log = Logger(label: "clat-agent") { _ in StandardErrorLog(level: Logger.Level(options.logLevel)) }
        try Preconditions.checkCapabilities()
        try Preconditions.checkKernel()
        lock = try NamespaceLock()
        do {
            signals = try Self.signalDescriptor()
            reactor = try Reactor()
            kernel = try HostKernel()
            // Before the snapshot, so that nothing falls in between.
            monitor = try NetlinkMonitor([.links, .addresses, .routes])
            routers = try RouterSocket()
            resolvers = try DNSClient()
            sleep = try ResumeWatch()
            try RuntimeDirectory.prepare(options.runtimeDirectory)
            let (secret, problem) = Secret.load(directory: options.stateDirectory)
            machine = AgentMachine(configuration: options.configuration, secret: secret)
            if let problem {
                log.warning(
                    "the CLAT addresses will be others after a restart, as their key cannot be kept: \(problem)")
            }
            let present = try kernel.netlink.links().map(\.name)
            for name in options.configuration.interfaces where !present.contains(name) {
                throw RunFailure.noSuchInterface(name, present: present.filter { $0 != "lo" })
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

    /// Serves until SIGTERM or SIGINT, then undoes all.
    public func run() throws(RunFailure) {
        do throws(SystemError) {
            control = try ControlServer(
                reactor: reactor, path: RuntimeDirectory.socketPath(options.runtimeDirectory)
            ) { [unowned self] request in answer(request) }
            try reactor.watch(signals.rawValue, .read) { [unowned self] in readSignals() }
            try reactor.watch(monitor.descriptor, .read) { [unowned self] in readNotices() }
            try reactor.watch(routers.descriptor, .read) { [unowned self] in readAdvertisements() }
            try reactor.watch(resolvers.descriptor, .read) { [unowned self] in readAnswers() }
            try reactor.watch(sleep.descriptor, .read) { [unowned self] in
                if sleep.hasResumed() { take(.resumed) }
            }
            reactor.onDeadline = { [unowned self] in take(.timer) }
            log.notice("version \(Version.text), serving \(served)")
            resynchronise()
            try reactor.run()
            control = nil
            log.notice("stopped; all is as it was before")
        } catch {
            throw .system(error)
        }
    }

    private var served: String {
        let names = options.configuration.interfaces
        return names.isEmpty ? "every suitable interface" : names.joined(separator: ", ")
    }

    // MARK: Events in

    /// SIGTERM and SIGINT by a descriptor, so that they come in turn with all else.
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
            if information.ssi_signo == UInt32(SIGHUP) { continue }
            log.notice("stopping")
            take(.stop)
        }
    }

    private func readNotices() {
        do throws(NetlinkError) {
            while let notice = try monitor.next() {
                if case .overrun = notice { return resynchronise() }
                for event in HostMirror.events(notice) { take(event) }
            }
        } catch {
            log.warning("\(error)")
            resynchronise()
        }
    }

    /// Reads links, addresses and routes anew.
    private func resynchronise() {
        do throws(NetlinkError) {
            take(.snapshot(try HostMirror.snapshot(&kernel.netlink)))
        } catch {
            log.error("\(error)")
        }
    }

    private func readAdvertisements() {
        do throws(SystemError) {
            // Bounded, so that a flood does not keep the agent from all else.
            for _ in 0..<64 {
                guard let message = try routers.receive() else { return }
                switch message.content {
                case .success(let advertisement): take(.advertisement(advertisement, uplink: message.uplink))
                case .failure(let problem): take(.refusedAdvertisement(problem, uplink: message.uplink))
                }
            }
        } catch {
            log.warning("\(error)")
        }
    }

    private func readAnswers() {
        for answer in resolvers.receive() {
            log.debug("\(name(answer.uplink)): resolver \(answer.question.server): \(answer.outcome.sentence)")
            take(
                .answered(answer.outcome, answer.question, uplink: answer.uplink, jitter: .random(in: -0.1...0.1)))
        }
    }

    private func readAddresses(of index: Int) {
        do {
            for (address, phase) in try instances[index]?.addressNotices() ?? [] {
                log.debug("\(name(index)): \(address) is \(phase.rawValue)")
                take(.clatAddress(address, phase, uplink: index))
            }
        } catch {
            log.warning("\(name(index)): \(error)")
        }
    }

    // MARK: Actions out

    /// Takes in an event and carries out all that follows.
    private func take(_ event: Event) {
        queue.append(event)
        guard queue.count == 1 else { return }
        while let event = queue.first {
            for action in machine.handle(event, now: .now) { perform(action) }
            queue.removeFirst()
        }
        reactor.wake(at: machine.nextDeadline(after: .now))
    }

    private func perform(_ action: Action) {
        switch action {
        case .report(let index, let reason):
            switch reason.state {
            case .on: log.notice("\(name(index)): \(reason.sentence)")
            case .starting: log.debug("\(name(index)): \(reason.sentence)")
            case .off, .suspended: log.info("\(name(index)): \(reason.sentence)")
            }
        case .solicit(let index):
            do throws(SystemError) { try routers.solicit(uplink: index) } catch {
                log.debug("\(name(index)): \(error)")
            }
            queue.append(.solicited(uplink: index, jitter: .random(in: -0.1...0.1)))
        case .ask(let question, let index): resolvers.ask(question, uplink: index)
        case .findResolvers(let index):
            let (servers, source) = SystemResolvers.find(index)
            queue.append(.resolvers(servers, source, uplink: index))
        case .chose(let choice, let before, let index):
            log.notice("\(name(index)): \(Choice.change(from: before, to: choice))")
        case .carryOut(let step, let index): carryOut(step, on: index)
        case .finish: reactor.stop()
        }
    }

    private func carryOut(_ step: Step, on index: Int) {
        let instance = instances[index] ?? Instance(host: kernel)
        instances[index] = instance
        do {
            if step == .closeNamespace, let descriptor = instance.monitorDescriptor { reactor.forget(descriptor) }
            let result = try instance.carryOut(step, optimisticDAD: options.configuration.optimisticDAD)
            if step == .createNamespace, let descriptor = instance.monitorDescriptor {
                try reactor.watch(descriptor, .read) { [unowned self] in readAddresses(of: index) }
            }
            log.debug("\(name(index)): done: \(step.name.rawValue)")
            if case .uplinkLink = result, let note = instance.uplinkNote { log.notice("\(name(index)): \(note)") }
            queue.append(.done(step, result, uplink: index))
        } catch {
            log.log(level: step.isUndoing ? .debug : .warning, "\(name(index)): \(step.name.rawValue): \(error)")
            queue.append(.failed(step, "\(error)", uplink: index))
        }
        if step == .closeNamespace { instances[index] = nil }
    }

    private func name(_ index: Int) -> String {
        machine.host.links[index]?.name ?? "link \(index)"
    }

    // MARK: Control

    private func answer(_ request: ControlServer.Request) -> [UInt8] {
        func refuse(_ error: String, _ parameters: [String: String] = [:]) -> [UInt8] {
            Varlink.encode(Varlink.Failure(error: error, parameters: parameters))
        }
        switch request.method {
        case ControlInterface.status: return Varlink.encode(Varlink.Reply(parameters: status))
        case ControlInterface.renew:
            guard let call = try? Varlink.decode(Varlink.Call<Varlink.OneInterface>.self, from: request.message),
                let name = call.parameters?.interface
            else { return refuse(ControlInterface.invalidParameter, ["parameter": "interface"]) }
            guard request.isPrivileged else { return refuse(ControlInterface.permissionDenied) }
            guard let index = machine.uplinks.first(where: { $0.value.uplink?.name == name })?.key else {
                return refuse(ControlInterface.unknownInterface, ["interface": name])
            }
            take(.renew(uplink: index))
            return Varlink.encode(Varlink.Reply(parameters: Varlink.None()))
        default: return refuse(ControlInterface.methodNotFound, ["method": request.method])
        }
    }

    private var status: AgentStatus {
        let now = BootInstant.now
        return AgentStatus(
            version: Version.text, pid: Int(getpid()), uptimeSeconds: Int((now - started) / .seconds(1)),
            interfaces: machine.uplinks.sorted { $0.key < $1.key }.compactMap { index, uplink in
                InterfaceStatus(uplink, instances[index], now: now)
            })
    }
}

/// The version, in one place.
public enum Version {
    /// Semantic.
    public static let text = "0.1.0"
}
