import ClatBase
import Glibc

@testable import ClatTranslator

/// A program that runs beside the test, its output and errors in one pipe. It is waited for, or killed at the end.
final class ChildProcess {
    private var process = pid_t()
    private let output: OwnedDescriptor
    private var input: OwnedDescriptor?
    private var hasEnded = false

    /// Starts the program found by its name in PATH.
    init(_ arguments: [String]) throws {
        let (childInput, input) = try Self.pipe()
        let (output, childOutput) = try Self.pipe()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, childInput, 0)
        posix_spawn_file_actions_adddup2(&actions, childOutput, 1)
        posix_spawn_file_actions_adddup2(&actions, childOutput, 2)
        var words = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        // Tests run on threads that block all signals, which a program would inherit.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let code = posix_spawnp(&process, arguments[0], &actions, &attributes, &words, environ)
        close(childInput)
        close(childOutput)
        self.input = OwnedDescriptor(adopting: input)
        self.output = OwnedDescriptor(adopting: output)
        guard code == 0 else {
            hasEnded = true
            throw SystemError(call: "posix_spawnp \(arguments.first ?? "")", code: code)
        }
    }

    deinit {
        if !hasEnded {
            kill(process, SIGTERM)
            _ = wait()
        }
    }

    /// Writes a text that fits a pipe, and closes it.
    func send(_ text: String) {
        guard let input = input.take() else { return }
        _ = write(input.rawValue, text, text.utf8.count)
    }

    /// What the program writes next, at least one octet but at its end.
    func read() -> String {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(output.rawValue, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }

    /// All it writes, without the last newline.
    func readToEnd() -> String {
        var text = ""
        while true {
            let part = read()
            if part.isEmpty { break }
            text += part
        }
        if text.last == "\n" { text.removeLast() }
        return text
    }

    /// The exit status; for a signal, its negative.
    func wait() -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        hasEnded = true
        return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
    }

    private static func pipe() throws -> (reader: CInt, writer: CInt) {
        var ends: [CInt] = [-1, -1]
        try retrying("pipe2") { pipe2(&ends, O_CLOEXEC) }
        return (ends[0], ends[1])
    }
}
