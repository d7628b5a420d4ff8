import FoundationEssentials

/// The varlink protocol on the wire: one JSON object, then an octet 0 (varlink.org/Method-Call).
enum Varlink {
    /// A call.
    struct Call<Parameters: Codable & Sendable>: Codable, Sendable {
        /// Interface and method, such as `org.clatagent.Status`.
        var method: String
        /// Absent where the method takes none.
        var parameters: Parameters?
    }

    /// A reply that went well.
    struct Reply<Parameters: Codable & Sendable>: Codable, Sendable {
        var parameters: Parameters
    }

    /// A reply that did not.
    struct Failure: Codable, Sendable {
        var error: String
        var parameters: [String: String]
    }

    /// No parameters.
    struct None: Codable, Sendable {}

    /// The parameters of calls about one network interface.
    struct OneInterface: Codable, Sendable {
        var interface: String
    }

    /// The method's name alone, whatever its parameters.
    struct MethodOnly: Codable, Sendable {
        var method: String
    }

    static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Plain values of strings and numbers always encode.
        return ((try? encoder.encode(value)).map { Array($0) } ?? []) + [0]
    }

    static func decode<Value: Decodable>(_ type: Value.Type, from message: some Sequence<UInt8>) throws -> Value {
        try JSONDecoder().decode(type, from: Data(message))
    }
}

/// Names of our varlink interface.
enum ControlInterface {
    static let status = "org.clatagent.Status"
    static let renew = "org.clatagent.Renew"
    static let unknownInterface = "org.clatagent.UnknownInterface"
    static let permissionDenied = "org.varlink.service.PermissionDenied"
    static let methodNotFound = "org.varlink.service.MethodNotFound"
    static let invalidParameter = "org.varlink.service.InvalidParameter"
}
