import ArgumentParser
import ClatAgent

struct RenewCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew",
        abstract: "Ask the routers and resolvers of an interface anew, and try again at once what failed.",
        discussion: """
            For hooks of network managers, and for the impatient. Harmless where no agent runs: --quiet makes that no error.

            Example: clat-agent renew wlan0
            """)

    @Argument(help: "The interface.")
    var interface: String

    @Flag(name: .long, help: "Say nothing, and end well, where no agent runs or it knows no such interface.")
    var quiet = false

    @Option(
        name: .long,
        help:
            "First tell the agent of a resolver of the interface, or none to take back those told; may be given several times."
    )
    var resolver: [String] = []

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        do throws(ControlClient.Failure) {
            let agent = ControlClient(runtimeDirectory: runtime.runtimeDir)
            if !resolver.isEmpty { try agent.setResolvers(resolver, of: interface) }
            try agent.renew(interface)
        } catch {
            if quiet { return }
            printError("clat-agent: \(error)")
            throw ExitCode(2)
        }
    }
}
