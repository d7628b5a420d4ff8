public import ArgumentParser
public import ClatAgent

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Serve until SIGTERM: give this network namespace IPv4 wherever a router announces a NAT64 prefix.",
        discussion: """
            Stays in the foreground, logs to standard error, needs no configuration file and leaves nothing behind.

            Example: clat-agent run --interface wlan0

            Exit status: 0 stopped; 64 usage; 66 no such interface; 69 the kernel lacks something; 71 the system refused \
            something; 75 another clat-agent serves this network namespace; 77 capabilities are missing.
            """)

    @Option(name: .long, help: "Serve only this interface; may be given several times. Default: every suitable one.")
    var interface: [String] = []

    @OptionGroup var runtime: RuntimeOptions

    @Option(name: .long, help: "Where the key of the CLAT addresses is kept.")
    var stateDir = "/var/lib/clat-agent"

    @Flag(inversion: .prefixedNo, help: "Use the CLAT address while duplicate address detection runs (RFC 4429).")
    var optimisticDad = true

    @Option(name: .long, help: "What moves the packets: auto, kernel (eBPF, the rest in user space) or userspace.")
    var datapath = Datapath.auto

    @Option(name: .long, help: "How much to log: debug, info, notice, warning or error.")
    var logLevel = LogLevel.info

    func run() throws {
        var options = Agent.Options()
        options.configuration.interfaces = interface
        options.configuration.optimisticDAD = optimisticDad
        options.configuration.datapath = datapath
        options.runtimeDirectory = runtime.runtimeDir
        options.stateDirectory = stateDir
        options.logLevel = logLevel
        do throws(RunFailure) {
            try Agent(options).run()
        } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(error.exitStatus)
        }
    }
}

extension LogLevel: ExpressibleByArgument {}
extension Datapath: ExpressibleByArgument {}
