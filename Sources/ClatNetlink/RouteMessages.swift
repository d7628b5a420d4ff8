import CLibMnl
import ClatBase
import Glibc

// MARK: Reading

extension Route {
    /// Reads the body of an RTM_NEWROUTE or RTM_DELROUTE: `struct rtmsg`, then attributes. Nil for other families.
    init?(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) {
        let header = try bytes.load(rtmsg.self, at: body)
        guard let family = AddressFamily(number: header.rtm_family) else { return nil }
        self.init(
            to: .any(family), origin: RouteOrigin(rawValue: header.rtm_protocol),
            table: RouteTable(rawValue: UInt32(header.rtm_table)), kind: RouteKind(rawValue: header.rtm_type),
            scope: Scope(rawValue: header.rtm_scope), flags: RouteFlags(rawValue: header.rtm_flags))
        var address = destination.address
        var attributes = AttributeCursor(body, after: rtmsg.self)
        while let attribute = try attributes.next(in: bytes) {
            let value = attribute.value
            switch rtattr_type_t(UInt32(attribute.type)) {
            case RTA_DST: address = try bytes.address(family, at: value)
            case RTA_GATEWAY, RTA_VIA: gateway = try bytes.gateway(family, attribute)
            case RTA_OIF: outputIndex = try bytes.load(UInt32.self, at: value)
            case RTA_PRIORITY: metric = try bytes.load(UInt32.self, at: value)
            case RTA_PREFSRC: preferredSource = try bytes.address(family, at: value)
            case RTA_TABLE: table = RouteTable(rawValue: try bytes.load(UInt32.self, at: value))
            case RTA_PREF: preference = RouterPreference(rawValue: try bytes.load(UInt8.self, at: value))
            case RTA_METRICS: try readMetrics(bytes, value)
            case RTA_MULTIPATH: nextHops = try NextHop.list(bytes, family, value)
            default: break
            }
        }
        guard let destination = IPPrefix(address, length: Int(header.rtm_dst_len)) else {
            throw .value("prefix length \(header.rtm_dst_len)")
        }
        self.destination = destination
    }

    private mutating func readMetrics(_ bytes: RawSpan, _ nest: Range<Int>) throws(MalformedMessage) {
        var attributes = AttributeCursor(nest)
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case RTAX_MTU: mtu = Int(clamping: try bytes.load(UInt32.self, at: attribute.value))
            case RTAX_ADVMSS: advertisedMSS = Int(clamping: try bytes.load(UInt32.self, at: attribute.value))
            default: break
            }
        }
    }
}

extension NextHop {
    /// Reads RTA_MULTIPATH: for each hop `struct rtnexthop` (length in octets, flags, weight less one, interface) and
    /// attributes, all within that length.
    static func list(
        _ bytes: RawSpan, _ family: AddressFamily, _ array: Range<Int>
    ) throws(MalformedMessage) -> [NextHop] {
        var hops: [NextHop] = []
        var rest = array
        while rest.count >= MemoryLayout<rtnexthop>.size {
            let header = try bytes.load(rtnexthop.self, at: rest)
            let length = Int(header.rtnh_len)
            guard length >= MemoryLayout<rtnexthop>.size, length <= rest.count else {
                throw .length(length, available: rest.count)
            }
            var hop = NextHop(
                outputIndex: UInt32(bitPattern: header.rtnh_ifindex), weight: Int(header.rtnh_hops) + 1,
                flags: RouteFlags(rawValue: UInt32(header.rtnh_flags)))
            let end = rest.lowerBound + length
            var attributes = AttributeCursor(rest.lowerBound..<end, after: rtnexthop.self)
            while let attribute = try attributes.next(in: bytes) {
                switch rtattr_type_t(UInt32(attribute.type)) {
                case RTA_GATEWAY, RTA_VIA: hop.gateway = try bytes.gateway(family, attribute)
                default: break
                }
            }
            hops.append(hop)
            rest = min(aligned(end), rest.upperBound)..<rest.upperBound
        }
        return hops
    }
}

extension RawSpan {
    /// RTA_GATEWAY, an address of the route's family, or RTA_VIA, `struct rtvia`: two octets of family, then the address.
    fileprivate func gateway(_ family: AddressFamily, _ attribute: Attribute) throws(MalformedMessage) -> IPAddress? {
        guard attribute.type == Int(RTA_VIA.rawValue) else { return try address(family, at: attribute.value) }
        let number = try load(__kernel_sa_family_t.self, at: attribute.value)
        guard let family = UInt8(exactly: number).flatMap(AddressFamily.init(number:)) else { return nil }
        let start = attribute.value.lowerBound + MemoryLayout<__kernel_sa_family_t>.size
        return try address(family, at: start..<attribute.value.upperBound)
    }
}

// MARK: Requests

extension Request {
    static func routes(_ family: AddressFamily, table: RouteTable?) -> Request {
        var body = rtmsg()
        body.rtm_family = family.number
        var request = Request(RTM_GETROUTE, NLM_F_DUMP, body)
        if let table { request.put(RTA_TABLE.rawValue, table.rawValue) }
        return request
    }

    static func route(to destination: IPAddress, from source: IPAddress?, on index: UInt32?) -> Request {
        var body = rtmsg()
        body.rtm_family = destination.family.number
        body.rtm_dst_len = UInt8(destination.family.bits)
        body.rtm_src_len = source.map { UInt8($0.family.bits) } ?? 0
        // IPv6 tells the table unasked, and refuses to be asked.
        body.rtm_flags = destination.family == .ipv4 ? UInt32(RTM_F_LOOKUP_TABLE) : 0
        var request = Request(RTM_GETROUTE, 0, body)
        request.put(RTA_DST.rawValue, octets: destination.bytes)
        if let source { request.put(RTA_SRC.rawValue, octets: source.bytes) }
        if let index { request.put(RTA_OIF.rawValue, index) }
        return request
    }

    static func newRoute(_ route: Route, _ flags: CInt) -> Request {
        Request(route: route, RTM_NEWROUTE, flags)
    }

    static func deleteRoute(_ route: Route) -> Request {
        Request(route: route, RTM_DELROUTE, 0)
    }

    private init(route: Route, _ type: Int, _ flags: CInt) {
        var body = rtmsg()
        body.rtm_family = route.family.number
        body.rtm_dst_len = UInt8(clamping: route.destination.length)
        body.rtm_table = UInt8(exactly: route.table.rawValue) ?? UInt8(RT_TABLE_COMPAT.rawValue)
        body.rtm_protocol = route.origin.rawValue
        body.rtm_scope = route.scope.rawValue
        body.rtm_type = route.kind.rawValue
        body.rtm_flags = route.flags.intersection(.onLink).rawValue
        self.init(type, flags, body)
        if route.destination.length > 0 { put(RTA_DST.rawValue, octets: route.destination.address.bytes) }
        put(RTA_TABLE.rawValue, route.table.rawValue)
        if let gateway = route.gateway {
            if gateway.family == route.family {
                put(RTA_GATEWAY.rawValue, octets: gateway.bytes)
            } else {
                // struct rtvia: the family in host order, the address.
                let family = withUnsafeBytes(of: __kernel_sa_family_t(gateway.family.number)) { Array($0) }
                put(RTA_VIA.rawValue, octets: family + gateway.bytes)
            }
        }
        if let index = route.outputIndex { put(RTA_OIF.rawValue, index) }
        if route.metric != 0 { put(RTA_PRIORITY.rawValue, route.metric) }
        if let source = route.preferredSource { put(RTA_PREFSRC.rawValue, octets: source.bytes) }
        if route.mtu != nil || route.advertisedMSS != nil {
            nest(RTA_METRICS.rawValue) {
                if let mtu = route.mtu { $0.put(RTAX_MTU, UInt32(clamping: mtu)) }
                if let mss = route.advertisedMSS { $0.put(RTAX_ADVMSS, UInt32(clamping: mss)) }
            }
        }
        if let preference = route.preference { put(RTA_PREF.rawValue, preference.rawValue) }
    }
}
