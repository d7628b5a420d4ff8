import ArgumentParser
import ClatAgent
import Glibc

struct CleanupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanup",
        abstract: "Undo what a clatd that was killed left on this host.",
        discussion: """
            Shows what it finds, and asks. Only what is clatd's by its own marks is touched: its TUN or nat46 device, its routing \
            table, its nftables table, its device's rules in ufw, its temporary files, and what goes together with the first \
            three. clat-agent itself leaves nothing that would have to be cleaned up. Needs root.

            Example: sudo clat-agent cleanup --clatd

            Exit status: 0 nothing is left; 1 something is left, and you did not want it removed; 71 the system refuses; 75 a \
            clatd is running; 77 you are not root.
            """)

    @Flag(name: .long, help: "What a killed clatd left; required, as there is nothing else that this cleans up after.")
    var clatd = false

    @Flag(name: [.short, .long], help: "Do not ask.")
    var yes = false

    @Flag(name: .long, help: "Leave the forwarding sysctls as they are, as something else on this host needs them.")
    var keepForwarding = false

    @Option(
        name: .long, help: "clatd's configuration file, for the names it used; that it is absent is no error.",
        completion: .file())
    var config = ClatdCleanup.standardConfiguration

    func validate() throws {
        if !clatd { throw ValidationError("after whom? say --clatd") }
    }

    func run() throws {
        guard geteuid() == 0 else {
            printError("clat-agent: only root sees and may undo all that clatd does; try again with sudo")
            throw ExitCode(77)
        }
        let cleanup: ClatdCleanup
        do throws(ClatdCleanup.Failure) { cleanup = try ClatdCleanup(configuration: config) } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(error.exitStatus)
        }
        let items = cleanup.items.filter { !keepForwarding || !$0.isForwarding }
        guard !items.isEmpty else { return print("clatd has left nothing here.") }
        print("A clatd that was killed has left:")
        for item in items { print("  " + item.sentence) }
        if items.contains(where: \.isForwarding) {
            print(
                "Where this host forwards IPv6 for others, as for containers: --keep-forwarding leaves those sysctls.")
        }
        guard try isWanted() else { throw ExitCode(1) }
        var failed = false
        for item in items {
            guard let problem = item.undo() else { continue }
            printError("clat-agent: \(item.sentence): \(problem)")
            failed = true
        }
        if failed {
            printError(
                "clat-agent: the rest is undone; try again, and what fails again then undo by hand, or reboot")
            throw ExitCode(71)
        }
        print("All of it is undone.")
    }

    private func isWanted() throws -> Bool {
        if yes { return true }
        guard isatty(STDIN_FILENO) == 1 else {
            printError("clat-agent: nothing was changed; --yes does it without asking")
            return false
        }
        print("Undo all of this? [y/N] ", terminator: "")
        fflush(nil)
        return ["y", "yes"].contains(readLine()?.lowercased())
    }
}
