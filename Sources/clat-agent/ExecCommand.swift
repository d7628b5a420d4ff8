import ArgumentParser
import CLinux
import ClatAgent
import ClatBase
import Glibc

struct ExecCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec",
        abstract: "Run a command in the network namespace of an interface's CLAT.",
        discussion: """
            To look around: the CLAT's link there is clat-uplink, the way to the host clat-host. Needs root.

            Example: clat-agent exec wlan0 -- ip -6 route

            Exit status: that of the command; 2 no agent answers, or it refuses; 126 the command cannot be run; 127 there is \
            none.
            """)

    @Argument(help: "The interface.")
    var interface: String

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String]

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        guard let program = command.first else { throw ValidationError("which command? write it after --") }
        let namespace = try openNamespace(of: interface, runtime)
        guard setns(namespace.rawValue, CLONE_NEWNET) == 0 else {
            printError("clat-agent: \(SystemError.last("enter the network namespace"))")
            throw ExitCode(126)
        }
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        execvp(program, &words)
        let error = SystemError.last("run \(program)")
        printError("clat-agent: \(error)")
        throw ExitCode(error.code == ENOENT ? 127 : 126)
    }
}

/// Asks the agent for the namespace of an interface's CLAT.
func openNamespace(of interface: String, _ runtime: RuntimeOptions) throws -> OwnedDescriptor {
    do throws(ControlClient.Failure) {
        return try ControlClient(runtimeDirectory: runtime.runtimeDir).openNamespace(interface)
    } catch {
        printError("clat-agent: \(error)")
        throw ExitCode(2)
    }
}
