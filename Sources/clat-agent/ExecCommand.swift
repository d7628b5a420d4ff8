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
            To look around: the CLAT's link there is clat-uplink, the way to the host clat-host. Needs root. For as long as the \
            command runs the namespace stays, also where the agent is killed meanwhile; the next agent then takes away what is \
            in it.

            Example: clat-agent exec wlan0 -- ip -6 route

            Exit status: that of the command; 2 no agent answers, or it refuses; 126 the command cannot be run; 127 there is \
            none.
            """)

    @Argument(help: "The interface.", completion: .interface)
    var interface: String

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String]

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        guard let program = command.first else { throw ValidationError("which command? write it after --") }
        let namespace = try talk(to: runtime) { client throws(ControlClient.Failure) in
            try client.openNamespace(interface)
        }
        guard setns(namespace.rawValue, CLONE_NEWNET) == 0 else {
            printError("clat-agent: \(SystemError.last("enter the network namespace")); run it as root")
            throw ExitCode(126)
        }
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        execvp(program, &words)
        let error = SystemError.last("run \(program)")
        let remedy = error.code == ENOENT ? "install it, or write where it is" : "name a program that you may run"
        printError("clat-agent: \(error); \(remedy)")
        throw ExitCode(error.code == ENOENT ? 127 : 126)
    }
}
