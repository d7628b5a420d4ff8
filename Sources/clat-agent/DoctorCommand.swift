import ArgumentParser
import ClatAgent
import ClatBase

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Find out what is in the way of IPv4, and what to do about it.",
        discussion: """
            Looks at the kernel, the agent, other CLATs, the interface and the host's route; as root it also asks the routers \
            and resolvers of the link, and sends echo requests through the NAT64, small ones and large ones, to --target, or to \
            the check-address of the configuration. To nobody else on the Internet does it send anything.

            Example: sudo clat-agent doctor wlan0 --target 192.0.2.1

            Exit status: 0 nothing is broken; 1 something is.
            """)

    @Argument(help: "Only this interface.", completion: .interface)
    var interface: String?

    @Option(name: .long, help: "An IPv4 address that answers echo requests, to ask it through the NAT64.")
    var target: Target?

    @Option(
        name: .long, help: "The configuration file; that the standard one is absent is no error.",
        completion: .file())
    var config = ConfigurationFile.standard

    @Flag(
        name: .long, help: "Each finding as one line of JSON: verdict (good, notice, broken), link, evidence, remedy.")
    var json = false

    @OptionGroup var runtime: RuntimeOptions

    func validate() throws {
        guard let address = target?.address, !address.isCheckable else { return }
        throw ValidationError(
            "No echo request may go to \(address): it is no host's, or one of ipv4only.arpa (RFC 7050 section 3.1); name another one."
        )
    }

    struct Target: ExpressibleByArgument {
        let address: IPv4Address
        init?(argument: String) {
            guard let address = IPv4Address(argument) else { return nil }
            self.address = address
        }
    }

    func run() throws {
        var doctor = Doctor(
            runtimeDirectory: runtime.runtimeDir, configuration: config, target: target?.address
        ) { [json] finding in
            _ = writeLine(json ? finding.json : finding.lines.joined(separator: "\n"))
        }
        showProgress("this takes some seconds")
        doctor.examine(interface: interface)
        if !doctor.isHealthy { throw ExitCode(1) }
    }
}
