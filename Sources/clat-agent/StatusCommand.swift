import ArgumentParser
import ClatAgent
import Glibc

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Say for each interface whether IPv4 works, and why or why not.",
        discussion: """
            Colours are for terminals only, and not where NO_COLOR is set. docs/status.schema.json describes what --json says.

            Example: clat-agent status wlan0 --watch

            Exit status: 0 IPv4 is on (for the interface, or for at least one); 1 it is not; 2 no agent answers or it knows \
            no such interface. With --watch it waits for one.
            """)

    @Argument(help: "Only this interface.", completion: .interface)
    var interface: String?

    @Flag(help: "How to say it.")
    var form = Form.text

    @Flag(name: .long, help: "Say it again every second, until you end it.")
    var watch = false

    @OptionGroup var runtime: RuntimeOptions

    func validate() throws {
        if form == .ipv6OnlyCapable, interface == nil { throw ValidationError("Which interface? Name it.") }
    }

    enum Form: String, EnumerableFlag {
        case text, json, short, ipv6OnlyCapable

        static func help(for value: Form) -> ArgumentHelp? {
            switch value {
            case .text: "Sentences and what stands behind them (default)."
            case .json: "All of it as one line of JSON."
            case .short: "One line, for status bars."
            case .ipv6OnlyCapable:
                "Nothing but the exit status: 0 where a DHCPv4 client may ask for option 108 (RFC 8925), else 1."
            }
        }
    }

    func run() throws {
        let isTerminal = isatty(STDOUT_FILENO) == 1
        let coloured = isTerminal && (getenv("NO_COLOR").map { $0[0] == 0 } ?? true)
        signal(SIGPIPE, SIG_IGN)
        guard watch, form != .ipv6OnlyCapable else {
            let status = try talk(to: runtime) { client throws(ControlClient.Failure) in try ask(client) }
            if form == .ipv6OnlyCapable {
                throw ExitCode(status.interfaces.allSatisfy(\.ipv6OnlyCapable) ? 0 : 1)
            }
            _ = writeLine(lines(of: status, coloured: coloured).joined(separator: "\n"))
            if !status.interfaces.contains(where: { $0.state == .on }) { throw ExitCode(1) }
            return
        }
        let client = ControlClient(runtimeDirectory: runtime.runtimeDir)
        var trouble: String?
        while true {
            let lines: [String]
            do throws(ControlClient.Failure) {
                lines = self.lines(of: try ask(client), coloured: coloured)
                trouble = nil
            } catch {
                // An agent that is started anew is there again in a moment; who reads lines is told once.
                let sentence = "clat-agent: \(error)"
                if !isTerminal, sentence != trouble { printError(sentence) }
                trouble = sentence
                lines = isTerminal ? StatusText.wrapped(sentence, indent: 4) : []
            }
            if isTerminal {
                // Home, each line over the old one and its rest erased, then what is below.
                guard writeLine("\u{1b}[H" + lines.map { $0 + "\u{1b}[K\n" }.joined() + "\u{1b}[J") else { return }
            } else if !lines.isEmpty, !writeLine(lines.joined(separator: "\n")) {
                return
            }
            sleep(1)
        }
    }

    private func lines(of status: AgentStatus, coloured: Bool) -> [String] {
        switch form {
        case .text: StatusText.lines(of: status, coloured: coloured)
        case .json: [status.json]
        case .short: [StatusText.short(status)]
        case .ipv6OnlyCapable: []
        }
    }

    private func ask(_ client: ControlClient) throws(ControlClient.Failure) -> AgentStatus {
        var status = try client.status()
        guard let interface else { return status }
        try status.check(interface)
        status.interfaces.removeAll { $0.interface != interface }
        return status
    }
}
