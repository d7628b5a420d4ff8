import ClatBase
import Glibc

/// A request that the kernel refused, or an answer that did not come.
public struct NetlinkError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was asked, as a phrase: `create ipvlan clat0 on link 2`.
    public var operation: String
    /// The errno of the kernel's answer or of the failed call; ETIMEDOUT where no answer came.
    public var code: CInt
    /// The kernel's own words (NLMSGERR_ATTR_MSG), where it had some.
    public var message: String?

    /// An error of that operation.
    public init(operation: String, code: CInt, message: String? = nil) {
        self.operation = operation
        self.code = code
        self.message = message
    }

    /// `create ipvlan clat0 on link 2: Operation not supported (Unknown device type)`
    public var description: String {
        "\(operation): \(SystemError.text(of: code))" + (message.map { " (\($0))" } ?? "")
    }
}
