import CLinux
import ClatBase
import Glibc

/// Descriptors that were open when this process began and are meant for it, each with a name (sd_listen_fds(3)): from 3 on as
/// many as LISTEN_FDS says, if LISTEN_PID is ours, with the names of LISTEN_FDNAMES. What is not taken is closed.
final class InheritedDescriptors {
    private var open: [(name: String, descriptor: CInt)] = []

    /// More are somebody's mistake, and left alone.
    static let limit = 256
    private static let variables = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]

    /// Takes them out of the environment: they are for no child of ours. Before anything else is opened.
    init() {
        let values = Self.variables.map { name in getenv(name).map { String(cString: $0) } }
        for name in Self.variables { unsetenv(name) }
        guard values[0] == "\(getpid())", let count = values[1].flatMap(Int.init), (1...Self.limit).contains(count)
        else { return }
        let names = (values[2] ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        for number in 0..<count {
            let descriptor = CInt(3 + number)
            if fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0, errno == EBADF { continue }
            open.append((number < names.count ? names[number] : "", descriptor))
        }
    }

    deinit {
        for (_, descriptor) in open { close(descriptor) }
    }

    /// The names of those that nobody has taken.
    var names: [String] { open.map(\.name) }

    /// The one of that name, the caller's from now on; nil where there is none, or more than one.
    func take(_ name: String) -> OwnedDescriptor? {
        let places = open.indices.filter { open[$0].name == name }
        guard places.count == 1 else { return nil }
        return OwnedDescriptor(adopting: open.remove(at: places[0]).descriptor)
    }

    /// Where the next process finds them: this very process, by another program. Returns only where that fails, and then all is
    /// as it was.
    static func pass(_ descriptors: [(name: String, descriptor: CInt)], to path: String) -> SystemError {
        let first: CInt = 3
        let end = first + CInt(descriptors.count)
        // Copies beyond the places they go to, as of what is in these places now; -1 where there is nothing.
        var copies: [CInt] = []
        defer { for copy in copies where copy >= 0 { close(copy) } }
        do throws(SystemError) {
            for descriptor in descriptors.map(\.descriptor) + Array(first..<end) {
                let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, end)
                if copy < 0, errno != EBADF || copies.count < descriptors.count { throw .last("copy a descriptor") }
                copies.append(copy)
            }
        } catch { return error }
        let present = zip(first..<end, copies[descriptors.count...])
        defer {
            for (place, former) in present {
                if former >= 0 { dup3(former, place, O_CLOEXEC) } else { close(place) }
            }
        }
        do throws(SystemError) {
            for (place, copy) in zip(first..<end, copies) { try retrying("place a descriptor") { dup2(copy, place) } }
        } catch { return error }
        setenv("LISTEN_PID", "\(getpid())", 1)
        setenv("LISTEN_FDS", "\(descriptors.count)", 1)
        setenv("LISTEN_FDNAMES", descriptors.map(\.name).joined(separator: ":"), 1)
        var words: [UnsafeMutablePointer<CChar>?] = CommandLine.arguments.map { strdup($0) } + [nil]
        execv(path, &words)
        let error = SystemError.last("run \(path)")
        for word in words { free(word) }
        for name in variables { unsetenv(name) }
        return error
    }
}

/// Where this program is found once it was replaced, as by a package's upgrade: the path by which it was started, whatever is
/// there then.
enum ProgramPath {
    /// By the first word of the command, relative to the directory of the start or on PATH; else by what runs.
    static func find(_ word: String? = CommandLine.arguments.first, search: String? = environmentPath) -> String? {
        let directory = currentDirectory
        func absolute(_ path: String) -> String { path.hasPrefix("/") ? path : "\(directory)/\(path)" }
        var candidates: [String] = []
        if let word, word.contains("/") {
            candidates = [absolute(word)]
        } else if let word, !word.isEmpty {
            candidates = (search ?? "").split(separator: ":").map { absolute("\($0)/\(word)") }
        }
        return (candidates + [running].compactMap { $0 }).first { access($0, X_OK) == 0 }
    }

    private static var environmentPath: String? { getenv("PATH").map { String(cString: $0) } }

    private static var currentDirectory: String {
        guard let text = getcwd(nil, 0) else { return "" }
        defer { free(text) }
        return String(cString: text)
    }

    /// What /proc says; of no use once the file was replaced.
    private static var running: String? {
        var text = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &text, text.count)
        return count > 0 ? String(decoding: text.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self) : nil
    }
}
