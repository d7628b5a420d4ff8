import ArgumentParser
import ClatAgent

struct ReexecCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reexec",
        abstract: "Make the agent run its program anew; connections go on.",
        discussion: """
            For after an upgrade where no systemd does it (systemctl restart). The agent runs what is now at the path it was \
            started by, with the same arguments, and reads its configuration anew; where it finds fault with that, it goes \
            on as it was. Needs root.

            Example: clat-agent reexec

            Exit status: 0 done; 2 no agent answers, or it refuses.
            """)

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        let status = try talk(to: runtime) { client throws(ControlClient.Failure) in try client.reexec() }
        _ = writeLine(
            "clat-agent \(status.version) (process \(status.pid)) has taken over: \(StatusText.short(status))")
    }
}
