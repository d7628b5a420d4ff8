import Glibc

/// A system call that failed: which one (with what it was about) and why.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call and its object, such as `open /dev/net/tun`.
    public var call: String
    /// The errno it left.
    public var code: CInt

    /// An error of that call with that errno.
    public init(call: String, code: CInt) {
        self.call = call
        self.code = code
    }

    /// An error of that call with the present errno. Make it before anything else can change errno.
    public static func last(_ call: @autoclosure () -> String) -> SystemError {
        let code = errno
        return SystemError(call: call(), code: code)
    }

    /// `open /dev/net/tun: No such file or directory`
    public var description: String { "\(call): \(Self.text(of: code))" }

    /// Whether the machine, or a limit of the process, was only full at the moment: a little later it may go well.
    public var isPassing: Bool { [ENOMEM, ENOBUFS, EAGAIN, EMFILE, ENFILE, EINTR].contains(code) }

    /// The system's sentence for an errno.
    public static func text(of code: CInt) -> String {
        var buffer = [CChar](repeating: 0, count: 128)
        guard let text = strerror_r(code, &buffer, buffer.count) else { return "errno \(code)" }
        return String(cString: text)
    }
}

/// Calls until the answer is not EINTR; -1 becomes an error of that name.
@discardableResult
public func retrying<Result: FixedWidthInteger>(
    _ call: @autoclosure () -> String, _ body: () -> Result
) throws(SystemError) -> Result {
    while true {
        let result = body()
        if result != -1 { return result }
        let code = errno
        if code != EINTR { throw SystemError(call: call(), code: code) }
    }
}
