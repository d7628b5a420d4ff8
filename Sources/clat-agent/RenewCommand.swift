import ArgumentParser
import ClatAgent
import ClatBase

struct RenewCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew",
        abstract: "Ask the routers and resolvers of an interface anew, and try again at once what failed.",
        discussion: """
            For hooks of network managers, and for the impatient. Harmless where no agent runs: --quiet makes that no error.

            Example: clat-agent renew wlan0

            Exit status: 0 done; 2 no agent answers within a second, or it refuses.
            """)

    @Argument(help: "The interface.", completion: .interface)
    var interface: String

    @Flag(name: .long, help: "Say nothing, and exit with 0, where no agent runs or it knows no such interface.")
    var quiet = false

    @Option(
        name: .long,
        help: """
            First tell the agent of a resolver of the interface, by its IPv6 address, or none to take back those told; may be \
            given several times.
            """)
    var resolver: [String] = []

    @OptionGroup var runtime: RuntimeOptions

    func validate() throws {
        // Hooks hand over what they were told, of which the agent takes what is of use.
        if !quiet, let wrong = resolver.first(where: { $0 != "none" && IPv6Address(resolver: $0) == nil }) {
            throw ValidationError("--resolver takes an IPv6 address that is not the host's own, not \(wrong)")
        }
    }

    func run() throws {
        do throws(ControlClient.Failure) {
            try ControlClient(runtimeDirectory: runtime.runtimeDir).renew(
                interface, resolvers: resolver.isEmpty ? nil : resolver)
        } catch {
            if quiet { return }
            printError("clat-agent: \(error)")
            throw ExitCode(2)
        }
    }
}
