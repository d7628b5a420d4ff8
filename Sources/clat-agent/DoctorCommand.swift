import ArgumentParser
import ClatAgent
import ClatBase

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Find out what is in the way of IPv4, and what to do about it.",
        discussion: """
            Looks at the kernel, the agent, other CLATs, the interface, the host's route, and, as root, sends echo requests \
            through the NAT64 to one IPv4 address, small ones and large ones.

            Example: sudo clat-agent doctor wlan0

            Exit status: 0 nothing is broken; 1 something is.
            """)

    @Argument(help: "Only this interface.")
    var interface: String?

    @Option(name: .long, help: "An IPv4 address that answers echo requests.")
    var target = Target(IPv4Address(198, 41, 0, 4))

    @Flag(
        name: .long, help: "Each finding as one line of JSON: verdict (good, notice, broken), link, evidence, remedy.")
    var json = false

    @OptionGroup var runtime: RuntimeOptions

    struct Target: ExpressibleByArgument {
        let address: IPv4Address
        init(_ address: IPv4Address) { self.address = address }
        init?(argument: String) {
            guard let address = IPv4Address(argument) else { return nil }
            self.address = address
        }
        var defaultValueDescription: String { "\(address), a.root-servers.net" }
    }

    func run() throws {
        var doctor = Doctor(runtimeDirectory: runtime.runtimeDir, target: target.address) { [json] finding in
            _ = writeLine(json ? finding.json : finding.lines.joined(separator: "\n"))
        }
        doctor.examine(interface: interface)
        if !doctor.isHealthy { throw ExitCode(1) }
    }
}
