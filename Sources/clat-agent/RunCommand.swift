public import ArgumentParser
public import ClatAgent

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Serve until SIGTERM: give this network namespace IPv4 wherever a router announces a NAT64 prefix.",
        discussion: """
            Stays in the foreground, logs to standard error, needs no configuration file and leaves nothing behind. \
            SIGTERM ends it; SIGHUP makes it read the configuration file anew.

            Example: clat-agent run --interface wlan0

            Exit status: 0 stopped; 64 usage; 66 no such interface; 69 the kernel lacks something; 70 the packet thread did \
            what its filter forbids; 71 the system refused something; 73 the control socket cannot be made; 75 another \
            clat-agent serves this network namespace, or uses the runtime directory; 77 capabilities are missing; 78 the \
            configuration file cannot be used.
            """)

    @Option(
        name: .long, help: "Serve only this interface; may be given several times. Default: every suitable one.",
        completion: .interface)
    var interface: [String] = []

    @Option(
        name: .long, help: "The configuration file; that the standard one is absent is no error.",
        completion: .file())
    var config: String?

    @OptionGroup var runtime: RuntimeOptions

    @Option(name: .long, help: "Where the key of the CLAT addresses is kept.", completion: .directory)
    var stateDir = "/var/lib/clat-agent"

    @Flag(inversion: .prefixedNo, help: "Use the CLAT address while duplicate address detection runs (RFC 4429).")
    var optimisticDad: Bool?

    @Option(name: .long, help: "What moves the packets: auto, kernel (eBPF, the rest in user space) or userspace.")
    var datapath: Datapath?

    @Option(name: .long, help: "How much to log: debug, info, notice, warning or error.")
    var logLevel: LogLevel?

    func run() throws {
        var options = Agent.Options()
        options.required = interface
        options.runtimeDirectory = runtime.runtimeDir
        options.stateDirectory = stateDir
        let wanted = Wanted(
            file: config, interfaces: interface, optimisticDAD: optimisticDad, datapath: datapath, logLevel: logLevel)
        options.reload = { () throws(ConfigurationFile.Problems) in try wanted.configuration() }
        do throws(RunFailure) {
            do throws(ConfigurationFile.Problems) { options.configuration = try wanted.configuration() } catch {
                throw .configuration(error.lines)
            }
            try Agent(options).run()
        } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(error.exitStatus)
        }
    }

    /// What the command line says of the configuration: where the file is, and what holds instead of it.
    private struct Wanted: Sendable {
        var file: String?
        var interfaces: [String]
        var optimisticDAD: Bool?
        var datapath: Datapath?
        var logLevel: LogLevel?

        func configuration() throws(ConfigurationFile.Problems) -> Configuration {
            let path = file ?? ConfigurationFile.standard
            let read = try ConfigurationFile.read(path)
            if read == nil, file != nil {
                throw ConfigurationFile.Problems(lines: ["\(path): there is no such file"])
            }
            var configuration = read ?? Configuration()
            if !interfaces.isEmpty { configuration.interfaces = interfaces }
            if let optimisticDAD { configuration.optimisticDAD = optimisticDAD }
            if let datapath { configuration.datapath = datapath }
            if let logLevel { configuration.logLevel = logLevel }
            return configuration
        }
    }
}

extension LogLevel: ExpressibleByArgument {}
extension Datapath: ExpressibleByArgument {}
