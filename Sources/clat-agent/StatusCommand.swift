import ArgumentParser
import ClatAgent

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Say for each interface whether IPv4 works, and why or why not.",
        discussion: """
            Example: clat-agent status wlan0

            Exit status: 0 IPv4 is on (for the interface, or for at least one); 1 it is not; 2 no agent answers or it knows \
            no such interface.
            """)

    @Argument(help: "Only this interface.")
    var interface: String?

    @Flag(name: .long, help: "The whole status as JSON.")
    var json = false

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        var status = try talk(to: runtime) { client throws(ControlClient.Failure) in try client.status() }
        if let interface {
            let known = status.interfaces.map(\.interface)
            status.interfaces.removeAll { $0.interface != interface }
            guard !status.interfaces.isEmpty else {
                printError(
                    "clat-agent: the agent knows no interface \(interface); it knows: \(known.joined(separator: ", "))")
                throw ExitCode(2)
            }
        }
        print(json ? status.json : StatusText.lines(of: status).joined(separator: "\n"))
        if !status.interfaces.contains(where: { $0.state == .on }) { throw ExitCode(1) }
    }
}
