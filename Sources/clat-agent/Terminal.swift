import ArgumentParser
import ClatAgent
import ClatBase
import Glibc

/// Writes a line to standard error.
func printError(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}

/// Writes a line to standard output at once; false where nobody reads it any more.
func writeLine(_ line: String) -> Bool {
    (try? writeAll(Array((line + "\n").utf8), to: STDOUT_FILENO, "write")) != nil
}

/// Says on a terminal what is being waited for.
func showProgress(_ text: String) {
    if isatty(STDERR_FILENO) == 1 { printError("clat-agent: \(text) ...") }
}

/// Runs `body` with a client of the agent; a failure becomes a sentence on standard error and exit status 2.
func talk<Value: ~Copyable>(
    to runtime: RuntimeOptions, _ body: (ControlClient) throws(ControlClient.Failure) -> Value
) throws -> Value {
    do throws(ControlClient.Failure) {
        return try body(ControlClient(runtimeDirectory: runtime.runtimeDir))
    } catch {
        printError("clat-agent: \(error)")
        throw ExitCode(2)
    }
}
