import ArgumentParser
import ClatAgent

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Look at the configuration file.", subcommands: [ConfigCheckCommand.self])
}

struct ConfigCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Say what is wrong with a configuration file, and what is allowed instead.",
        discussion: """
            The keys are described in clat-agent.toml(5). A running agent reads the file anew on SIGHUP.

            Example: clat-agent config check /etc/clat-agent/config.toml

            Exit status: 0 the file can be used; 66 there is none; 78 it cannot be used.
            """)

    @Argument(help: "The file.", completion: .file())
    var file = ConfigurationFile.standard

    func run() throws {
        do throws(ConfigurationFile.Problems) {
            guard try ConfigurationFile.read(file) == nil else { return print("\(file): good") }
        } catch {
            for line in error.lines { printError(line) }
            throw ExitCode(78)
        }
        printError("clat-agent: \(file): there is no such file; the agent works without one")
        throw ExitCode(66)
    }
}
