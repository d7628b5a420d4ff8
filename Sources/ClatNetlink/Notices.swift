import CLibMnl
public import ClatBase
import Glibc

/// What the kernel tells of by itself.
public enum Notice: Hashable, Sendable {
    /// A link is new or has changed, or is gone (deleted, or moved to another namespace).
    case link(Link, removed: Bool)
    /// A station has associated with an access point; `index` is the link's.
    case associated(index: UInt32)
    /// An address is new or has changed, or is gone.
    case address(InterfaceAddress, removed: Bool)
    /// A route is new or has changed, or is gone. The kernel takes a link's
    /// IPv4 routes away without a notice when it goes down: list them anew then. And where the route `replaces` another one
    /// (NLM_F_REPLACE), for it does not tell which.
    case route(Route, removed: Bool, replaces: Bool = false)
    /// A neighbour is new or has changed, or is gone.
    case neighbour(Neighbour, removed: Bool)
    /// The kernel had more to tell than the socket could hold (ENOBUFS): list anew what matters.
    case overrun
    /// A message that could not be read, of that RTM_ type (0 where not even that could be read).
    case malformed(type: Int, MalformedMessage)
}

/// What a monitor listens to.
public struct NoticeGroups: OptionSet, Hashable, Sendable {
    /// The kernel's RTMGRP_ bits.
    public var rawValue: CInt
    /// The kernel's RTMGRP_ bits.
    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// Links.
    public static let links = NoticeGroups(rawValue: RTMGRP_LINK)
    /// Addresses of both families.
    public static let addresses = NoticeGroups(rawValue: RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
    /// Routes of both families.
    public static let routes = NoticeGroups(rawValue: RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE)
    /// Neighbours of both families.
    public static let neighbours = NoticeGroups(rawValue: RTMGRP_NEIGH)
}

/// Notices of one namespace. Open it before listing what it shall keep up to date: so nothing falls in between.
public struct NetlinkMonitor: ~Copyable, Sendable {
    private let socket: MnlSocket
    private var buffer = [UInt8](repeating: 0, count: 65536)
    /// More datagrams than the socket's buffer can hold.
    private static let mostWaiting = 1 << 14
    /// Of the last datagram, last one first.
    private var pending: [Notice] = []

    /// Notices that could not be read.
    public private(set) var malformed = 0

    /// A monitor of the calling thread's namespace.
    public init(_ groups: NoticeGroups = [.links, .addresses, .routes]) throws(NetlinkError) {
        try self.init(groups, namespace: nil)
    }

    /// A monitor of that namespace. Which thread uses it later does not matter.
    public init(
        _ groups: NoticeGroups = [.links, .addresses, .routes], in namespace: borrowing NetworkNamespace
    ) throws(NetlinkError) {
        try self.init(groups, namespace: namespace.descriptor)
    }

    /// A monitor that holds about so many octets of notices.
    init(_ groups: NoticeGroups, namespace: CInt?, receiveBuffer: CInt = 1 << 20) throws(NetlinkError) {
        socket = try .bound(
            to: groups.rawValue, namespace: namespace, flags: CInt(SOCK_NONBLOCK.rawValue),
            receiveBuffer: receiveBuffer)
    }

    /// To be polled for reading; then call `next` until it is nil.
    public var descriptor: CInt { socket.descriptor }

    /// Whether a notice has been read from the socket that `next` has not given yet.
    public var hasMore: Bool { !pending.isEmpty }

    /// The next notice, or nil where there is none for now. Never waits.
    public mutating func next() throws(NetlinkError) -> Notice? {
        while pending.isEmpty {
            let count: Int
            do throws(NetlinkError) { count = try socket.receive(into: &buffer, "read netlink notices") } catch {
                switch error.code {
                case EAGAIN: return nil
                case ENOBUFS:
                    try forget()
                    return .overrun
                default: throw error
                }
            }
            pending = Notice.list(buffer.span.bytes.extracting(0..<count)).reversed()
        }
        let notice = pending.popLast()
        if case .malformed = notice { malformed += 1 }
        return notice
    }

    /// Throws away what waits. All of it is older than what was lost, and would be taken for newer than what is listed next.
    private mutating func forget() throws(NetlinkError) {
        // Bounded, as more may come meanwhile: no more than that can have been waiting.
        for _ in 0..<Self.mostWaiting {
            do throws(NetlinkError) { _ = try socket.receive(into: &buffer, "read netlink notices") } catch {
                switch error.code {
                case EAGAIN: return
                case ENOBUFS: continue
                default: throw error
                }
            }
        }
    }

    /// Sleeps until there may be a notice. False where the deadline came first.
    public func wait(until deadline: BootInstant) throws(NetlinkError) -> Bool {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let left = max(0, (deadline.nanoseconds &- BootInstant.now.nanoseconds) / 1_000_000)
            let count = Glibc.poll(&poll, 1, CInt(clamping: left + 1))
            if count > 0 { return true }
            if count < 0, errno != EINTR { throw NetlinkError(operation: "wait for netlink notices", code: errno) }
            if BootInstant.now >= deadline { return false }
        }
    }
}

extension Notice {
    /// Reads the messages of a datagram. Those of other types or families are passed over.
    static func list(_ bytes: RawSpan) -> [Notice] {
        var notices: [Notice] = []
        var cursor = MessageCursor()
        while true {
            var type = 0
            do throws(MalformedMessage) {
                guard let message = try cursor.next(in: bytes) else { return notices }
                type = message.type
                if let notice = try Notice(bytes, message) { notices.append(notice) }
            } catch { notices.append(.malformed(type: type, error)) }
        }
    }

    private init?(_ bytes: RawSpan, _ message: Message) throws(MalformedMessage) {
        switch message.type {
        case RTM_NEWLINK, RTM_DELLINK:
            if let link = try Link(bytes, message.body) {
                self = .link(link, removed: message.type == RTM_DELLINK)
            } else if let index = try Link.association(bytes, message.body) {
                self = .associated(index: index)
            } else {
                return nil
            }
        case RTM_NEWADDR, RTM_DELADDR:
            guard let address = try InterfaceAddress(bytes, message.body) else { return nil }
            self = .address(address, removed: message.type == RTM_DELADDR)
        case RTM_NEWROUTE, RTM_DELROUTE:
            guard let route = try Route(bytes, message.body) else { return nil }
            self = .route(
                route, removed: message.type == RTM_DELROUTE, replaces: message.flags & NLM_F_REPLACE != 0)
        case RTM_NEWNEIGH, RTM_DELNEIGH:
            guard let neighbour = try Neighbour(bytes, message.body) else { return nil }
            self = .neighbour(neighbour, removed: message.type == RTM_DELNEIGH)
        case Int(NLMSG_OVERRUN): self = .overrun
        default: return nil
        }
    }
}
