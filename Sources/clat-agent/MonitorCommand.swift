import ArgumentParser
import ClatAgent
import Glibc

struct MonitorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "monitor",
        abstract: "Show what happens, line by line, until the agent or you end it.",
        discussion: """
            Begins with the state of each interface. With --json each line is an object: time, interface, kind \
            (\(AgentEvent.Kind.allCases.map(\.rawValue).joined(separator: ", "))), text, and for a state its word and the code \
            of the reason.

            Example: clat-agent monitor wlan0 --json

            Exit status: 0 the reader of the output has gone; 2 no agent answers, it ended, or it knows no such interface.
            """)

    @Argument(help: "Only this interface.", completion: .interface)
    var interface: String?

    @Flag(name: .long, help: "Each event as one line of JSON.")
    var json = false

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        signal(SIGPIPE, SIG_IGN)
        try talk(to: runtime) { client throws(ControlClient.Failure) in
            if let interface { try client.status().check(interface) }
            try client.monitor { event in
                guard interface == nil || event.interface == interface else { return true }
                return writeLine(json ? event.json : Self.line(event))
            }
        }
    }

    /// `14:03:59.123 wlan0: sentence`
    private static func line(_ event: AgentEvent) -> String {
        let milliseconds = Int(exactly: (event.time * 1000).rounded(.down)) ?? 0
        var seconds = time_t(milliseconds / 1000)
        var local = tm()
        localtime_r(&seconds, &local)
        func pad(_ number: some BinaryInteger, _ width: Int) -> String {
            String(repeating: "0", count: max(0, width - "\(number)".count)) + "\(number)"
        }
        let clock = [local.tm_hour, local.tm_min, local.tm_sec].map { pad($0, 2) }.joined(separator: ":")
        let kind = event.kind == .state ? "" : "\(event.kind.rawValue): "
        return "\(clock).\(pad(milliseconds % 1000, 3)) \(event.interface): \(kind)\(event.text)"
    }
}
