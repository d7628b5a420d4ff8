import ArgumentParser
import ClatAgent
import ClatBase
import Glibc

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "State and counters as OpenMetrics text, for Prometheus.",
        discussion: """
            With --textfile it replaces a file in one go, for node_exporter's textfile collector; run that by a timer.

            Example: clat-agent metrics --textfile /var/lib/prometheus/node-exporter/clat-agent.prom

            Exit status: 0 done; 2 no agent answers; 73 the file cannot be written.
            """)

    @Option(name: .long, help: "The file to write instead of standard output.")
    var textfile: String?

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        let status = try talk(to: runtime) { client throws(ControlClient.Failure) in try client.status() }
        let text = Metrics.text(of: status)
        guard let textfile else { return print(text, terminator: "") }
        do {
            try replaceFile(textfile, with: Array(text.utf8))
        } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(73)
        }
    }
}
