import FoundationEssentials

/// The varlink protocol on the wire: one JSON object, then an octet 0 (varlink.org/Method-Call).
enum Varlink {
    /// A call.
    struct Call<Parameters: Codable & Sendable>: Codable, Sendable {
        /// Interface and method, such as `org.clatagent.Status`.
        var method: String
        /// Absent where the method takes none.
        var parameters: Parameters?
        /// The caller takes any number of replies.
        var more: Bool?
    }

    /// A reply that went well.
    struct Reply<Parameters: Codable & Sendable>: Codable, Sendable {
        var parameters: Parameters
        /// Another one follows.
        var continues: Bool?
    }

    /// A reply that did not.
    struct Failure: Codable, Sendable {
        var error: String
        var parameters: [String: String]?
    }

    /// No parameters.
    struct None: Codable, Sendable {}

    /// The parameters of calls about one interface, of the network or of varlink.
    struct OneInterface: Codable, Sendable {
        var interface: String
    }

    /// The parameters of `Enable` and `Disable`.
    struct Switch: Codable, Sendable {
        var interface: String
        var lasting: Bool?
    }

    /// What a call is before its parameters are looked at.
    struct Head: Codable, Sendable {
        var method: String
        var more: Bool?
        /// The caller wants no reply.
        var oneway: Bool?
    }

    static func encode(_ value: some Encodable) -> [UInt8] { JSONLine.octets(value) + [0] }

    static func reply(_ parameters: some Codable & Sendable, continues: Bool? = nil) -> [UInt8] {
        encode(Reply(parameters: parameters, continues: continues))
    }

    static func refusal(_ error: String, _ parameters: [String: String] = [:]) -> [UInt8] {
        encode(Failure(error: error, parameters: parameters))
    }

    static func decode<Value: Decodable>(_ type: Value.Type, from message: some Sequence<UInt8>) throws -> Value {
        try JSONDecoder().decode(type, from: Data(message))
    }
}

/// The interface every varlink service has.
enum ServiceInterface {
    static let name = "org.varlink.service"
    static let getInfo = "\(name).GetInfo"
    static let getInterfaceDescription = "\(name).GetInterfaceDescription"

    static let interfaceNotFound = "\(name).InterfaceNotFound"
    static let methodNotFound = "\(name).MethodNotFound"
    static let invalidParameter = "\(name).InvalidParameter"
    static let permissionDenied = "\(name).PermissionDenied"
    static let expectedMore = "\(name).ExpectedMore"

    /// The answer to `GetInfo`.
    struct Information: Codable, Sendable {
        var vendor = "clat-agent"
        var product = "clat-agent"
        var version: String
        var url = "https://www.rfc-editor.org/rfc/rfc6877"
        var interfaces: [String]
    }

    /// The answer to `GetInterfaceDescription`.
    struct Description: Codable, Sendable {
        var description: String
    }
}

/// Our own varlink interface; `org.clatagent.varlink` describes it.
enum ControlInterface {
    static let name = "org.clatagent"
    static let status = "\(name).Status"
    static let monitor = "\(name).Monitor"
    static let renew = "\(name).Renew"
    static let enable = "\(name).Enable"
    static let disable = "\(name).Disable"
    static let openNamespace = "\(name).OpenNamespace"
    static let reexec = "\(name).Reexec"

    static let setResolvers = "\(name).SetResolvers"

    static let unknownInterface = "\(name).UnknownInterface"
    static let noNamespace = "\(name).NoNamespace"
    static let notLasting = "\(name).NotLasting"
    static let notReexecuted = "\(name).NotReexecuted"

    /// The descriptions of both interfaces, as they are in the source tree.
    static let descriptions = [
        name: text(PackageResources.org_clatagent_varlink),
        ServiceInterface.name: text(PackageResources.org_varlink_service_varlink),
    ]

    /// What `Renew` is called with.
    struct Renewal: Codable, Sendable {
        var interface: String
        var resolvers: [String]?
    }

    /// What `SetResolvers` is called with.
    struct Resolvers: Codable, Sendable {
        var interface: String
        var servers: [String]
    }

    /// The answer to `Monitor`, again and again.
    struct Monitored: Codable, Sendable {
        var event: AgentEvent
    }

    private static func text(_ octets: [UInt8]) -> String { String(decoding: octets, as: UTF8.self) }
}
