import ArgumentParser
import ClatAgent

struct EnableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "enable",
        abstract: "Switch the CLAT of an interface on again.",
        discussion: """
            For root; without --lasting for the group clat-agent, too.

            Example: clat-agent enable wlan0 --lasting

            Exit status: 0 done; 2 no agent answers, or it refuses.
            """)

    @OptionGroup var what: SwitchOptions

    func run() throws { try what.set(enabled: true) }
}

struct DisableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disable",
        abstract: "Switch the CLAT of an interface off, until the next boot or for good.",
        discussion: """
            It stays off when the agent is stopped and started. For root; without --lasting for the group clat-agent, too.

            Example: clat-agent disable wlan0

            Exit status: 0 done; 2 no agent answers, or it refuses.
            """)

    @OptionGroup var what: SwitchOptions

    func run() throws { try what.set(enabled: false) }
}

struct SwitchOptions: ParsableArguments {
    @Argument(help: "The interface.", completion: .interface)
    var interface: String

    @Flag(name: .long, help: "Beyond the next boot, until told otherwise.")
    var lasting = false

    @OptionGroup var runtime: RuntimeOptions

    func set(enabled: Bool) throws {
        try talk(to: runtime) { client throws(ControlClient.Failure) in
            try client.set(interface, enabled: enabled, lasting: lasting)
        }
    }
}
