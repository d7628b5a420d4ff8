import ArgumentParser
import ClatAgent
import ClatBase

struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract:
            "Look once for the NAT64 of an interface: what routers and resolvers say, and what the agent would choose.",
        discussion: """
            Changes nothing, and needs no running agent. Takes a second or two; some more where nobody answers.

            Example: sudo clat-agent probe wlan0

            Exit status: 0 there is a NAT64; 1 there is none; 66 no such interface; 71 the system refused something; 77 \
            capabilities are missing; 78 the configuration file cannot be used.
            """)

    @Argument(help: "The interface.", completion: .interface)
    var interface: String

    @Flag(name: .long, help: "Everything as one line of JSON.")
    var json = false

    @Option(
        name: .long, help: "The configuration file; that the standard one is absent is no error.",
        completion: .file())
    var config = ConfigurationFile.standard

    func run() throws {
        let report: ProbeReport
        do throws(RunFailure) {
            let configuration: Configuration
            do throws(ConfigurationFile.Problems) {
                configuration = try ConfigurationFile.read(config) ?? Configuration()
            } catch {
                throw .configuration(error.lines)
            }
            // Where even that one is missing the probe will say so.
            try? Privileges.keepOnly([.netRaw])
            let probe = try Probe(interface, configuration)
            showProgress("asking the routers and resolvers of \(interface)")
            report = probe.run()
        } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(error.exitStatus)
        }
        _ = writeLine(json ? report.json : report.lines.joined(separator: "\n"))
        if report.choice == nil { throw ExitCode(1) }
    }
}
