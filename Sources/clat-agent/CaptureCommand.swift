import ArgumentParser
import CLinux
import ClatAgent
import ClatBase
import Glibc

struct CaptureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture",
        abstract: "Record both sides of an interface's translator in one pcapng file.",
        discussion: """
            The file has two interfaces: clat-uplink (IPv6, as on the link) and clat-host (IPv4, as the host sees it). \
            Checksums that the hardware would fill in look wrong, and packets that it would cut up are in one piece. Needs root.

            Example: clat-agent capture wlan0 --output clat.pcapng
            Example: clat-agent capture wlan0 | tcpdump -nr -

            It ends when the agent does: the CLAT's network namespace would outlive the agent if anybody stayed in it.

            Exit status: 0 ended by you, by --packets or --seconds; 2 no agent answers, or it refuses; 71 the system refuses; \
            73 the file cannot be written; 74 the CLAT has gone, or the agent.
            """)

    @Argument(help: "The interface.", completion: .interface)
    var interface: String

    @Option(
        name: [.short, .long], help: "The file; else standard output, unless that is a terminal.", completion: .file())
    var output: String?

    @Option(name: .long, help: "End after that many packets.")
    var packets: Int?

    @Option(name: .long, help: "End after that many seconds.")
    var seconds: Int?

    @OptionGroup var runtime: RuntimeOptions

    func validate() throws {
        if output == nil, isatty(STDOUT_FILENO) == 1 {
            throw ValidationError("the file would go to the terminal; name one with --output, or use a pipe")
        }
        if [packets, seconds].contains(where: { $0.map { $0 < 1 } ?? false }) {
            throw ValidationError("--packets and --seconds are 1 at least")
        }
    }

    func run() throws {
        let watched = try talk(to: runtime) { client throws(ControlClient.Failure) in
            try client.watchNamespace(interface)
        }
        signal(SIGPIPE, SIG_IGN)
        var file: CInt = STDOUT_FILENO
        if let output {
            file = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard file >= 0 else {
                try fail(73, SystemError.last("open \(output)"), "name another file with --output")
            }
        }
        guard setns(watched.namespace.rawValue, CLONE_NEWNET) == 0 else {
            try fail(71, SystemError.last("enter the network namespace"), "run it as root")
        }
        let recorder: Recorder
        do throws(SystemError) {
            recorder = try Recorder(agent: watched, file: file, limit: packets)
            // Before the first packet is looked at.
            try Privileges.keepOnly([])
        } catch { try fail(71, error, "run it as root") }
        guard recorder.begin(uplink: interface) else { try fail(73, SystemError.last("write"), Self.room) }
        printError("clat-agent: capturing; end it with Ctrl-C")
        do throws(SystemError) { try recorder.run(seconds: seconds) } catch { try fail(71, error, "try again") }
        printError("clat-agent: \(recorder.captured) packets captured, \(recorder.lost) lost")
        if recorder.agentHasEnded {
            printError(
                "clat-agent: the agent has ended, or begun anew, and the capture with it; see: clat-agent status")
            throw ExitCode(74)
        }
        guard let failure = recorder.failure else { return }
        if failure.call.hasPrefix("write") { try fail(73, failure, Self.room) }
        try fail(74, failure, "the CLAT has gone; to see why: clat-agent status \(interface)")
    }

    private static let room = "make room, or name another file with --output"

    private func fail(_ status: Int32, _ error: SystemError, _ remedy: String) throws -> Never {
        printError("clat-agent: \(error); \(remedy)")
        throw ExitCode(status)
    }
}

/// Takes from both taps and writes.
private final class Recorder {
    private let reactor: Reactor
    private let agent: ControlClient.WatchedNamespace
    private var uplink: PacketTap
    private var host: PacketTap
    private let signals: OwnedDescriptor
    private let file: CInt
    private let limit: Int?
    private(set) var captured = 0
    private(set) var failure: SystemError?
    private(set) var agentHasEnded = false

    init(agent: consuming ControlClient.WatchedNamespace, file: CInt, limit: Int?) throws(SystemError) {
        self.agent = agent
        self.file = file
        self.limit = limit
        reactor = try Reactor()
        uplink = try PacketTap(interface: "clat-uplink")
        host = try PacketTap(interface: "clat-host")
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signals = OwnedDescriptor(
            adopting: try retrying("signalfd") { signalfd(-1, &set, CInt(SFD_CLOEXEC | SFD_NONBLOCK)) })
    }

    var lost: Int { uplink.lost() + host.lost() }

    func begin(uplink name: String) -> Bool {
        put(
            Pcapng.header(writer: "clat-agent \(Version.text)")
                + Pcapng.interface("clat-uplink", description: "IPv6, towards \(name)")
                + Pcapng.interface("clat-host", description: "IPv4, towards the host"))
    }

    func run(seconds: Int?) throws(SystemError) {
        try reactor.watch(uplink.descriptor, .read) { [unowned self] in take(0) }
        try reactor.watch(host.descriptor, .read) { [unowned self] in take(1) }
        try reactor.watch(signals.rawValue, .read) { [unowned self] in reactor.stop() }
        try reactor.watch(agent.agent.rawValue, .read) { [unowned self] in
            agentHasEnded = true
            reactor.stop()
        }
        reactor.onDeadline = { [unowned self] in reactor.stop() }
        // Nobody waits for longer, and sums of times have an end.
        reactor.wake(at: seconds.map { .now + .seconds(min($0, Int(Int32.max))) })
        try reactor.run()
    }

    private func take(_ interface: Int) {
        // Both taps may be ready when the last packet is taken.
        if let limit, captured >= limit { return }
        do throws(SystemError) {
            for _ in 0..<256 {
                guard let frame = try interface == 0 ? uplink.next() : host.next() else { return }
                let block = Pcapng.packet(
                    frame.data, length: frame.length, interface: interface, time: frame.time, frame.direction)
                guard put(block) else { throw SystemError.last("write the packets") }
                captured += 1
                if let limit, captured >= limit { return reactor.stop() }
            }
        } catch {
            // That the reader of a pipe has gone ends the capture as it should.
            if error.code != EPIPE { failure = error }
            reactor.stop()
        }
    }

    private func put(_ octets: [UInt8]) -> Bool {
        var rest = octets[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
            if count < 0, errno != EINTR { return false }
            rest = rest.dropFirst(max(count, 0))
        }
        return true
    }
}
