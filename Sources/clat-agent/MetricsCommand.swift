import ArgumentParser
import ClatAgent
import ClatBase
import Glibc

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "State and counters as OpenMetrics text, for Prometheus.",
        discussion: """
            With --textfile it replaces a file in one go, in Prometheus' older format, for node_exporter's textfile collector; \
            run that by a timer.

            Example: clat-agent metrics --textfile /var/lib/prometheus/node-exporter/clat-agent.prom

            Exit status: 0 done; 2 no agent answers; 73 the file cannot be written.
            """)

    @Option(name: .long, help: "The file to write instead of standard output.", completion: .file())
    var textfile: String?

    @OptionGroup var runtime: RuntimeOptions

    func run() throws {
        let status = try talk(to: runtime) { client throws(ControlClient.Failure) in try client.status() }
        guard let textfile else { return print(Metrics.text(of: status, as: .openMetrics), terminator: "") }
        do throws(SystemError) {
            try replaceFile(textfile, with: Array(Metrics.text(of: status, as: .prometheus).utf8))
        } catch {
            printError(
                "clat-agent: \(textfile) cannot be written: \(SystemError.text(of: error.code)); name a file in a directory "
                    + "that is there and that you may write to")
            throw ExitCode(73)
        }
    }
}
