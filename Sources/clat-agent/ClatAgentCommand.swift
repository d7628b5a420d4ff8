import ArgumentParser
import ClatAgent

@main
struct ClatAgentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clat-agent",
        abstract: "IPv4 on IPv6-only networks: the CLAT half of 464XLAT (RFC 6877).",
        version: Version.text,
        subcommands: [
            RunCommand.self, StatusCommand.self, DoctorCommand.self, ProbeCommand.self, RenewCommand.self,
            MonitorCommand.self, EnableCommand.self, DisableCommand.self, ReexecCommand.self, ExecCommand.self,
            CaptureCommand.self, MetricsCommand.self,
            ConfigCommand.self, ImportClatdCommand.self, CleanupCommand.self,
        ])
}

extension CompletionKind {
    /// Names of network interfaces.
    static var interface: CompletionKind { .shellCommand("ls /sys/class/net") }
}

/// The directory of the control socket, the same for all commands that meet there.
struct RuntimeOptions: ParsableArguments {
    @Option(name: .long, help: "Where the control socket lives.", completion: .directory)
    var runtimeDir = RuntimeDirectory.standard
}
